"""BLEU-1 to BLEU-4 of a corpus, as the COCO caption evaluation counts it (closest reference length)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from visionkit.metrics.ngrams import NGram, check_caption_sets, count_ngrams

__all__ = ["bleu_counts", "bleu_scores"]

# The reference implementation keeps its divisions finite with these two; equality to 1e-9 needs the same.
_SMALL = 1e-9
_TINY = 1e-15


def bleu_scores(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], *, max_n: int = 4
) -> list[float]:
    """Score a corpus with BLEU-1 .. BLEU-`max_n`.

    Counts are summed over the corpus before they are divided. The brevity penalty takes, for each candidate,
    the reference whose length is closest (the shorter one of two that are equally close).

    Args:
        candidates: One token list for each image.
        references: One or more token lists for each image.
        max_n: Longest n-gram.

    Returns:
        `max_n` scores in [0, 1].

    Raises:
        InputError: The captions cannot be scored (see `check_caption_sets`).

    Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", ACL 2002; arithmetic of
    pycocoevalcap's `BleuScorer` with option "closest".
    """
    rows = bleu_counts(candidates, references, max_n=max_n)
    predicted, correct, lengths = ([sum(column) for column in zip(*part)] for part in zip(*rows))
    candidate_length, reference_length = lengths
    scores, product = [], 1.0
    for n in range(max_n):
        product *= (correct[n] + _TINY) / (predicted[n] + _SMALL)
        scores.append(product ** (1 / (n + 1)))
    ratio = (candidate_length + _TINY) / (reference_length + _SMALL)
    if ratio < 1:
        penalty = math.exp(1 - 1 / ratio)
        scores = [score * penalty for score in scores]
    return scores


def bleu_counts(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], *, max_n: int = 4
) -> list[tuple[list[int], list[int], list[int]]]:
    """Return what each image adds to BLEU's sums.

    Args:
        candidates: One token list for each image.
        references: One or more token lists for each image.
        max_n: Longest n-gram.

    Returns:
        For each image the n-grams of its candidate by length `(max_n,)`, those of them that are correct
        `(max_n,)`, and two lengths: the candidate's and the closest reference's.

    Raises:
        InputError: The captions cannot be scored (see `check_caption_sets`).
    """
    check_caption_sets(candidates, references)
    rows = []
    for candidate, image_references in zip(candidates, references):
        length = len(candidate)
        closest = min((abs(len(r) - length), len(r)) for r in image_references)[1]
        max_counts: Counter[NGram] = Counter()
        for reference in image_references:
            max_counts |= count_ngrams(reference, max_n)
        correct = [0] * max_n
        for ngram, count in count_ngrams(candidate, max_n).items():
            correct[len(ngram) - 1] += min(count, max_counts[ngram])
        rows.append(([max(0, length - n) for n in range(max_n)], correct, [length, closest]))
    return rows
