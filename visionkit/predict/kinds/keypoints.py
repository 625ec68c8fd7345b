"""Points of the one object of an image, and the lines between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from visionkit.data.transforms.keypoints import fit_region
from visionkit.drawing.class_colors import class_colors
from visionkit.drawing.skeleton import draw_skeleton
from visionkit.predict.kinds.blocks import legible, text_size
from visionkit.predict.kinds.kind import Kind
from visionkit.tasks.keypoints.prediction import KeypointPrediction

__all__ = ["KEYPOINTS"]

_SHOWN = 3  # points that the line names


def _to_dict(prediction: KeypointPrediction, names: Sequence[str]) -> dict[str, Any]:
    scores = prediction.scores
    return {
        "points": prediction.points.tolist(),
        "scores": None if scores is None else scores.tolist(),
        "names": list(prediction.names),
        "edges": [list(edge) for edge in prediction.edges],
    }


def _summary(prediction: KeypointPrediction, names: Sequence[str]) -> str:
    named = zip(prediction.names[:_SHOWN], prediction.points.tolist())
    first = ", ".join(f"{name} at {x:.0f}, {y:.0f}" for name, (x, y) in named)
    count = len(prediction.names)
    return f"{count} points: {first}{', ...' if count > _SHOWN else ''}"


def _draw(
    prediction: KeypointPrediction, names: Sequence[str], image: Tensor, min_score: float
) -> Image.Image:
    """Return the image with all points, each in a colour of its own, and the lines between them."""
    canvas = legible(image)
    ratio = torch.tensor([canvas.width / image.shape[-1], canvas.height / image.shape[-2]])
    colors = class_colors(len(prediction.names))
    line = max(2, round(text_size(canvas) / 5))
    draw_skeleton(canvas, (prediction.points * ratio).tolist(), prediction.edges, colors, line=line)
    return canvas


def _collate(
    images: list[Tensor], sizes: list[tuple[int, int]], ids: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """Return a batch of whole images, with what each shows of its original: a `KeypointCrop` made them."""
    stack = torch.stack(images)
    seen = int(stack.shape[-2]), int(stack.shape[-1])
    regions = [fit_region(torch.tensor([0, 0, width, height]), seen) for height, width in sizes]
    return {"images": stack.to(device), "ids": list(ids), "regions": torch.stack(regions).float().to(device)}


KEYPOINTS = Kind(
    name="keypoints",
    task="KeypointRegressor",
    to_dict=_to_dict,
    summary=_summary,
    draw=_draw,
    collate=_collate,
    preprocess=lambda side: {"name": "KeypointCrop", "size": [side, side], "around": "box", "padding": 1.25},
)
