"""Tensors, numpy arrays and PIL images as the tensors that a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from visionkit.errors import InputError, expected
from visionkit.pixels import pixel_error

__all__ = ["as_image", "check_images", "image_list", "image_stack", "is_image"]


def is_image(value: Any) -> bool:
    """Return whether a value is one image: a tensor or an array of three dimensions, or a PIL image."""
    return isinstance(value, Image.Image) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 3)


def as_image(value: Any, *, channels: int = 3) -> Tensor:
    """Return one image as `(C, H, W)`, uint8 or floating point; its values are not changed.

    Args:
        value: A tensor `(C, H, W)`; a numpy array `(H, W, C)` (or `(C, H, W)` where only that fits); or a PIL
            image, which is turned by its EXIF and converted to RGB (over white where it is transparent)
            or, for one channel, to grey: as `visionkit.data.read_image` reads a file.
        channels: How many channels the network takes.

    Raises:
        InputError: It is something else, or has other channels.
    """
    if isinstance(value, Image.Image):
        return _from_pil(value, channels)
    if isinstance(value, np.ndarray):
        array = value
        if array.ndim == 3 and array.shape[-1] == channels:
            array = array.transpose(2, 0, 1)
        value = torch.from_numpy(np.ascontiguousarray(array))
    if not isinstance(value, Tensor):
        allowed = f"a tensor ({channels}, H, W), a numpy array (H, W, {channels}) or a PIL image"
        fix = "Read files with visionkit.data.read_image(path)." if isinstance(value, str) else ""
        raise InputError(expected("an image", allowed, _describe(value), fix=fix))
    if value.ndim != 3 or value.shape[0] != channels or 0 in value.shape:
        fix = "Channels come first in tensors, and grey images have to be made RGB."
        raise InputError(expected("an image", f"({channels}, H, W)", tuple(value.shape), fix=fix))
    return value


def image_list(images: Any, *, channels: int = 3, device: torch.device | None = None) -> list[Tensor]:
    """Return images of any size as a list of `(C, H, W)`.

    Args:
        images: One image (see `as_image`), a list of them, or a batch `(B, C, H, W)` (numpy: `(B, H, W, C)`).
        channels: How many channels the network takes.
        device: Where they go.

    Raises:
        InputError: Something is no image; the text names it.
    """
    if is_image(images) or not isinstance(images, Sequence | Tensor | np.ndarray) or isinstance(images, str):
        images = [images]
    made = []
    for index, image in enumerate(images):
        try:
            ready = as_image(image, channels=channels)
        except InputError as error:
            raise InputError(f"Image {index}: {error}" if len(images) > 1 else str(error)) from None
        made.append(ready if device is None else ready.to(device))
    return made


def image_stack(images: Any, *, channels: int = 3, device: torch.device | None = None) -> Tensor:
    """Return images of one size as a batch `(B, C, H, W)`; nothing is resized.

    Args:
        images: As for `image_list`.
        channels: How many channels the network takes.
        device: Where the batch goes.

    Raises:
        InputError: Something is no image, or the images differ in size or type.
    """
    if isinstance(images, Tensor) and images.ndim == 4:
        return images if device is None else images.to(device)
    made = image_list(images, channels=channels, device=device)
    if not made:
        raise InputError("Expected at least one image, but got none.")
    sizes = sorted({tuple(image.shape[-2:]) for image in made})
    if len(sizes) > 1:
        fix = "Resize them alike (visionkit.data.classification_eval(size)), or give them one at a time."
        raise InputError(expected("the images", "of one size", sizes[:4], fix=fix))
    kinds = {image.dtype for image in made}
    if len(kinds) > 1:
        raise InputError(expected("the images", "of one type", sorted(map(str, kinds))))
    return torch.stack(made)


def check_images(images: Any, ids: Sequence[str] | None = None) -> None:
    """Refuse images whose pixels are not what tasks take; only what is on the host is checked.

    Args:
        images: A batch, or a list of images.
        ids: Their names.

    Raises:
        InputError: A pixel is NaN, or float pixels are not in [0, 1].
    """
    if isinstance(images, Tensor):
        if images.device.type == "cpu" and (error := pixel_error(images)):
            raise InputError(error)
        return
    for index, image in enumerate(images):
        if isinstance(image, Tensor) and image.device.type == "cpu" and (error := pixel_error(image)):
            raise InputError(f"{ids[index] if ids else f'image {index} of the batch'}: {error}")


def _from_pil(image: Image.Image, channels: int) -> Tensor:
    from visionkit.data.read_image import to_rgb

    if channels not in (1, 3):
        raise InputError(
            expected("an image", f"a tensor ({channels}, H, W)", f"a PIL image of mode {image.mode}")
        )
    upright = ImageOps.exif_transpose(image)
    array = np.array(to_rgb(upright, "the image") if channels == 3 else upright.convert("L"))
    return torch.from_numpy(array).view(*array.shape[:2], channels).permute(2, 0, 1)


def _describe(value: Any) -> str:
    return f"{value!r}" if isinstance(value, str | int | float) else type(value).__name__
