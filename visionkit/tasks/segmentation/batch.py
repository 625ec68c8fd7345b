"""Masks and images of a segmentation batch, and the checks of masks and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.config import check_number, limits
from visionkit.errors import DataError, InputError, expected

__all__ = ["NUMBERS", "check_mask", "check_segmenter", "pad_to_size", "shape_masks", "stacks"]

NUMBERS: dict[str, tuple[dict[str, Any], bool]] = {
    "num_classes": (limits(min=1), True),
    "lr": (limits(min=0), False),
    "aux_loss_weight": (limits(min=0), False),
    "dropout": (limits(min=0, max=1), False),
    "output_stride": (limits(min=1), True),
    "channels": (limits(min=1), True),
    "window": (limits(min=0), True),
    "window_stride": (limits(min=0), True),
    "window_margin": (limits(min=0), True),
    "boundary_tolerance": (limits(min=0), False),
}
"""Settings of a segmenter that are numbers: the limits of each, and whether it is an integer."""


def shape_masks(masks: Any) -> Any:
    """Return masks `(B, H, W)` int64, or a list of `(H, W)`, from whole numbers of any type.

    A channel of one, as many transforms leave it, is taken off. What is no class map stays as it is, for
    `check_mask` to refuse.
    """
    if not isinstance(masks, Tensor):
        return [_map(mask, 2) for mask in masks]
    return _map(masks, 3)


def _map(mask: Any, dims: int) -> Any:
    if not isinstance(mask, Tensor):
        return mask
    if mask.ndim == dims + 1 and mask.shape[-3] == 1:
        mask = mask.squeeze(-3)
    integers = not mask.is_floating_point() and not mask.is_complex()
    return mask.long() if integers else mask


def stacks(images: Any, masks: Any) -> list[tuple[Tensor, Tensor]]:
    """Return stacks `(B, 3, H, W)` and `(B, H, W)`: one, or one an image where sizes differ."""
    if isinstance(images, Tensor):
        return [(images, masks)]
    return [(image[None], mask[None]) for image, mask in zip(images, masks, strict=True)]


def pad_to_size(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return images `(B, C, H, W)` padded with zeros, right and below, to at least `size`, if given."""
    if size is None:
        return images
    down, right = (max(0, target - side) for target, side in zip(size, images.shape[-2:], strict=True))
    return F.pad(images, (0, right, 0, down)) if down or right else images


def check_mask(image: Tensor, mask: Tensor, name: str, classes: int, ignore_index: int) -> None:
    """Refuse a mask that does not fit its image or the classes.

    Raises:
        DataError: Its size, type or a value is wrong; the image is named.
    """
    if not isinstance(mask, Tensor) or mask.shape != image.shape[-2:] or mask.dtype != torch.int64:
        allowed = f"whole numbers of {tuple(image.shape[-2:])}, as its image"
        got, fix = type(mask).__name__, ""
        if isinstance(mask, Tensor):
            got = f"{str(mask.dtype).removeprefix('torch.')} of {tuple(mask.shape)}"
            channels = mask.ndim == 3 and mask.shape[1:] == image.shape[-2:]
            fix = "One channel a class: give masks.argmax(1)." if channels else ""
            fix = (
                "Classes are whole numbers: give mask.long()."
                if mask.is_floating_point() and not fix
                else fix
            )
        raise DataError(expected("a mask", allowed, got, fix=fix), path=name, field="mask")
    if not mask.numel():
        return
    low, high = (int(value) for value in mask.aminmax())
    if low >= 0 and high < classes:
        return
    unexpected = mask[((mask < 0) | (mask >= classes)) & (mask != ignore_index)]
    if unexpected.numel():
        allowed = f"classes 0 to {classes - 1} or the ignored value {ignore_index}"
        values = unexpected.unique()[:5].tolist()
        raise DataError(expected("the mask's values", allowed, values), path=name, field="mask")


def check_segmenter(settings: Mapping[str, Any], ignore_index: Any) -> None:
    """Refuse numbers that a segmenter cannot have.

    Args:
        settings: By name; None is the decoder's own.
        ignore_index: Value of pixels that do not count.

    Raises:
        InputError: The text names it.
    """
    for name, value in settings.items():
        limit, integer = NUMBERS[name]
        if value is not None:
            check_number(name, value, limit, whole=integer)
    check_number("ignore_index", ignore_index, whole=True)
    if 0 <= ignore_index < max(2, settings["num_classes"]):
        fix = "Give the pixels that do not count a value of their own, such as 255."
        allowed = "a value that is no class, since a class with it would be in no score"
        raise InputError(expected("ignore_index", allowed, ignore_index, fix=fix))
