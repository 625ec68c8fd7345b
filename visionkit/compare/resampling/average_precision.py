"""Average precision of many bootstrap samples at once, from detections that were matched once.

Letters of the shapes: R samples, N images, D detections, H of them hits, G objects, T = 10 thresholds, L =
101 recall levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["coco_precision", "label_precision", "nan_mean"]

RECALLS = np.linspace(0.0, 1.0, 101)
THRESHOLDS = 10  # IoU 0.5 to 0.95
_CELLS = 4_000_000  # numbers of one block of samples

Floats = NDArray[np.float64]


def coco_precision(columns: Mapping[str, NDArray[Any]], weights: NDArray[np.int64]) -> dict[str, Floats]:
    """Return COCO's average precision of each sample: "map", "map50", "map75".

    A detection keeps the object that it was matched with: matching looks at one image, which a sample has or
    has not. The scores equal an evaluation of the sample, in which an image that was drawn twice is two.

    Args:
        columns: "object_image", "object_label" `(G,)`, and "image", "label", "hits", "misses" `(D,)` by class
            and falling score, as `visionkit.metrics.coco_core` gives them.
        weights: `(R, N)`, how often each image comes in each sample.

    Lin et al., Microsoft COCO, 2014.
    """
    labels = np.unique(columns["object_label"])
    precision = np.full((len(weights), len(labels), THRESHOLDS), np.nan)  # (R, K, T)
    for position, label in enumerate(labels):
        rows = np.flatnonzero(columns["label"] == label)  # (D,)
        objects = columns["object_image"][columns["object_label"] == label]  # (G,)
        image, hits, misses = (columns[name][rows] for name in ("image", "hits", "misses"))
        size = max(1, _CELLS // (len(rows) + len(RECALLS) + 1))
        for start in range(0, len(weights), size):
            block = weights[start : start + size]
            present = block[:, objects].sum(1)  # (R,)
            precision[start : start + size, position] = _class_precision(
                block[:, image], hits, misses, present
            )
    by_threshold = nan_mean(precision)  # (R, T)
    return {
        "map": nan_mean(precision.reshape(len(weights), -1)),
        "map50": by_threshold[:, 0],
        "map75": by_threshold[:, 5],
    }


def _class_precision(
    counts: NDArray[np.int64], hits: NDArray[Any], misses: NDArray[Any], present: NDArray[np.int64]
) -> Floats:
    """Return the average precision of one class `(R, T)`; NaN in samples without an object of it.

    Args:
        counts: `(R, D)`, how often each detection comes.
        hits: `(D,)`, a bit a threshold.
        misses: `(D,)`, a bit a threshold.
        present: `(R,)`, objects to detect.
    """
    out = np.full((len(counts), THRESHOLDS), np.nan)
    some = present > 0
    counts, present = counts[some], present[some]
    totals: dict[bytes, NDArray[np.int64]] = {}
    for threshold in range(THRESHOLDS):
        hit, miss = (bits >> threshold & 1 == 1 for bits in (hits, misses))
        chosen = np.flatnonzero(hit)  # (H,)
        if not len(chosen):
            out[some, threshold] = 0.0
            continue
        # Without crowds every detection counts at every threshold, and one running sum serves all of them.
        used = hit | miss
        key = used.tobytes()
        if key not in totals:
            totals[key] = np.cumsum(counts * used, axis=1)
        true_positives = np.cumsum(counts[:, chosen], axis=1)  # (R, H)
        precision = true_positives / (totals[key][:, chosen] + np.spacing(1))
        # The envelope: the highest precision at this recall or beyond.
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        out[some, threshold] = _interpolated(precision, true_positives, present)
    return out


def _interpolated(precision: Floats, true_positives: NDArray[np.int64], present: NDArray[np.int64]) -> Floats:
    """Return the mean of the precision over the recall levels `(R,)`.

    Args:
        precision: `(R, H)` envelope.
        true_positives: `(R, H)`, rising.
        present: `(R,)`, objects to detect, at least 1.
    """
    samples, width = true_positives.shape
    # 1. The fewest hits whose recall reaches a level, by the division that the reference compares (R, L).
    needed = np.ceil(present[:, None] * RECALLS).astype(np.int64)
    needed -= (needed - 1) / present[:, None] >= RECALLS
    needed += needed / present[:, None] < RECALLS
    # 2. The first hit with so many: all samples in one sorted array, each above the last one's largest.
    step = int(max(true_positives[:, -1].max(), needed.max())) + 2
    offset = np.arange(samples)[:, None] * step
    position = np.searchsorted((true_positives + offset).ravel(), (np.maximum(needed, 0) + offset).ravel())
    position = position.reshape(samples, -1) - np.arange(samples)[:, None] * width  # (R, L)
    reached = position < width
    values = np.take_along_axis(precision, np.minimum(position, width - 1), axis=1)
    mean: Floats = np.where(reached, values, 0.0).mean(1)
    return mean


def label_precision(scores: NDArray[Any], targets: NDArray[Any], weights: NDArray[np.int64]) -> Floats:
    """Return the mean over labels of the average precision `(R,)`, as `visionkit.metrics.average_precision`.

    Equal scores share one threshold, and nothing is interpolated.

    Args:
        scores: `(N, C)`, higher is more likely.
        targets: `(N, C)`, whether the label holds.
        weights: `(R, N)`, how often each image comes in each sample.
    """
    out = np.full((len(weights), scores.shape[1]), np.nan)
    for label in range(scores.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        ranked = scores[order, label]
        last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])  # of a run of equal scores
        counts = weights[:, order]
        true_positives = np.cumsum(counts * targets[order, label].astype(bool), axis=1)[:, last]  # (R, H)
        total = np.cumsum(counts, axis=1)[:, last]
        gains = np.diff(true_positives, prepend=0, axis=1)
        area = (gains * true_positives / np.maximum(total, 1)).sum(1)
        some = true_positives[:, -1] > 0
        out[some, label] = area[some] / true_positives[some, -1]
    return nan_mean(out)


def nan_mean(values: Floats, axis: int = 1) -> Floats:
    """Return means over what is not NaN; NaN, without a warning, where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0.0).sum(axis)
    means: Floats = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return means
