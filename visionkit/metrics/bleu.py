"""BLEU-1 to BLEU-4 of a corpus, as the COCO caption evaluation counts it (closest reference length)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from visionkit.metrics.ngrams import NGram, check_caption_sets, count_ngrams

__all__ = ["bleu_scores"]

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
    check_caption_sets(candidates, references)
    predicted, correct = [0] * max_n, [0] * max_n  # n-grams, by length
    candidate_length = reference_length = 0
    for candidate, image_references in zip(candidates, references):
        length = len(candidate)
        candidate_length += length
        reference_length += min((abs(len(r) - length), len(r)) for r in image_references)[1]
        max_counts: Counter[NGram] = Counter()
        for reference in image_references:
            max_counts |= count_ngrams(reference, max_n)
        for n in range(max_n):
            predicted[n] += max(0, length - n)
        for ngram, count in count_ngrams(candidate, max_n).items():
            correct[len(ngram) - 1] += min(count, max_counts[ngram])

    scores, product = [], 1.0
    for n in range(max_n):
        product *= (correct[n] + _TINY) / (predicted[n] + _SMALL)
        scores.append(product ** (1 / (n + 1)))
    ratio = (candidate_length + _TINY) / (reference_length + _SMALL)
    if ratio < 1:
        penalty = math.exp(1 - 1 / ratio)
        scores = [score * penalty for score in scores]
    return scores
