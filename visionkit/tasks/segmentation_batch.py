"""What a segmenter reads from a batch, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visionkit.errors import DataError, InputError, expected

__all__ = ["alike", "batch_parts", "check_mask", "check_settings", "is_empty"]


def batch_parts(batch: Any) -> tuple[Any, Any, Sequence[str] | None]:
    """Return pictures, masks and names; the latter two may be missing."""
    if isinstance(batch, dict):
        return batch["images"], batch.get("masks"), batch.get("ids")
    if isinstance(batch, tuple):
        return batch[0], batch[1], None
    return batch, None, None


def is_empty(batch: Any) -> bool:
    """Return whether a batch holds no picture (an empty evaluation shard)."""
    if isinstance(batch, dict) and "ids" in batch:
        return not batch["ids"]
    return len(batch_parts(batch)[0]) == 0


def alike(images: Any, masks: Any) -> list[tuple[Tensor, Tensor]]:
    """Return stacks `(B, 3, H, W)` and `(B, H, W)`: one, or one a picture where sizes differ."""
    if isinstance(images, Tensor):
        return [(images, masks)]
    return [(image[None], mask[None]) for image, mask in zip(images, masks, strict=True)]


def check_mask(image: Tensor, mask: Tensor, name: str, classes: int, ignore_index: int) -> None:
    """Refuse a mask that does not fit its picture or the classes.

    Raises:
        DataError: Its size, type or a value is wrong; the picture is named.
    """
    if mask.shape != image.shape[-2:] or mask.dtype != torch.int64:
        wanted = f"int64 of {tuple(image.shape[-2:])}, as its picture"
        got = f"{str(mask.dtype).removeprefix('torch.')} of {tuple(mask.shape)}"
        raise DataError(expected("a mask", wanted, got), path=name, field="mask")
    low, high = (int(value) for value in mask.aminmax())
    if low >= 0 and high < classes:
        return
    strange = mask[((mask < 0) | (mask >= classes)) & (mask != ignore_index)]
    if strange.numel():
        wanted = f"classes 0 to {classes - 1} or the ignored value {ignore_index}"
        found = strange.unique()[:5].tolist()
        raise DataError(expected("the mask's values", wanted, found), path=name, field="mask")


def check_settings(
    num_classes: int,
    mask_classes: int,
    auxiliary: float,
    class_weights: Sequence[float] | None,
    class_names: Sequence[str] | None,
) -> None:
    """Refuse settings of a segmenter that do not fit together.

    Raises:
        InputError: The text says which.
    """
    if num_classes < 1:
        raise InputError(expected("num_classes", "at least 1", num_classes))
    if not 0 <= auxiliary < math.inf:
        raise InputError(expected("the auxiliary head's weight", "0 or more", auxiliary))
    if class_weights is not None and (len(class_weights) != mask_classes or min(class_weights) < 0):
        raise InputError(expected("class_weights", f"{mask_classes} numbers, 0 or more", list(class_weights)))
    if class_names is not None and len(class_names) != mask_classes:
        raise InputError(expected("class_names", f"{mask_classes} names", list(class_names)))
