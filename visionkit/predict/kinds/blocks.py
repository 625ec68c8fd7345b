"""An image at a size at which it can be read, and the blocks of text and bars that are put below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw
from torch import Tensor

from visionkit.drawing.image_text import draw_text, fit_text, line_height, text_width, wrap_text
from visionkit.drawing.panels import INK, PAPER
from visionkit.run.previews.to_pil import to_pil

__all__ = ["MUTED", "Bar", "bar_block", "block_width", "legible", "text_block", "text_size"]

MIN_SIDE = 320  # pixels of the longer side; smaller images are enlarged
MAX_SIDE = 32_000  # larger ones are reduced: with what is below it, a JPEG has at most 65,535
MUTED = "#8c959f"
_STRONG, _TRACK = "#0969da", "#eaeef2"


class Bar(NamedTuple):
    """A line of a bar block.

    Args:
        name: On the left.
        fraction: Length of the bar, in 0 .. 1.
        value: On the right.
        strong: Whether it is an answer, and not what came near to one.
    """

    name: str
    fraction: float
    value: str
    strong: bool


def legible(image: Tensor) -> Image.Image:
    """Return an image `(3, H, W)` uint8 at its size, or with a longer side of 320 or 32,000 pixels."""
    return to_pil(image, side=min(MAX_SIDE, max(MIN_SIDE, *image.shape[-2:])))


def text_size(canvas: Image.Image) -> int:
    """Return the height of text, in pixels, that can be read on an image when all of it is seen."""
    return max(12, round(min(math.sqrt(canvas.width * canvas.height) / 36, canvas.width / 24)))


def block_width(canvas: Image.Image) -> int:
    """Return the width of what is put below an image: its own, if that is enough for text."""
    return max(canvas.width, MIN_SIDE)


def text_block(text: str, *, width: int, size: int, color: str = INK) -> Image.Image:
    """Return an image with a text in as many lines as it needs.

    Args:
        text: Words.
        width: Of the image, in pixels.
        size: Height of the font, in pixels.
        color: Of the text.
    """
    margin, line = round(size * 0.6), line_height(size)
    lines = wrap_text(text, size, width - 2 * margin)
    block = Image.new("RGB", (width, line * len(lines) + 2 * margin), PAPER)
    draw = ImageDraw.Draw(block)
    for index, text_line in enumerate(lines):
        draw_text(draw, (margin, margin + line * index), text_line, size=size, fill=color)
    return block


def bar_block(bars: Sequence[Bar], *, width: int, size: int) -> Image.Image:
    """Return an image with a line for each bar: name, bar, value.

    Args:
        bars: The first is drawn first.
        width: Of the image, in pixels.
        size: Height of the font, in pixels.
    """
    margin, line = round(size * 0.6), round(size * 1.6)
    values = max((round(text_width(bar.value, size)) for bar in bars), default=0)
    names = max((round(text_width(bar.name, size)) for bar in bars), default=0)
    names = min(names, (width - values) // 2)
    left, right = names + 2 * margin, width - values - 2 * margin
    block = Image.new("RGB", (width, line * len(bars) + 2 * margin), PAPER)
    draw = ImageDraw.Draw(block)
    for index, bar in enumerate(bars):
        top = margin + line * index
        color = INK if bar.strong else MUTED
        draw_text(draw, (margin, top), fit_text(bar.name, size, names), size=size, fill=color)
        shift = values - text_width(bar.value, size)
        draw_text(draw, (width - margin - values + shift, top), bar.value, size=size, fill=color)
        up, down = top + round(size * 0.25), top + round(size * 1.1)
        draw.rectangle((left, up, right, down), fill=_TRACK)
        filled = left + round((right - left) * min(1.0, max(0.0, bar.fraction)))
        if filled > left:
            draw.rectangle((left, up, filled, down), fill=_STRONG if bar.strong else MUTED)
    return block
