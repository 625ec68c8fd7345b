"""A tensor as an image."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from visionkit.drawing.panels import SIDE

__all__ = ["to_pil"]


def to_pil(image: Tensor, *, side: int = SIDE) -> Image.Image:
    """Return a tensor as an image whose longer side is `side` pixels.

    Args:
        image: `(C, H, W)` uint8, or float in [0, 1]. One channel is grey; two are red and green;
            of more than three the first three are red, green and blue.
        side: Pixels of the longer side.
    """
    pixels = image.detach().cpu()[:3]
    if len(pixels) < 3:
        rest = pixels if len(pixels) == 1 else torch.zeros_like(pixels[:1])
        pixels = torch.cat([pixels, *[rest] * (3 - len(pixels))])
    if pixels.dtype != torch.uint8:
        pixels = (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8)
    # (3, H, W) -> (H, W, 3)
    canvas = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    scale = side / max(canvas.size)
    size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
    return canvas.resize(size, Image.Resampling.BILINEAR)
