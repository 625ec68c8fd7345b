"""Drawing of previews: a tensor as an image, an image with text below it, and a grid of images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from visionkit.files import write_atomic
from visionkit.run.previews.image_text import draw_text, fit_text

__all__ = ["caption_panel", "join_grid", "save_png", "to_pil"]

SIDE = 128
TEXT_SIZE = 10  # pixels
LINE = 15
GAP = 6
INK, GOOD, BAD, PAPER = "#24292f", "#1a7f37", "#b3261e", "#ffffff"


def to_pil(image: Tensor, *, side: int = SIDE) -> Image.Image:
    """Return a tensor as an image whose longer side is `side` pixels.

    Args:
        image: `(C, H, W)` uint8, or float in [0, 1]. One channel is grey; two are red and green;
            of more than three the first three are red, green and blue.
        side: Pixels of the longer side.
    """
    pixels = image.detach().cpu()[:3]
    if len(pixels) < 3:
        rest = pixels if len(pixels) == 1 else torch.zeros_like(pixels[:1])
        pixels = torch.cat([pixels, *[rest] * (3 - len(pixels))])
    if pixels.dtype != torch.uint8:
        pixels = (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8)
    # (3, H, W) -> (H, W, 3)
    canvas = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    scale = side / max(canvas.size)
    size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
    return canvas.resize(size, Image.Resampling.BILINEAR)


def caption_panel(
    canvas: Image.Image, lines: Sequence[tuple[str, bool | None]], *, side: int = SIDE
) -> Image.Image:
    """Return an image with lines of text below it.

    Args:
        canvas: The image.
        lines: Text, and whether it is right (green), wrong (red) or neither (None).
        side: Width of the panel, and height of its image.
    """
    panel = Image.new("RGB", (side, side + LINE * len(lines) + 4), PAPER)
    panel.paste(canvas, ((side - canvas.width) // 2, (side - canvas.height) // 2))
    draw = ImageDraw.Draw(panel)
    for idx, (text, right) in enumerate(lines):
        color = INK if right is None else GOOD if right else BAD
        line = fit_text(text, TEXT_SIZE, side - 4)
        draw_text(draw, (2, side + 2 + LINE * idx), line, size=TEXT_SIZE, fill=color)
    return panel


def join_grid(panels: Sequence[Image.Image], *, columns: int = 0, gap: int = GAP) -> Image.Image:
    """Return the panels side by side, row by row.

    Args:
        panels: At least one canvas.
        columns: Images in a row; 0 takes as many as fit the width of eight small ones.
        gap: Pixels between them.
    """
    width = max(panel.width for panel in panels)
    columns = min(columns or max(1, 8 * SIDE // width), len(panels))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    grid = Image.new("RGB", (columns * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)), PAPER)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            grid.paste(panel, (gap + column * (width + gap), top))
        top += height + gap
    return grid


def save_png(image: Image.Image, path: str | Path) -> None:
    """Write an image as a PNG file that is complete or absent: a browser may read it at any time.

    Args:
        image: The image.
        path: The file; its folder must exist.
    """
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_atomic(path, lambda part: part.write_bytes(content.getvalue()), durable=False)
