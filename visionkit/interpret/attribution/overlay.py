"""A heat map laid over its image."""

from __future__ import annotations

import matplotlib
import torch
from PIL import Image
from torch import Tensor

__all__ = ["overlay"]


def overlay(image: Tensor, heat: Tensor, *, opacity: float = 0.55) -> Image.Image:
    """Return an image in grey below a heat map in colours: dark is its lowest value, yellow its largest.

    Args:
        image: `(C, H, W)` in [0, 1].
        heat: `(H, W)`.
        opacity: Of the colours.
    """
    low, high = heat.min(), heat.max()
    scaled = ((heat - low) / (high - low).clamp_min(1e-12)).cpu().numpy()
    colors = torch.from_numpy(matplotlib.colormaps["inferno"](scaled)[..., :3]).float()  # (H, W, 3)
    gray = image.mean(0).cpu()[..., None].expand(-1, -1, 3)
    mixed = ((1 - opacity) * gray + opacity * colors).clamp(0, 1)
    return Image.fromarray((mixed * 255).round().to(torch.uint8).numpy())
