"""The arithmetic of classification scores: functions of counts, or of all scores and targets."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["average_precision", "calibration_error", "f1_scores"]


def f1_scores(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    """Return F1 of each class from counts; NaN for a class that neither occurs nor is predicted.

    Args:
        hits: `(K,)` images of the class that were predicted as it.
        predicted: `(K,)` images predicted as the class.
        actual: `(K,)` images of the class.
    """
    return 2 * hits.double() / (predicted + actual).double()


def calibration_error(bins: Tensor) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy.

    Args:
        bins: `(3, M)` sums over each bin of confidence: images, confidence, correct ones. Bin `m` holds
            confidences in `(m / M, (m + 1) / M]` (Guo et al., arXiv 1706.04599).

    Returns:
        NaN when there are no images.
    """
    counts, confidence, correct = bins.double()
    total = counts.sum()
    return float((confidence - correct).abs().sum() / total) if total else float("nan")


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the average precision of each label: the sum of precision times the gain in recall.

    Equal scores share one threshold, and nothing is interpolated. Exact: every score counts.

    Args:
        scores: `(N, K)`, higher is more likely.
        targets: `(N, K)`, 1 where the label holds.

    Returns:
        `(K,)` float64; NaN for a label without positives.
    """
    order = scores.argsort(dim=0, descending=True, stable=True)
    ranked = scores.gather(0, order)
    hits = targets.gather(0, order).double()
    true_positives = hits.cumsum(0)  # (N, K)
    precision = true_positives / torch.arange(1, len(scores) + 1, dtype=torch.float64).unsqueeze(1)
    # A threshold is the last of a run of equal scores.
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:-1] = ranked[:-1] != ranked[1:]
    average = torch.full((scores.shape[1],), float("nan"), dtype=torch.float64)
    for label in range(scores.shape[1]):
        if not len(scores) or not true_positives[-1, label]:
            continue
        chosen = last[:, label]
        gains = torch.diff(true_positives[chosen, label], prepend=torch.zeros(1, dtype=torch.float64))
        average[label] = (gains * precision[chosen, label]).sum() / true_positives[-1, label]
    return average
