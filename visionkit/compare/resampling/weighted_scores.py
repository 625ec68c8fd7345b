"""Scores of a data set in which each image comes so many times, from what each image adds.

A bootstrap sample draws images with replacement: an image that was drawn twice counts twice. The sums of a
sample are products of the matrix of counts with the columns, so that no image is looked at again.

Letters of the shapes: R samples, N images, C classes or labels, D detections, G objects, T thresholds.

Columns by family, all of one evaluation:
"mean.SCORE" `(N,)`: the score is their mean.
"sum.SCORE", "count.SCORE" `(N,)`: the score is the quotient of their sums.
"squared_errors" `(N, C)`: rmse.
"label_scores", "label_targets" `(N, C)`: average precision of labels.
"intersection", "target", "predicted" `(N, C)`: pixels of each class.
"ngrams", "correct_ngrams" `(N, 4)`, "lengths" `(N, 2)`: BLEU.
"object_image", "object_label" `(G,)`, "image", "label", "hits", "misses" `(D,)`: COCO's average precision,
the detections by class and falling score; "hits" and "misses" have a bit for each threshold. The same under
"mask_" for masks, and under "keypoint_" for keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.compare.resampling.average_precision import coco_precision, label_precision, nan_mean

__all__ = ["Columns", "Weights", "weighted_scores"]

Columns = Mapping[str, NDArray[Any]]
Weights = NDArray[np.int64]
Scores = dict[str, NDArray[np.float64]]
# As `visionkit.metrics.bleu`, whose divisions these keep finite.
_SMALL, _TINY = 1e-9, 1e-15


def weighted_scores(columns: Columns, weights: Weights) -> Scores:
    """Return every score that the columns give, for each sample.

    Args:
        columns: By name, see above.
        weights: `(R, N)`, how often each image comes in each sample.

    Returns:
        `(R,)` by the name that a task logs, without the split; NaN where a sample has nothing to score.
    """
    scores: Scores = {}
    for name, family in _FAMILIES.items():
        if name in columns:
            scores |= family(columns, weights)
    total = weights.sum(1)
    for name, column in columns.items():
        kind, _, score = name.partition(".")
        if kind == "mean":
            scores[score] = weights @ column.astype(np.float64) / total
        elif kind == "sum":
            with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: nothing was measured
                scores[score] = weights @ column.astype(np.float64) / (weights @ columns[f"count.{score}"])
    return scores


def _regression(columns: Columns, weights: Weights) -> Scores:
    squares = weights @ columns["squared_errors"] / weights.sum(1)[:, None]  # (R, C)
    return {"rmse": np.sqrt(squares).mean(1)}


def _labels(columns: Columns, weights: Weights) -> Scores:
    return {"map": label_precision(columns["label_scores"], columns["label_targets"], weights)}


def _pixels(columns: Columns, weights: Weights) -> Scores:
    names = ("intersection", "target", "predicted")
    correct, target, predicted = (weights @ columns[name].astype(np.float64) for name in names)  # (R, C)
    with np.errstate(invalid="ignore"):
        iou = correct / (target + predicted - correct)  # 0 / 0 is NaN: the class is in neither
        recall = correct / target
        accuracy = correct.sum(1) / target.sum(1)
    means = {"miou": nan_mean(iou), "mean_accuracy": nan_mean(recall)}
    return {**means, "pixel_accuracy": accuracy}


def _captions(columns: Columns, weights: Weights) -> Scores:
    names = ("ngrams", "correct_ngrams", "lengths")
    predicted, correct, lengths = (weights @ columns[name].astype(np.float64) for name in names)
    product = ((correct + _TINY) / (predicted + _SMALL)).cumprod(1)  # (R, 4)
    ratio = (lengths[:, 0] + _TINY) / (lengths[:, 1] + _SMALL)
    penalty = np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
    return {f"bleu{n}": product[:, n - 1] ** (1 / n) * penalty for n in range(1, product.shape[1] + 1)}


def _boxes(columns: Columns, weights: Weights) -> Scores:
    return coco_precision(columns, weights)


def _other_precision(prefix: str, columns: Columns, weights: Weights) -> Scores:
    own = {name.removeprefix(prefix): value for name, value in columns.items() if name.startswith(prefix)}
    return {f"{prefix}{name}": value for name, value in coco_precision(own, weights).items()}


_FAMILIES: dict[str, Callable[[Columns, Weights], Scores]] = {
    "squared_errors": _regression,
    "label_scores": _labels,
    "intersection": _pixels,
    "ngrams": _captions,
    "hits": _boxes,
    "mask_hits": partial(_other_precision, "mask_"),
    "keypoint_hits": partial(_other_precision, "keypoint_"),
}
