"""A detection batch in its forms, looked at before it reaches compiled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.data.boxes import check_boxes
from visionkit.errors import InputError, expected

__all__ = ["batch_parts", "in_original", "is_empty", "original_size", "read_batch"]

Parts = tuple[list[Tensor], Sequence[Mapping[str, Any]], Sequence[str] | None]


def read_batch(batch: Any, *, num_classes: int, masks: bool, channels: int = 3) -> Parts:
    """Return pictures, targets and ids.

    What lies on the host is checked; what a loader hands over on a GPU already is not looked at, because that
    would make every step wait for it.

    Raises:
        DataError: The first fault of the first picture at fault.
        InputError: Targets are missing.
    """
    images, targets, ids = batch_parts(batch)
    if targets is None or len(targets) != len(images):
        got = None if targets is None else len(targets)
        raise InputError(expected("targets", f"one for each of {len(images)} pictures", got))
    for index, (image, target) in enumerate(zip(images, targets, strict=True)):
        if isinstance(image, Tensor) and image.device.type != "cpu":
            break
        name = ids[index] if ids else f"picture {index} of the batch"
        carried = isinstance(target, Mapping) and "masks" in target.get("truth", {})
        required = masks and not carried
        faults = check_boxes(
            image, target, num_classes=num_classes, name=name, masks=required, channels=channels
        )
        if faults:
            raise faults[0]
    return images, targets, ids


def batch_parts(batch: Any) -> tuple[list[Tensor], Any, Sequence[str] | None]:
    """Return pictures, targets (or None) and ids (or None) of a dict, a pair, or pictures alone."""
    if isinstance(batch, Mapping):
        return list(batch["images"]), batch.get("targets"), batch.get("ids")
    if isinstance(batch, tuple) and len(batch) == 2:
        return list(batch[0]), batch[1], None
    return list(batch), None, None


def is_empty(batch: Any) -> bool:
    """Return whether a batch holds no picture."""
    if isinstance(batch, Mapping) and "ids" in batch:
        return not batch["ids"]
    return len(batch_parts(batch)[0]) == 0


def original_size(target: Mapping[str, Any], image: Tensor) -> tuple[int, int]:
    """Return `(H, W)` of the original picture: the target's `size`, or the picture's own."""
    height, width = target.get("size", image.shape[-2:])
    return int(height), int(width)


def in_original(target: Mapping[str, Any], image: Tensor, original: tuple[int, int]) -> Mapping[str, Any]:
    """Return the objects of a target in the original picture's frame: its `truth`, where it carries one.

    A target without one gives its boxes and masks resized, as well as this can be done.
    """
    if "truth" in target:
        truth: Mapping[str, Any] = target["truth"]
        return truth
    height, width = int(image.shape[-2]), int(image.shape[-1])
    out = {name: value for name, value in target.items() if isinstance(value, Tensor)}
    if (height, width) == original:
        return out
    scale = torch.tensor([original[1] / width, original[0] / height] * 2, device=target["boxes"].device)
    out["boxes"] = target["boxes"] * scale
    if "masks" in out:
        masks = out["masks"][:, None].float()
        out["masks"] = nn.functional.interpolate(masks, size=original, mode="nearest-exact")[:, 0].byte()
    return out
