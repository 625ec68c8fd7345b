"""A colour for each class, class maps in these colours, and the legend that names them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from visionkit.drawing.image_text import draw_text, fit_text, line_height, text_width
from visionkit.drawing.panels import INK, PAPER

__all__ = ["Color", "class_colors", "legend", "paint"]

Color = tuple[int, int, int]

_OPAQUE = 0.62  # of a class's colour over the image
_IGNORED = (96, 96, 96)


def class_colors(count: int) -> list[Color]:
    """Return a colour for each class, the same for any count: hues a golden angle apart."""
    colors = []
    for index in range(count):
        saturation, value = ((0.75, 0.95), (0.95, 0.70), (0.45, 0.90))[index % 3]
        red, green, blue = colorsys.hsv_to_rgb((0.58 + index * 0.61803) % 1.0, saturation, value)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colors


def paint(
    canvas: Image.Image, mask: np.ndarray, classes: int, *, ignore_index: int = 255, opaque: float = _OPAQUE
) -> Image.Image:
    """Return the image with the colours of a class map blended over it.

    Args:
        canvas: An image of any size.
        mask: `(H, W)` class numbers, resized to the image by the nearest pixel.
        classes: How many classes there are.
        ignore_index: Value of ignored pixels, which are grey.
        opaque: Fraction of the colours in the result.
    """
    table = np.array([*class_colors(classes), _IGNORED], dtype=np.uint8)
    indices = np.where((mask == ignore_index) | (mask >= classes), classes, mask)
    colors = Image.fromarray(table[indices]).resize(canvas.size, Image.Resampling.NEAREST)
    return Image.blend(canvas, colors, opaque)


def legend(entries: Sequence[tuple[Color, str]], *, width: int, size: int) -> Image.Image:
    """Return an image with a colour and a name for each entry, in as many lines as they need.

    Args:
        entries: Colours and names.
        width: Of the image, in pixels.
        size: Height of the font, in pixels.
    """
    side, gap, line = round(size * 0.85), round(size * 0.4), line_height(size)
    texts = [fit_text(text, size, width - side - 3 * gap) for _, text in entries]
    places, left, top = [], gap, gap
    for text in texts:
        wide = side + gap + round(text_width(text, size))
        if left > gap and left + wide > width - gap:
            left, top = gap, top + line
        places.append((left, top))
        left += wide + 2 * gap
    image = Image.new("RGB", (width, top + line + gap), PAPER)
    draw = ImageDraw.Draw(image)
    for (color, _), text, (x, y) in zip(entries, texts, places, strict=True):
        up = y + round(size * 0.25)
        draw.rectangle((x, up, x + side, up + side), fill=color)
        draw_text(draw, (x + side + gap, y), text, size=size, fill=INK)
    return image
