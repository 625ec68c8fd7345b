"""What a row of the predictions file shows on its image: boxes or class maps, true and predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from visionkit.drawing.boxes import NamedBox, draw_boxes
from visionkit.drawing.class_colors import paint
from visionkit.drawing.panels import BAD, GOOD, TEXT_SIZE

__all__ = ["TRUE", "draw_prediction", "draw_truth", "draws_more"]

TRUE = "#ffd33d"  # true boxes


def draws_more(row: Mapping[str, Any]) -> bool:
    """Return whether a row has boxes or class maps to draw, and not only words.

    Args:
        row: A row of the predictions file.
    """
    return "true_labels" in row or "truth_map" in row


def draw_truth(
    image: Image.Image, row: Mapping[str, Any], mask: np.ndarray | None = None, *, classes: int = 0
) -> Image.Image:
    """Return the image with what is true of it.

    Args:
        image: The plain image.
        row: Its row, with "size" `[H, W]`, "true_boxes" and "true_labels" where it is of boxes.
        mask: The true class map `(H, W)`, where it is of masks.
        classes: How many classes a map has.
    """
    if mask is not None:
        return paint(image, mask, classes)
    labels = row["true_labels"]
    return _with_boxes(image, row, row["true_boxes"], [str(name) for name in labels], [TRUE] * len(labels))


def draw_prediction(
    image: Image.Image, row: Mapping[str, Any], mask: np.ndarray | None = None, *, classes: int = 0
) -> Image.Image:
    """Return the image with what was predicted: right boxes green, wrong ones red, each with class and score.

    Args:
        image: The plain image.
        row: Its row, with "size", "boxes", "labels", "scores" and "right" where it is of boxes.
        mask: The predicted class map `(H, W)`, where it is of masks.
        classes: How many classes a map has.
    """
    if mask is not None:
        return paint(image, mask, classes)
    texts = [f"{name} {score:.2f}" for name, score in zip(row["labels"], row["scores"], strict=True)]
    colors = [GOOD if right else BAD for right in row["right"]]
    return _with_boxes(image, row, row["boxes"], texts, colors)


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
