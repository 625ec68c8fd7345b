"""What the positions of a resized map see of the map before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from visionkit.interpret.arithmetic.formulas import Field

__all__ = ["RESIZES", "nearest_positions", "resized_field", "scales_of"]

# How many positions before and after the one below the source coordinate have a weight, by torch's operation.
RESIZES = {
    "upsample_nearest2d": (0, 0),
    "_upsample_nearest_exact2d": (0, 0),
    "upsample_bilinear2d": (0, 1),
    "upsample_bicubic2d": (1, 2),
}


def scales_of(args: Sequence[Any]) -> tuple[tuple[float, float] | None, bool]:
    """Return the scales that a call of one of `RESIZES` was given, if any, and whether corners are aligned.

    Args:
        args: The map, its new size, for bilinear and bicubic whether corners are aligned, and the scales.
    """
    rest = list(args[2:])
    scales = [value for value in rest if isinstance(value, float)]
    return ((scales[0], scales[1]) if len(scales) == 2 else None), any(value is True for value in rest)


def resized_field(
    field: Field, before: int, after: int, *, operation: str, align_corners: bool = False, scale: float = 0.0
) -> Field:
    """Return what the positions of a resized map see of the image: the smallest that holds for all of them.

    A position reads those around its source coordinate, whose distance to a straight line differs from one
    position to the next: the field spans the least and the largest distance.

    Args:
        field: What the positions of the map see.
        before: Its side.
        after: The side of the resized map.
        operation: One of `RESIZES`.
        align_corners: Whether the middles of the corners stay where they are.
        scale: The scale that was given instead of a size; 0 where it is the ratio of the sizes.
    """
    ratio = 1 / scale if scale else before / after
    if align_corners:
        ratio = (before - 1) / (after - 1) if after > 1 else 0.0
    behind, ahead = RESIZES[operation]
    begin, end = math.inf, -math.inf
    for position in range(after):
        source = position * ratio if align_corners else (position + 0.5) * ratio - 0.5
        if operation == "upsample_bilinear2d":
            source = max(source, 0.0)
        below = math.floor(source + 1e-9)
        exact = abs(source - round(source)) < 1e-9  # one weight is 1, the others are 0
        first, last = (below, below) if exact else (below - behind, below + ahead)
        if "nearest" in operation:
            first, last = nearest_positions(position, ratio, (before, after), middle="exact" in operation)
        first, last = (min(max(value, 0), before - 1) for value in (first, last))
        begin = min(begin, first - position * ratio)
        end = max(end, last - position * ratio)
    start = field.start + begin * field.stride
    return Field(field.size + (end - begin) * field.stride, field.stride * ratio, start)


def nearest_positions(
    position: int, ratio: float, sides: tuple[int, int], *, middle: bool
) -> tuple[int, int]:
    """Return the first and the last position that one of a map resized to the nearest may be taken from.

    Where a source coordinate is nearly whole, the rounding of the 32 bits in which torch computes it decides,
    and its kernels do so in two ways.

    Args:
        position: Of the resized map.
        ratio: Positions of the map per position of the resized one.
        sides: Sides of the map and of the resized one. Where they are equal, or the second is twice the
            first, a kernel of torch follows them and not the ratio.
        middle: Whether the middles of positions are compared (`nearest-exact`), and not their corners.
    """
    before, after = sides
    step, half = np.float32(ratio), np.float32(0.5)
    at = np.float32(position) + half if middle else np.float32(position)
    sources = (at * step, (at * step - half) + half) if middle else (at * step,)
    positions = [math.floor(source) for source in sources]
    if not middle and after in (before, 2 * before):
        positions.append(position * before // after)
    return min(positions), max(positions)
