"""Caption scores that need no Java: of token lists, and over an evaluation on any number of processes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from visionkit.distributed import rank
from visionkit.errors import InputError, expected
from visionkit.metrics.base import ScoreMetric, bytes_to_tensor
from visionkit.metrics.bleu import bleu_counts, bleu_scores
from visionkit.metrics.cider import CiderD, DocumentFrequency
from visionkit.metrics.ngrams import check_caption_sets
from visionkit.metrics.rouge import rouge_l
from visionkit.text.tokenize import tokenize
from visionkit.types import as_ids

__all__ = ["CaptionScores", "caption_scores"]

_NAMES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "cider_d")


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

    Equal to pycocoevalcap's `Bleu`, `Rouge` and `Cider` on the same tokens. Which number goes by which name
    is in `visionkit.metrics.cider`.
    """
    check_caption_sets(candidates, references)
    count = len(candidates)
    cider = sum(CiderD.from_references(references)(candidates, references)) / count
    values = (
        *bleu_scores(candidates, references),
        sum(rouge_l(candidates, references)) / count,
        cider,
        cider if frequency is None else sum(CiderD(frequency)(candidates, references)) / count,
    )
    return dict(zip(_NAMES, values, strict=True))


class CaptionScores(ScoreMetric):
    """bleu1 to bleu4, rouge_l, cider and cider_d of all captions.

    CIDEr needs the document frequencies of all references, so no running sum can give it: the captions
    themselves are gathered, as text. An image that two processes saw counts once, and images are ordered by
    name, so the scores do not depend on the number of processes.

    Args:
        frequency: Document frequencies for `cider_d`; None takes them from the references.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.
    """

    monitor = ("cider", "max")
    captions: list[Tensor]

    def __init__(
        self, frequency: DocumentFrequency | None = None, *, score: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(_NAMES, score=score, **kwargs)
        self.frequency = frequency
        self._scored: tuple[Sequence[str], Sequence[Any], Sequence[Any]] = ((), (), ())
        # Lines of JSON in UTF-8: process, name or null, caption, references.
        self._add_rows("captions", None, torch.uint8)

    def update(
        self,
        preds: Sequence[str | Sequence[str]],
        target: Sequence[Sequence[str | Sequence[str]]],
        ids: Sequence[Any] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            preds: One caption for each image: its tokens, or a sentence, which is tokenized here.
            target: One or more references for each image, likewise.
            ids: The name of each image, text or a number; by default its process and position. An image that
                comes again replaces its caption.

        Raises:
            InputError: The three differ in length.
        """
        names: Sequence[str | None] = [None] * len(preds) if ids is None else as_ids(ids) or []
        if not len(names) == len(preds) == len(target):
            lengths = (len(names), len(preds), len(target))
            raise InputError(expected("ids, preds and target", "equally many", lengths))
        lines = [
            json.dumps([rank(), name, _tokens(caption), [_tokens(reference) for reference in references]])
            for name, caption, references in zip(names, preds, target, strict=True)
        ]
        self.captions.append(bytes_to_tensor("".join(f"{line}\n" for line in lines).encode()))

    def _scores(self) -> dict[str, float]:
        positions: Counter[int] = Counter()
        captions: dict[str, tuple[list[str], list[list[str]]]] = {}
        for line in self._rows("captions").numpy().tobytes().splitlines():
            process, name, caption, references = json.loads(line)
            captions[f"{process}/{positions[process]}" if name is None else name] = (caption, references)
            positions[process] += 1
        if not captions:
            return {}
        names = sorted(captions)
        candidates, references = zip(*(captions[name] for name in names), strict=True)
        self._scored = names, candidates, references
        return caption_scores(candidates, references, frequency=self.frequency)

    def image_rows(self) -> dict[str, NDArray[Any]]:
        """Return what each image added to the scores of the last `compute`: columns with a row an image.

        "ids", the means "mean.cider", "mean.cider_d" and "mean.rouge_l" `(N,)`, and BLEU's counts:
        "ngrams" and "correct_ngrams" `(N, 4)`, and "lengths" `(N, 2)`, the caption's and the closest
        reference's. CIDEr's document frequencies are those of all references.
        """
        names, candidates, references = self._scored
        if not names:
            return {}
        cider = CiderD.from_references(references)(candidates, references)
        given = cider if self.frequency is None else CiderD(self.frequency)(candidates, references)
        means = {"cider": cider, "cider_d": given, "rouge_l": rouge_l(candidates, references)}
        counts = zip(*bleu_counts(candidates, references), strict=True)
        columns = dict(zip(("ngrams", "correct_ngrams", "lengths"), map(np.array, counts), strict=True))
        return {"ids": np.array(names, dtype=str), **columns} | {
            f"mean.{name}": np.array(values) for name, values in means.items()
        }

    def _apply(self, fn: Any, exclude_state: Sequence[str] = "") -> nn.Module:
        return super()._apply(fn, exclude_state=("captions",))  # scored on the host


def _tokens(caption: str | Sequence[str]) -> list[str]:
    return tokenize(caption) if isinstance(caption, str) else list(caption)
