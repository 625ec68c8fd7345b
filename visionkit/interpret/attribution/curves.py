"""Deletion and insertion: how far a heat map names the pixels that a score comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from visionkit.errors import InputError, expected

__all__ = ["PixelCurves", "pixel_curves"]


@dataclass(frozen=True)
class PixelCurves:
    """Probabilities while pixels are taken away or put in, the most important first.

    Args:
        fractions: Of the pixels.
        deletion: Probability with that fraction replaced by the mean.
        insertion: Probability with that fraction put into a blurred image.
    """

    fractions: Tensor
    deletion: Tensor
    insertion: Tensor

    @property
    def deletion_area(self) -> float:
        """Area below the curve of deletion: the lower, the better."""
        return float(torch.trapezoid(self.deletion, self.fractions))

    @property
    def insertion_area(self) -> float:
        """Area below the curve of insertion: the higher, the better."""
        return float(torch.trapezoid(self.insertion, self.fractions))


@torch.no_grad()
def pixel_curves(
    probability: Callable[[Tensor], Tensor],
    inputs: Tensor,
    heat: Tensor,
    *,
    steps: int = 20,
    sigma: float = 5.0,
) -> PixelCurves:
    """Take away and put in the pixels of an image in the order of a heat map.

    Petsiuk, Das, Saenko: RISE, arXiv 1806.07421.

    Args:
        probability: Normalised images `(B, C, H, W)` to probabilities `(B,)`.
        inputs: One normalised image `(1, C, H, W)`.
        heat: `(H, W)` or `(1, H, W)`, the most important pixels highest.
        steps: Points of the curves after the first.
        sigma: Of the blur, in pixels.

    Raises:
        InputError: The heat map is of another size.
    """
    height, width = inputs.shape[-2:]
    if heat.numel() != height * width or len(inputs) != 1:
        raise InputError(expected("heat", f"(H, W) of one image of {height}x{width}", tuple(heat.shape)))
    order = heat.flatten().argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    rank = rank.view(1, 1, height, width)
    kernel = 2 * round(3 * sigma) + 1
    kernel = min(kernel, 2 * (min(height, width) - 1) + 1)
    blurred = gaussian_blur(inputs, [kernel, kernel], [sigma, sigma])
    fractions = torch.linspace(0, 1, steps + 1)
    counts = (fractions * height * width).round().long()
    deleted = [probability(torch.where(rank < count, 0.0, inputs)) for count in counts]
    inserted = [probability(torch.where(rank < count, inputs, blurred)) for count in counts]
    return PixelCurves(fractions, torch.cat(deleted).cpu(), torch.cat(inserted).cpu())
