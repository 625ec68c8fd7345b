"""What the kinds of predictions have in common: the entry of their table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

__all__ = ["Kind", "class_name", "percent", "stacked"]


@dataclass(frozen=True)
class Kind:
    """One kind of prediction: what it is in words and JSON, and what its task takes.

    Args:
        name: "classification", "detection", "segmentation", "captioning", "embedding" or "keypoints".
        task: Name of the class in `visionkit.tasks`.
        to_dict: Gives the values of a typed prediction for JSON; takes it and the names of the classes.
        summary: Gives it in one line; takes the same.
        draw: Gives the image with the prediction on it or below it; takes the prediction, the names of the
            classes, the original `(3, H, W)` uint8, and the minimum score of an object that is drawn.
        collate: Gives a batch for the task; takes images `(3, H, W)` uint8 of one size, the sizes `(H, W)` of
            the originals, ids, and the task's device.
        preprocess: Gives how images are resized where a checkpoint does not say it; takes the side (pixels)
            that it was trained at. See `visionkit.data.transforms.saved`.
    """

    name: str
    task: str
    to_dict: Callable[[Any, Sequence[str]], dict[str, Any]]
    summary: Callable[[Any, Sequence[str]], str]
    draw: Callable[[Any, Sequence[str], Tensor, float], Image.Image]
    collate: Callable[[list[Tensor], list[tuple[int, int]], Sequence[str], torch.device], dict[str, Any]]
    preprocess: Callable[[int], dict[str, Any]]


def class_name(index: int, names: Sequence[str]) -> str:
    """Return the name of a class, or "class 3" where names are not known."""
    return names[index] if 0 <= index < len(names) else f"class {index}"


def percent(fraction: float) -> str:
    """Return a fraction as "41.0%"; what is neither none nor all never reads so."""
    if 0 < fraction < 0.0005:
        return "<0.1%"
    if 0.9995 <= fraction < 1:
        return ">99.9%"
    return f"{fraction:.1%}"


def stacked(
    images: list[Tensor], sizes: list[tuple[int, int]], ids: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """Return images of one size as a batch `(B, 3, H, W)` on the device.

    Args:
        images: `(3, H, W)` uint8.
        sizes: `(H, W)` of the originals, which these tasks do not need.
        ids: One name an image.
        device: Of the task.
    """
    return {"images": torch.stack(images).to(device), "ids": list(ids)}
