"""The class of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from visionkit.metrics.coco_masks import encode_runs
from visionkit.predict.kinds.kind import Kind, class_name, stacked
from visionkit.tasks.segmentation.prediction import SegmentationPrediction

__all__ = ["SEGMENTATION", "class_fractions"]

_SUMMARY_CLASSES = 5


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
    named = (f"{class_name(index, names)} {part:.1%}" for index, _, part in parts[:_SUMMARY_CLASSES])
    return ", ".join(named) + rest


SEGMENTATION = Kind(
    name="segmentation",
    task="Segmenter",
    to_dict=_to_dict,
    summary=_summary,
    collate=stacked,
    preprocess=lambda _: {"name": "Native"},
)
