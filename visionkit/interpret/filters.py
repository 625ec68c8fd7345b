"""The filters of a network's first convolution as images."""

from __future__ import annotations

from PIL import Image
from torch import Tensor, nn

from visionkit.errors import InputError
from visionkit.interpret.maps import find_convolution
from visionkit.interpret.sheets import resized, tiled
from visionkit.interpret.subject import Subject

__all__ = ["filter_sheet", "filter_tiles"]


def filter_tiles(convolution: nn.Conv2d, *, side: int, limit: int = 64) -> list[Tensor]:
    """Return filters as uint8 images, each scaled to its own largest weight; grey is zero.

    Args:
        convolution: The layer. Filters of three channels are coloured, others are the mean over their inputs.
        side: Of the longer side, nearly.
        limit: At most as many, the first.
    """
    weight = convolution.weight.detach().float()[:limit]
    shown = weight if weight.shape[1] == 3 else weight.mean(1, keepdim=True)
    largest = shown.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    return [resized(tile, side) for tile in (shown / largest + 1) / 2]


def filter_sheet(subject: Subject, *, side: int = 42, limit: int = 64) -> Image.Image:
    """Return the filters of the first convolution side by side.

    Args:
        subject: A backbone, or a run.
        side: Of each, in pixels.
        limit: At most as many, the first.

    Raises:
        InputError: The network has no convolution.
    """
    height, width = subject.image_size
    images = subject.normalize.mean.new_zeros(1, subject.channels, height, width)
    convolution = find_convolution(subject.network, images)
    if convolution is None:
        raise InputError(f"{subject.name!r} has no two-dimensional convolution, so no filters to show.")
    return tiled(filter_tiles(convolution, side=side, limit=limit), columns=16)
