"""The filters of a network's first convolution, and weights over whole images, as images."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from visionkit.drawing.panels import add_title, join_grid
from visionkit.drawing.tiles import tiled, weight_tiles
from visionkit.errors import InputError, expected
from visionkit.interpret.maps import find_convolution
from visionkit.interpret.subject import Subject

__all__ = ["filter_sheet", "weight_sheet"]


def weight_sheet(
    weight: Tensor, *, names: Sequence[str] = (), side: int = 42, limit: int = 64, columns: int = 16
) -> Image.Image:
    """Return weights over image positions side by side, as `weight_tiles` draws them.

    A linear classifier on pixels has one such template a class, a hidden unit of an MLP one, and a
    convolution one a filter.

    Args:
        weight: `(N, C, h, w)`.
        names: Titles, one for each; none if not given.
        side: Of the longer side, in pixels, nearly.
        limit: At most as many, the first.
        columns: In a row.

    Raises:
        InputError: The weights have other dimensions, or there is not one name for each.
    """
    if weight.ndim != 4 or not len(weight):
        raise InputError(expected("weight", "(N, C, h, w), N at least 1", tuple(weight.shape)))
    if names and len(names) != len(weight):
        raise InputError(expected("names", f"one for each of {len(weight)} templates", len(names)))
    tiles = weight_tiles(weight, side=side, limit=limit)
    if not names:
        return tiled(tiles, columns=columns)
    panels = [add_title(tiled([tile], columns=1).convert("RGB"), name) for tile, name in zip(tiles, names)]
    return join_grid(panels, columns=columns)


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
    return weight_sheet(convolution.weight, side=side, limit=limit)
