"""Points of an object on an image, and the lines between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

__all__ = ["draw_skeleton"]

Position = Sequence[float] | None
Ink = str | tuple[int, int, int]


def draw_skeleton(
    canvas: Image.Image,
    points: Sequence[Position],
    edges: Sequence[tuple[int, int]],
    colors: Sequence[Ink],
    *,
    line: int = 2,
) -> None:
    """Draw points, and a line for each edge both of whose ends there are.

    A line has the colour of its first end, with a dark rim, so that it is seen on any image.

    Args:
        canvas: The image, which is changed.
        points: x, y of each point in pixels of the canvas; None, or a number that is not finite: there is
            none. They may lie outside.
        edges: Pairs of points.
        colors: One a point, as Pillow takes them.
        line: Width of a line, in pixels.
    """
    draw = ImageDraw.Draw(canvas)
    # Far outside there is nothing to see, and Pillow's coordinates are 32 bits wide.
    limit = 4 * max(canvas.size)
    known = {
        index: (max(-limit, min(limit, point[0])), max(-limit, min(limit, point[1])))
        for index, point in enumerate(points)
        if point is not None and all(map(math.isfinite, point[:2]))
    }
    lines = [edge for edge in edges if edge[0] in known and edge[1] in known]
    for width, dark in ((line + 2, True), (line, False)):
        for first, second in lines:
            draw.line((*known[first], *known[second]), fill="black" if dark else colors[first], width=width)
    for index, (x, y) in known.items():
        reach = line + 1
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colors[index], outline="black")
