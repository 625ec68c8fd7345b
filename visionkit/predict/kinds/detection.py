"""Boxes of objects, perhaps with masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visionkit.metrics.coco_masks import encode_runs
from visionkit.predict.kinds.kind import Kind, class_name
from visionkit.tasks.detection.image_batch import Detections

__all__ = ["DETECTION"]

_SUMMARY_SCORE = 0.5  # minimum score of a detection that the line counts


def _to_dict(prediction: Detections, names: Sequence[str]) -> dict[str, Any]:
    labels: list[int] = prediction.labels.tolist()
    content: dict[str, Any] = {
        "boxes": prediction.boxes.tolist(),
        "scores": prediction.scores.tolist(),
        "labels": labels,
        "names": [class_name(label, names) for label in labels],
    }
    if prediction.masks is not None:
        content["masks"] = [
            {"size": [int(side) for side in run["size"]], "counts": run["counts"].decode("ascii")}
            for run in encode_runs(prediction.masks)
        ]
    return content


def _summary(prediction: Detections, names: Sequence[str]) -> str:
    counts = Counter(prediction.labels[prediction.scores >= _SUMMARY_SCORE].tolist())
    counted = ", ".join(f"{counts[label]} {class_name(label, names)}" for label in sorted(counts))
    return counted or f"nothing with a score of {_SUMMARY_SCORE:g} or more"


def _collate(
    images: list[Tensor], sizes: list[tuple[int, int]], ids: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """Return a batch whose detections are in the frames of the originals; the task moves the images."""
    return {"images": images, "ids": list(ids), "targets": [{"size": size} for size in sizes]}


def _preprocess(side: int) -> dict[str, Any]:
    """Return the resize of evaluation: `side` is the longest side, 5/3 of the short one."""
    resize = {"name": "Resize", "size": max(1, round(side * 3 / 5)), "max_size": side}
    return {"name": "DetectionEval", "resize": resize}


DETECTION = Kind(
    name="detection",
    task="Detector",
    to_dict=_to_dict,
    summary=_summary,
    collate=_collate,
    preprocess=_preprocess,
)
