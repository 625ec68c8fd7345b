"""ROUGE-L: the longest common subsequence of a caption and its references."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.metrics.ngrams import check_caption_sets

__all__ = ["common_subsequence", "rouge_l"]

_BETA = 1.2


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of two token lists.

    Bit-parallel: one machine word holds 64 columns of the table (Hyyro 2004), for very long captions.
    """
    bits: dict[str, int] = {}  # for each token, its positions in `a`
    for i, token in enumerate(a):
        bits[token] = bits.get(token, 0) | (1 << i)
    full = (1 << len(a)) - 1
    row = full
    for token in b:
        match = row & bits.get(token, 0)
        row = ((row + match) | (row - match)) & full
    return len(a) - row.bit_count()


def rouge_l(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> list[float]:
    """Score each caption with ROUGE-L: best precision and best recall over its references, beta 1.2.

    An empty caption counts as one empty word, as in the reference implementation, so that an empty candidate
    against an empty reference scores 1.

    Args:
        candidates: One token list for each image.
        references: One or more token lists for each image.

    Returns:
        One score in [0, 1] for each image; the corpus score is their mean.

    Raises:
        InputError: The captions cannot be scored (see `check_caption_sets`).

    Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004; arithmetic of pycocoevalcap's
    `Rouge`.
    """
    check_caption_sets(candidates, references)
    return [
        _best_f(candidate or [""], [r or [""] for r in image_references])
        for candidate, image_references in zip(candidates, references)
    ]


def _best_f(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    common = [common_subsequence(candidate, reference) for reference in references]
    precision = max(common) / len(candidate)
    recall = max(c / len(reference) for c, reference in zip(common, references))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
