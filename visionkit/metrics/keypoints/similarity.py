"""Object keypoint similarity (OKS): how near the points of two poses lie, as the overlap of boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visionkit.config import check_numbers, limits
from visionkit.metrics.coco_core import Floats, Ints, Overlap

__all__ = ["COCO_SIGMAS", "keypoint_overlaps", "keypoint_sigmas", "keypoint_similarity"]

COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
"""How far annotators lay apart on COCO's 17 points of a person, as fractions of the root of its area."""


def keypoint_sigmas(count: int, sigmas: Sequence[float] | None = None) -> Floats:
    """Return the tolerance of each point, `(K,)`.

    Args:
        count: K.
        sigmas: One a point; if not given COCO's for its 17 points, and else the mean of COCO's, 0.067, for
            every point: a stated convention, as nobody measured how far annotators of other points differ.

    Raises:
        InputError: They are not one a point, or not positive.
    """
    if sigmas is not None:
        return np.array(check_numbers("sigmas", sigmas, limits(above=0), count=count), dtype=np.float64)
    if count == len(COCO_SIGMAS):
        return np.array(COCO_SIGMAS)
    return np.full(count, np.mean(COCO_SIGMAS))


def keypoint_similarity(
    preds: Floats, target: Floats, boxes: Floats, areas: Floats, sigmas: Floats
) -> Floats:
    """Return the similarity of pairs of poses, `(P,)` in 0 .. 1.

    Only the labelled points of the target count. Where none is labelled, distances are those to the box
    doubled to each side, as in the reference.

    Args:
        preds: `(P, K, 2)` x, y.
        target: `(P, K, 3)` x, y, flag; above 0 is labelled.
        boxes: `(P, 4)` x, y, width, height of the targets.
        areas: `(P,)` of the targets.
        sigmas: `(K,)`.

    Lin et al., Microsoft COCO, 2014. Reference: `pycocotools.cocoeval.COCOeval.computeOks`.
    """
    labelled = target[..., 2] > 0  # (P, K)
    some = np.any(labelled, axis=1)[:, None]
    low, high = boxes[:, None, :2] - boxes[:, None, 2:], boxes[:, None, :2] + 2 * boxes[:, None, 2:]
    beyond = np.maximum(0, low - preds) + np.maximum(0, preds - high)
    distance = np.where(some[..., None], preds - target[..., :2], beyond)  # (P, K, 2)
    error = (distance**2).sum(-1) / (2 * sigmas) ** 2 / (areas[:, None] + np.spacing(1)) / 2
    counted = labelled | ~some
    similarity: Floats = (np.exp(-error) * counted).sum(1) / counted.sum(1)
    return similarity


def keypoint_overlaps(
    detections: Floats, truths: Floats, boxes: Floats, areas: Floats, sigmas: Floats
) -> Overlap:
    """Return the function that gives the similarity of chosen pairs, for `accumulate`.

    Args:
        detections: `(D, K, 2)`.
        truths: `(G, K, 3)`.
        boxes: `(G, 4)` x, y, width, height.
        areas: `(G,)`.
        sigmas: `(K,)`.
    """

    def overlap(d: Ints, g: Ints) -> Floats:
        return keypoint_similarity(detections[d], truths[g], boxes[g], areas[g], sigmas)

    return overlap
