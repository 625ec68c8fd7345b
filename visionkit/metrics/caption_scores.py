"""Every caption score that needs no Java, from token lists."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.metrics.bleu import bleu_scores
from visionkit.metrics.cider import CiderD, DocumentFrequency
from visionkit.metrics.ngrams import check_caption_sets
from visionkit.metrics.rouge import rouge_l

__all__ = ["caption_scores"]


def caption_scores(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    *,
    frequency: DocumentFrequency | None = None,
) -> dict[str, float]:
    """Score captions with BLEU-1..4, ROUGE-L, CIDEr and CIDEr-D.

    Args:
        candidates: One token list for each image (`visionkit.text.tokenize` makes them).
        references: One or more token lists for each image.
        frequency: Document frequencies for `cider_d`, such as those of the training captions. None takes them
            from `references`, and then `cider_d` equals `cider`, which always does so (the leaderboards'
            protocol).

    Returns:
        `bleu1` .. `bleu4` and `rouge_l` in [0, 1], `cider` and `cider_d` in [0, 10]. Published tables show
        all of them times 100.

    Raises:
        InputError: The captions cannot be scored (see `check_caption_sets`).

    Equal to pycocoevalcap's `Bleu`, `Rouge` and `Cider` on the same tokens; `visionkit.metrics.cider` says
    which number goes by which name.
    """
    check_caption_sets(candidates, references)
    bleu = bleu_scores(candidates, references)
    count = len(candidates)
    cider = sum(CiderD.from_references(references)(candidates, references)) / count
    cider_d = cider if frequency is None else sum(CiderD(frequency)(candidates, references)) / count
    return {
        **{f"bleu{n + 1}": score for n, score in enumerate(bleu)},
        "rouge_l": sum(rouge_l(candidates, references)) / count,
        "cider": cider,
        "cider_d": cider_d,
    }
