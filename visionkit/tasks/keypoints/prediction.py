"""The points of one object, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from visionkit.data.formats.keypoints.skeleton import Skeleton

__all__ = ["KeypointPrediction", "keypoint_predictions"]


@dataclass
class KeypointPrediction:
    """The points of one object.

    Args:
        points: `(K, 2)` x, y in pixels of the original image, or of the image that was given; they may lie
            outside of it.
        scores: `(K,)` in 0 .. 1, how much of each point's heat map lies near it; None: regression has none.
        names: Name of each point.
        edges: Pairs of points that a line joins.
        id: The image's, or the object's, if the batch names them.
    """

    points: Tensor
    scores: Tensor | None
    names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    id: str | None = None


def keypoint_predictions(
    points: Tensor, scores: Tensor | None, skeleton: Skeleton, ids: Sequence[str] | None
) -> list[KeypointPrediction]:
    """Return one prediction an object.

    Args:
        points: `(B, K, 2)` on the host.
        scores: `(B, K)` on the host, or None.
        skeleton: Names and edges.
        ids: The names of the images.
    """
    names: Sequence[str | None] = ids or [None] * len(points)
    rows: Sequence[Tensor | None] = [None] * len(points) if scores is None else list(scores)
    return [
        KeypointPrediction(row, score, skeleton.names, skeleton.edges, name)
        for row, score, name in zip(points, rows, names, strict=True)
    ]
