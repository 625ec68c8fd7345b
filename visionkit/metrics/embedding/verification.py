"""Verification: whether two images are of one class, from how alike their vectors are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionkit.config import check_numbers, limits
from visionkit.metrics.base import ScoreMetric

__all__ = ["VerificationScores", "fold_accuracy", "roc_points", "verification_scores"]

Floats = npt.NDArray[np.float64]
FARS = (0.01, 0.001)


def roc_points(scores: Floats, same: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the false and the true accept rates at every threshold, from none accepted to all.

    Args:
        scores: `(N,)`, higher is more alike; equal ones are accepted together.
        same: `(N,)` whether the pair is of one class; some are and some are not.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], same[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    hits = np.cumsum(positive)[last]
    true_rate = np.append(0.0, hits / positive.sum())
    false_rate = np.append(0.0, (last + 1 - hits) / (len(positive) - positive.sum()))
    return false_rate, true_rate


def fold_accuracy(scores: Floats, same: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]) -> float:
    """Return the mean accuracy of the folds, each at the threshold that is best for the others.

    That is how Labeled Faces in the Wild counts it (Huang et al., 2007), where no person is in two of its ten
    folds. Among equally good thresholds the highest counts, half-way between two scores.

    Args:
        scores: `(N,)`, higher is more alike.
        same: `(N,)`.
        folds: `(N,)` whole numbers.

    Returns:
        NaN with fewer than two folds.
    """
    numbers = np.unique(folds)
    if len(numbers) < 2:
        return math.nan
    accuracies = []
    for number in numbers:
        inside = folds == number
        threshold = _best_threshold(scores[~inside], same[~inside])
        accuracies.append(((scores[inside] > threshold) == same[inside]).mean())
    return float(np.mean(accuracies))


def _best_threshold(scores: Floats, same: npt.NDArray[np.bool_]) -> float:
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], same[order]
    cuts = np.append(0, np.append(np.flatnonzero(np.diff(ordered)) + 1, len(ordered)))  # accepted pairs
    gained = np.append(0, np.cumsum(np.where(positive, 1, -1)))[cuts]
    cut = int(cuts[int(np.argmax(gained))])
    if cut == 0:
        return math.inf
    return -math.inf if cut == len(ordered) else float((ordered[cut - 1] + ordered[cut]) / 2)


def verification_scores(
    scores: Floats,
    same: npt.NDArray[np.bool_],
    *,
    folds: npt.NDArray[np.int64] | None = None,
    fars: Sequence[float] = FARS,
) -> dict[str, float]:
    """Return auc, eer, tar_at_far_X and accuracy of pairs; NaN where all or none are of one class.

    `auc` is the area below the ROC, ties counted half. `eer` is the rate at which, along its straight pieces,
    as many pairs of two classes are accepted as pairs of one are rejected. `tar_at_far_X` is the largest true
    accept rate at a false accept rate of X or less. `accuracy`: see `fold_accuracy`.

    Args:
        scores: `(N,)`, higher is more alike.
        same: `(N,)` whether the pair is of one class.
        folds: `(N,)` whole numbers; without them the accuracy is NaN.
        fars: The Xs.
    """
    names = [f"tar_at_far_{far:g}" for far in fars]
    values = dict.fromkeys(["auc", "eer", *names], math.nan)
    if same.any() and not same.all():
        false_rate, true_rate = roc_points(scores, same)
        values["auc"] = float(np.trapezoid(true_rate, false_rate))
        values["eer"] = _equal_error_rate(false_rate, true_rate)
        for name, far in zip(names, fars, strict=True):
            values[name] = float(true_rate[false_rate <= far].max())
    return values | {"accuracy": math.nan if folds is None else fold_accuracy(scores, same, folds)}


def _equal_error_rate(false_rate: Floats, true_rate: Floats) -> float:
    gap = false_rate + true_rate - 1  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    fraction = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(false_rate[after - 1] + fraction * (false_rate[after] - false_rate[after - 1]))


class VerificationScores(ScoreMetric):
    """auc, eer, tar_at_far_X and accuracy of a list of pairs: see `verification_scores`.

    Args:
        fars: The false accept rates X.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.
    """

    monitor = ("auc", "max")
    likeness: list[Tensor]
    about: list[Tensor]

    def __init__(self, *, fars: Sequence[float] = FARS, score: str | None = None, **kwargs: Any) -> None:
        fars = check_numbers("fars", list(fars), limits(min=0, max=1))
        names = ["auc", "eer", *(f"tar_at_far_{far:g}" for far in fars), "accuracy"]
        super().__init__(names, score=score, **kwargs)
        self.fars = tuple(fars)
        self._add_rows("likeness", None, torch.float64)
        self._add_rows("about", 2, torch.int64)  # same, fold (-1: none)

    @torch.no_grad()
    def update(self, preds: Tensor, target: Tensor, folds: Tensor | None = None) -> None:
        """Add pairs.

        Args:
            preds: `(B,)` how alike the two are; higher is more.
            target: `(B,)` whether they are of one class: 0 and 1.
            folds: `(B,)` the fold of each; without them there is no accuracy.
        """
        of_fold = torch.full_like(target, -1, dtype=torch.int64) if folds is None else folds.to(target.device)
        self.likeness.append(preds.to(torch.float64))
        self.about.append(torch.stack([target.long(), of_fold.long()], 1))

    def _scores(self) -> dict[str, float]:
        about = self._rows("about").numpy()
        if not len(about):
            return {}
        folds = about[:, 1] if bool((about[:, 1] >= 0).all()) else None
        likeness = self._rows("likeness").double().numpy()
        return verification_scores(likeness, about[:, 0] > 0, folds=folds, fars=self.fars)
