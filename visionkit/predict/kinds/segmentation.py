"""The class of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from visionkit.drawing.class_colors import class_colors, legend, paint
from visionkit.drawing.panels import add_below
from visionkit.metrics.coco.masks import encode_runs
from visionkit.predict.kinds.blocks import block_width, legible, text_size
from visionkit.predict.kinds.kind import Kind, class_name, percent, stacked
from visionkit.tasks.segmentation.prediction import SegmentationPrediction

__all__ = ["SEGMENTATION", "class_fractions"]

_SUMMARY_CLASSES = 5
_OPAQUE = 0.5  # of a colour over the image


def class_fractions(prediction: SegmentationPrediction) -> list[tuple[int, int, float]]:
    """Return the classes that occur, the largest first: index, pixels, fraction of the image's pixels."""
    counts = torch.bincount(prediction.mask.flatten())
    order = counts.argsort(descending=True, stable=True).tolist()
    total = prediction.mask.numel()
    return [(index, int(counts[index]), int(counts[index]) / total) for index in order if counts[index]]


def _to_dict(prediction: SegmentationPrediction, names: Sequence[str]) -> dict[str, Any]:
    classes = []
    for index, pixels, fraction in class_fractions(prediction):
        (run,) = encode_runs((prediction.mask == index)[None])
        classes.append({
            "name": class_name(index, names),
            "index": index,
            "pixels": pixels,
            "fraction": fraction,
            "mask": {"size": list(prediction.mask.shape), "counts": run["counts"].decode("ascii")},
        })  # fmt: skip
    return {"classes": classes}


def _summary(prediction: SegmentationPrediction, names: Sequence[str]) -> str:
    parts = class_fractions(prediction)
    rest = f" and {len(parts) - _SUMMARY_CLASSES} more" if len(parts) > _SUMMARY_CLASSES else ""
    named = (f"{class_name(index, names)} {percent(part)}" for index, _, part in parts[:_SUMMARY_CLASSES])
    return ", ".join(named) + rest


def _draw(
    prediction: SegmentationPrediction, names: Sequence[str], image: Tensor, min_score: float
) -> Image.Image:
    """Return the image with the colours of its classes laid over it, and their names below it."""
    canvas = legible(image)
    parts = class_fractions(prediction)
    count = max(index for index, _, _ in parts) + 1
    colors = class_colors(count)
    entries = [(colors[index], f"{class_name(index, names)} {percent(part)}") for index, _, part in parts]
    painted = paint(canvas, prediction.mask.numpy(), count, ignore_index=-1, opaque=_OPAQUE)
    return add_below(painted, legend(entries, width=block_width(canvas), size=text_size(canvas)))


SEGMENTATION = Kind(
    name="segmentation",
    task="Segmenter",
    to_dict=_to_dict,
    summary=_summary,
    draw=_draw,
    collate=stacked,
    preprocess=lambda _: {"name": "Native"},
)
