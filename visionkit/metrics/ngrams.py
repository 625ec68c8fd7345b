"""Counting n-grams, for BLEU and CIDEr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from visionkit.errors import InputError, expected

__all__ = ["NGram", "check_caption_sets", "count_ngrams"]

NGram: TypeAlias = tuple[str, ...]


def count_ngrams(tokens: Sequence[str], max_n: int = 4) -> Counter[NGram]:
    """Count every n-gram of 1 to `max_n` tokens.

    Args:
        tokens: The words of one sentence, in order.
        max_n: Longest n-gram.

    Returns:
        How often each n-gram occurs; an n-gram is a tuple of words.
    """
    words = tuple(tokens)
    return Counter(words[i : i + n] for n in range(1, max_n + 1) for i in range(len(words) - n + 1))


def check_caption_sets(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> None:
    """Refuse captions that cannot be scored, naming the first such image.

    Args:
        candidates: One token list for each image.
        references: One or more token lists for each image.

    Raises:
        InputError: The two differ in length, are empty, an image has no reference, or a caption is a
            string in place of a list of tokens.
    """
    if len(candidates) != len(references):
        text = expected("references", f"as many as candidates ({len(candidates)})", len(references))
        raise InputError(text)
    if not candidates:
        raise InputError("Expected at least one caption to score, but got none.")
    for i, (candidate, image_references) in enumerate(zip(candidates, references)):
        if any(isinstance(value, str) for value in (candidate, image_references, *image_references)):
            text = expected(f"captions of image {i}", "lists of tokens", "a string")
            raise InputError(f"{text} Use visionkit.text.tokenize(sentence) first.")
        if not image_references:
            raise InputError(f"Expected image {i} to have at least one reference caption, but got none.")
