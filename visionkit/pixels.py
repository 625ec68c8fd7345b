"""Check of the pixels that tasks take: uint8, or floats in [0, 1]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SLACK", "pixel_error"]

SLACK = 0.25
"""How far floats may lie outside [0, 1]: sharp resampling (bicubic, Lanczos) overshoots at edges."""


def pixel_error(images: Tensor) -> str | None:
    """Return what is wrong with the pixels of images, with the range that they have, or None.

    Reads the lowest and the highest value, for which a batch on another device has to be waited for.

    Args:
        images: One image `(C, H, W)` or a batch `(B, C, H, W)`.
    """
    if not images.is_floating_point():
        if str(images.dtype) == "torch.uint8":
            return None
        return f"Expected images in uint8, or float in [0, 1], but got {images.dtype}."
    if not images.numel():
        return None
    low, high = (float(value) for value in images.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        return (
            f"Expected finite pixels, but {_where(images)} holds NaN or infinity. "
            "Check the transform that made it."
        )
    if low >= -SLACK and high <= 1 + SLACK:
        return None
    seen = f"Expected float pixels in [0, 1], but they go from {low:.4g} to {high:.4g}"
    if low < -SLACK and max(-low, high) < 16:
        return (
            f"{seen}: they look normalised already. Leave Normalize (or the processor's do_normalize) out of "
            "the transform and give uint8, or float in [0, 1]: the task normalises, as its backbone needs it."
        )
    if low >= -SLACK and high <= 256:
        return f"{seen}. Give uint8 pixels as they are, or divide by 255; the task normalises."
    return f"{seen}. Give uint8 pixels, or scale them to [0, 1]; the task normalises."


def _where(images: Tensor) -> str:
    if images.ndim < 4:
        return "the image"
    bad = ~images.flatten(1).isfinite().all(dim=1)
    return f"image {int(bad.nonzero()[0])} of the batch"
