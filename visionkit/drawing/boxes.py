"""Boxes on an image, with a name on each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageColor, ImageDraw

from visionkit.drawing.image_text import draw_text, fit_text, line_height, text_width

__all__ = ["NamedBox", "draw_box", "draw_boxes", "draw_labels"]

Area = tuple[float, float, float, float]  # x1, y1, x2, y2

_BRIGHT = 140  # luminance of a colour on which black is read better than white


class NamedBox(NamedTuple):
    """A box with what is written on it.

    Args:
        box: xyxy in pixels of the image that is drawn on.
        text: What is written on it; nothing if empty.
        color: A colour as Pillow takes it.
    """

    box: Sequence[float]
    text: str
    color: str | tuple[int, int, int]


def draw_boxes(canvas: Image.Image, boxes: Sequence[NamedBox], *, size: int, line: int = 2) -> None:
    """Draw boxes with their names.

    Args:
        canvas: The image, which is changed.
        boxes: The best first; it lies on top.
        size: Height of the names, in pixels.
        line: Width of the frames, in pixels.
    """
    draw = ImageDraw.Draw(canvas)
    for box, _, color in reversed(boxes):
        draw_box(draw, box, color, line)
    draw_labels(canvas, [each for each in boxes if each.text], size)


def draw_box(
    draw: ImageDraw.ImageDraw, box: Sequence[float], color: str | tuple[int, int, int], line: int
) -> None:
    """Draw a frame, also of a box that is thinner than its line."""
    x1, y1, x2, y2 = (round(value) for value in box)
    draw.rectangle((x1, y1, max(x1 + 1, x2 - 1), max(y1 + 1, y2 - 1)), outline=color, width=line)


def draw_labels(canvas: Image.Image, boxes: Sequence[NamedBox], size: int) -> None:
    """Draw each name where it covers no name of a better object: above its box, below it, or inside.

    Args:
        canvas: The image, which is changed.
        boxes: The best first.
        size: Height of the names, in pixels.
    """
    draw = ImageDraw.Draw(canvas)
    pad, high = max(2, size // 5), line_height(size)
    placed: list[tuple[Area, str, str | tuple[int, int, int]]] = []
    for (x1, y1, x2, y2), name, color in boxes:
        text = fit_text(name, size, canvas.width - 2 * pad)
        wide = text_width(text, size) + 2 * pad
        left = min(max(0.0, x1), canvas.width - wide)
        right = min(max(0.0, x2 - wide), canvas.width - wide)
        top = min(max(0.0, y1 - high), canvas.height - high)
        corners = ((left, y1 - high), (left, y1), (right, y1 - high), (left, y2), (right, y2 - high))
        areas = [(x, y, x + wide, y + high) for x, y in corners if 0 <= y <= canvas.height - high]
        free = (area for area in areas if not any(_overlap(area, other) for other, _, _ in placed))
        placed.append((next(free, (left, top, left + wide, top + high)), text, color))
    for area, text, color in reversed(placed):
        draw.rectangle([round(value) for value in area], fill=color)
        red, green, blue = ImageColor.getrgb(color)[:3] if isinstance(color, str) else color
        bright = 0.299 * red + 0.587 * green + 0.114 * blue > _BRIGHT
        fill = "black" if bright else "white"
        draw_text(draw, (area[0] + pad, area[1]), text, size=size, fill=fill)


def _overlap(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
