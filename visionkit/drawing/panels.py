"""An image with text above or below it, and a grid of images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from visionkit.drawing.image_text import draw_text, fit_text
from visionkit.files import write_atomic

__all__ = ["add_below", "add_title", "caption_panel", "join_grid", "save_image"]

SIDE = 128
TEXT_SIZE = 10  # pixels
LINE = 15
GAP = 6
INK, GOOD, BAD, PAPER = "#24292f", "#1a7f37", "#b3261e", "#ffffff"
_MAX_COLUMNS = 8
_GRID_WIDTH = 1340  # pixels


def add_title(image: Image.Image, title: str) -> Image.Image:
    """Return an image with a line of text above it."""
    panel = Image.new("RGB", (image.width, image.height + LINE + 2), PAPER)
    panel.paste(image, (0, LINE + 2))
    text = fit_text(title, TEXT_SIZE, image.width - 4)
    draw_text(ImageDraw.Draw(panel), (2, 1), text, size=TEXT_SIZE, fill=INK)
    return panel


def add_below(canvas: Image.Image, block: Image.Image) -> Image.Image:
    """Return an image with a block below it, both in the middle."""
    width = max(canvas.width, block.width)
    joined = Image.new("RGB", (width, canvas.height + block.height), PAPER)
    joined.paste(canvas, ((width - canvas.width) // 2, 0))
    joined.paste(block, ((width - block.width) // 2, canvas.height))
    return joined


def caption_panel(
    canvas: Image.Image, lines: Sequence[tuple[str, bool | None]], *, side: int = SIDE
) -> Image.Image:
    """Return an image with lines of text below it.

    Args:
        canvas: The image.
        lines: Text, and whether it is right (green), wrong (red) or neither (None).
        side: Width of the panel, unless the image is wider.
    """
    width, height = max(side, canvas.width), canvas.height
    panel = Image.new("RGB", (width, height + LINE * len(lines) + 4), PAPER)
    panel.paste(canvas, ((width - canvas.width) // 2, 0))
    draw = ImageDraw.Draw(panel)
    for idx, (text, right) in enumerate(lines):
        color = INK if right is None else GOOD if right else BAD
        line = fit_text(text, TEXT_SIZE, width - 4)
        draw_text(draw, (2, height + 2 + LINE * idx), line, size=TEXT_SIZE, fill=color)
    return panel


def join_grid(panels: Sequence[Image.Image], *, columns: int = 0, gap: int = GAP) -> Image.Image:
    """Return the panels side by side, row by row.

    Args:
        panels: At least one canvas.
        columns: Images in a row; 0 takes as many as are seen well on one screen, eight at most.
        gap: Pixels between them.
    """
    width = max(panel.width for panel in panels)
    columns = min(columns or max(1, min(_MAX_COLUMNS, _GRID_WIDTH // width)), len(panels))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    grid = Image.new("RGB", (columns * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)), PAPER)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            grid.paste(panel, (gap + column * (width + gap), top))
        top += height + gap
    return grid


def save_image(image: Image.Image, path: str | Path, options: Mapping[str, Any] | None = None) -> None:
    """Write an image as a file that is complete or absent: a browser may read it at any time.

    Args:
        image: The image.
        path: The file, whose ending says the format; its folder must exist.
        options: Pillow's for that format.
    """
    content = io.BytesIO()
    image.save(content, format=Image.registered_extensions()[Path(path).suffix], **(options or {}))
    write_atomic(path, lambda part: part.write_bytes(content.getvalue()), durable=False)
