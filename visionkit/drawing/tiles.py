"""Maps, filters and templates as images: tiles on grey, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

__all__ = ["resized", "tiled", "weight_tiles"]

_GAP, _PAPER = 2, 128


def weight_tiles(weight: Tensor, *, side: int, limit: int = 64) -> list[Tensor]:
    """Return weights over image positions as uint8 images, each scaled to its own largest; grey is zero.

    Args:
        weight: `(N, C, h, w)`. Those of three channels are coloured, others are the mean over their channels.
        side: Of the longer side, in pixels, nearly.
        limit: At most as many, the first.
    """
    weight = weight.detach().float()[:limit]
    shown = weight if weight.shape[1] == 3 else weight.mean(1, keepdim=True)
    largest = shown.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    return [resized(tile, side) for tile in (shown / largest + 1) / 2]


def resized(tile: Tensor, side: int) -> Tensor:
    """Return `(C, h, w)` in [0, 1] as uint8 of which the longer side is near `side`, pixels kept square."""
    scale = side / max(tile.shape[-2:])
    size = [max(1, round(n * scale)) for n in tile.shape[-2:]]
    grown = nn.functional.interpolate(tile[None].clamp(0, 1), size=size, mode="nearest-exact")[0]
    return (grown * 255).round().to(torch.uint8)


def tiled(tiles: Sequence[Tensor], *, columns: int) -> Image.Image:
    """Return tiles `(C, h, w)` side by side on grey, row by row."""
    columns = min(columns, len(tiles))
    height = max(tile.shape[1] for tile in tiles) + _GAP
    width = max(tile.shape[2] for tile in tiles) + _GAP
    channels = max(tile.shape[0] for tile in tiles)
    rows = math.ceil(len(tiles) / columns)
    canvas = torch.full((channels, rows * height, columns * width), _PAPER, dtype=torch.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * height, number % columns * width
        canvas[:, top : top + tile.shape[1], left : left + tile.shape[2]] = tile
    array = canvas.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array if channels == 3 else array[..., 0])
