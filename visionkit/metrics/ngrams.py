"""Counting runs of words: what BLEU and CIDEr have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from visionkit.errors import InputError, expected

__all__ = ["NGram", "check_caption_sets", "count_ngrams"]

NGram: TypeAlias = tuple[str, ...]


def count_ngrams(tokens: Sequence[str], longest: int = 4) -> Counter[NGram]:
    """Count every run of 1 to `longest` tokens.

    Args:
        tokens: The words of one sentence, in order.
        longest: The longest run that is counted.

    Returns:
        How often each run occurs; a run is a tuple of words.
    """
    words = tuple(tokens)
    return Counter(words[i : i + n] for n in range(1, longest + 1) for i in range(len(words) - n + 1))


def check_caption_sets(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> None:
    """Refuse captions that cannot be scored, naming the first one at fault.

    Args:
        candidates: One token list for each image.
        references: One or more token lists for each image.

    Raises:
        InputError: The two differ in length, are empty, an image has no reference, or a caption is a
            string where a list of tokens is wanted.
    """
    if len(candidates) != len(references):
        text = expected("references", f"as many as candidates ({len(candidates)})", len(references))
        raise InputError(text)
    if not candidates:
        raise InputError("Expected at least one caption to score, but got none.")
    for i, (candidate, several) in enumerate(zip(candidates, references)):
        if isinstance(candidate, str) or isinstance(several, str) or any(isinstance(r, str) for r in several):
            text = expected(f"captions of image {i}", "lists of tokens", "a string")
            raise InputError(f"{text} Use visionkit.text.tokenize(sentence) first.")
        if not several:
            raise InputError(f"Expected image {i} to have at least one reference caption, but got none.")
