"""Colours of one image given to another: Gatys et al., arXiv 1606.05897 and CVPR 2017."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["luminance", "match_colors", "match_luminance", "with_colors"]

# RGB to luminance and two differences of colour (YIQ of the NTSC).
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def match_colors(image: Tensor, target: Tensor) -> Tensor:
    """Return an image whose pixels have the mean and the covariance of another's.

    Section 5.1 of arXiv 1606.05897.

    Args:
        image: `(3, H, W)` in [0, 1].
        target: `(3, h, w)` in [0, 1].
    """
    pixels, others = image.flatten(1).double(), target.flatten(1).double()
    turn = _root(others, 0.5) @ _root(pixels, -0.5)
    matched = turn @ (pixels - pixels.mean(1, keepdim=True)) + others.mean(1, keepdim=True)
    return matched.view_as(image).to(image.dtype).clamp(0, 1)


def luminance(image: Tensor) -> Tensor:
    """Return the luminance of an image as three equal channels.

    Args:
        image: `(3, H, W)` in [0, 1].
    """
    return _to_yiq(image)[:1].expand(3, -1, -1).contiguous()


def match_luminance(image: Tensor, target: Tensor) -> Tensor:
    """Return the luminance of an image with the mean and the deviation of another's, as three equal channels.

    Args:
        image: `(3, H, W)` in [0, 1].
        target: `(3, h, w)` in [0, 1].
    """
    own, other = luminance(image), luminance(target)
    scaled = (own - own.mean()) / own.std().clamp_min(1e-6) * other.std() + other.mean()
    return scaled.clamp(0, 1)


def with_colors(gray: Tensor, target: Tensor) -> Tensor:
    """Return the luminance of one image with the colours of another of the same size.

    Args:
        gray: `(3, H, W)` in [0, 1].
        target: `(3, H, W)` in [0, 1].
    """
    joined = torch.cat([_to_yiq(gray)[:1], _to_yiq(target)[1:]])
    back = torch.linalg.inv(torch.tensor(_YIQ, dtype=gray.dtype))
    return torch.einsum("ij,jhw->ihw", back, joined).clamp(0, 1)


def _to_yiq(image: Tensor) -> Tensor:
    return torch.einsum("ij,jhw->ihw", torch.tensor(_YIQ, dtype=image.dtype), image)


def _root(pixels: Tensor, power: float) -> Tensor:
    """Return a power of the covariance of pixels `(3, N)`."""
    values, vectors = torch.linalg.eigh(torch.cov(pixels))
    powered: Tensor = vectors @ torch.diag(values.clamp_min(1e-6) ** power) @ vectors.T
    return powered
