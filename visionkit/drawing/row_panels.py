"""What a row of the predictions file shows on its image: boxes, points or class maps, true and predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from visionkit.drawing.boxes import NamedBox, draw_boxes
from visionkit.drawing.class_colors import paint
from visionkit.drawing.panels import BAD, GOOD, TEXT_SIZE
from visionkit.drawing.skeleton import draw_skeleton

__all__ = ["TRUE", "draw_prediction", "draw_truth", "draws_more"]

TRUE = "#ffd33d"  # true boxes and points
_UNSCORED = "#8c959f"  # points that are neither right nor wrong


def draws_more(row: Mapping[str, Any]) -> bool:
    """Return whether a row has boxes, points or class maps to draw, and not only words.

    Args:
        row: A row of the predictions file.
    """
    return "true_labels" in row or "true_points" in row or "truth_map" in row


def draw_truth(
    image: Image.Image, row: Mapping[str, Any], mask: np.ndarray | None = None, *, classes: int = 0
) -> Image.Image:
    """Return the image with what is true of it.

    Args:
        image: The plain image.
        row: Its row, with "size" `[H, W]`, "true_boxes" and "true_labels" where it is of boxes (and
            "true_poses" where these have points), "true_points" (x, y, or None) and "edges" where it is of
            points.
        mask: The true class map `(H, W)`, where it is of masks.
        classes: How many classes a map has.
    """
    if mask is not None:
        return paint(image, mask, classes)
    if "true_points" in row:
        return _with_points(image, row, row["true_points"], [TRUE] * len(row["true_points"]))
    labels = row["true_labels"]
    colors = [TRUE] * len(labels)
    canvas = _with_boxes(image, row, row["true_boxes"], [str(name) for name in labels], colors)
    return _with_poses(canvas, row, row.get("true_poses", ()), colors)


def draw_prediction(
    image: Image.Image, row: Mapping[str, Any], mask: np.ndarray | None = None, *, classes: int = 0
) -> Image.Image:
    """Return the image with what was predicted: right boxes and points green, wrong ones red, others grey.

    Args:
        image: The plain image.
        row: Its row, with "size", "boxes", "labels", "scores" and "right" where it is of boxes (and
            "poses" where these have points); "size", "points", "edges" and "right" (None: not scored)
            where it is of points.
        mask: The predicted class map `(H, W)`, where it is of masks.
        classes: How many classes a map has.
    """
    if mask is not None:
        return paint(image, mask, classes)
    if "points" in row:
        inks = [_UNSCORED if right is None else GOOD if right else BAD for right in row["right"]]
        return _with_points(image, row, row["points"], inks)
    texts = [f"{name} {score:.2f}" for name, score in zip(row["labels"], row["scores"], strict=True)]
    colors = [GOOD if right else BAD for right in row["right"]]
    return _with_poses(
        _with_boxes(image, row, row["boxes"], texts, colors), row, row.get("poses", ()), colors
    )


def _with_boxes(
    image: Image.Image,
    row: Mapping[str, Any],
    boxes: Sequence[Sequence[float]],
    texts: Sequence[str],
    colors: Sequence[str],
) -> Image.Image:
    canvas = image.copy()
    ratio = (canvas.width / row["size"][1], canvas.height / row["size"][0]) * 2
    scaled = [[float(value) * by for value, by in zip(box, ratio, strict=True)] for box in boxes]
    if not all(math.isfinite(value) for box in scaled for value in box):
        raise ValueError(f"the boxes of {row.get('id')} are not finite")
    named = [NamedBox(*each) for each in zip(scaled, texts, colors, strict=True)]
    draw_boxes(canvas, named, size=TEXT_SIZE)
    return canvas


def _with_poses(
    image: Image.Image, row: Mapping[str, Any], poses: Sequence[Any], colors: Sequence[str]
) -> Image.Image:
    """Return the image with the points of every object, the best on top."""
    for points, color in reversed(list(zip(poses, colors))):
        image = _with_points(image, row, points, [color] * len(points))
    return image


def _with_points(
    image: Image.Image,
    row: Mapping[str, Any],
    points: Sequence[Sequence[float] | None],
    colors: Sequence[str],
) -> Image.Image:
    canvas = image.copy()
    ratio = canvas.width / row["size"][1], canvas.height / row["size"][0]
    scaled = [
        None if point is None else [float(value) * by for value, by in zip(point, ratio, strict=True)]
        for point in points
    ]
    edges = [(int(first), int(second)) for first, second in row["edges"]]
    draw_skeleton(canvas, scaled, edges, colors)
    return canvas
