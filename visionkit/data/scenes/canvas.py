"""Drawing of scenes: textured backgrounds, plain shapes, and glyphs with their exact masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["augment_glyph", "background", "cover_mask", "paste", "shapes"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def background(rng: np.random.Generator, size: int) -> Bytes:
    """Return a textured background: clouds, stripes, checks, dots or a gradient, in random colours.

    Args:
        rng: The draws.
        size: Side in pixels.

    Returns:
        `(size, size, 3)` uint8.
    """
    colours = rng.integers(0, 256, size=(3, 3)).astype(np.float32)
    colours[1] = colours[0] + (0.3 + 0.5 * rng.random()) * (colours[1] - colours[0])
    kind = int(rng.integers(5))
    turn, period, phase = rng.random(3) * (np.pi, 0.3, 1.0) + (0.0, 0.06, 0.0)
    y, x = np.ogrid[0:size, 0:size]
    x, y = x.astype(np.float32) / size, y.astype(np.float32) / size
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    if kind == 0:
        weight = _clouds(rng, size, 4)
    elif kind == 1:
        weight = ((u / period + phase) % 1 < 0.5).astype(np.float32)
    elif kind == 2:
        weight = (((u / period + phase) % 1 < 0.5) ^ ((v / period) % 1 < 0.5)).astype(np.float32)
    elif kind == 3:
        weight = (((u / period) % 1 - 0.5) ** 2 + ((v / period) % 1 - 0.5) ** 2 < 0.09).astype(np.float32)
    else:
        weight = np.clip(u * 0.7 + phase * 0.3, 0, 1).astype(np.float32)
    grain = _clouds(rng, size, 12)
    painted = colours[0] + weight[..., None] * (colours[1] - colours[0])
    painted += grain[..., None] * 0.45 * (colours[2] - painted)
    return np.asarray(painted, dtype=np.uint8)


def _clouds(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Smooth noise in [0, 1]: a coarse random grid, enlarged."""
    coarse = Image.fromarray(rng.integers(0, 256, size=(cells, cells), dtype=np.uint8))
    fine = coarse.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(fine, dtype=np.float32) / np.float32(255)


def shapes(rng: np.random.Generator, image: Image.Image, count: int) -> None:
    """Draw plain shapes (lines, ellipses, triangles) in random colours onto the image.

    Args:
        rng: The draws.
        image: RGB, changed in place.
        count: How many.
    """
    draw = ImageDraw.Draw(image)
    size = image.width
    for _ in range(count):
        kind = int(rng.integers(3))
        colour = tuple(int(value) for value in rng.integers(0, 256, size=3))
        centre = rng.random(2) * size
        reach = (0.05 + 0.15 * rng.random()) * size
        corners = centre + (rng.random((3, 2)) - 0.5) * 2 * reach
        if kind == 0:
            draw.line([tuple(corners[0]), tuple(corners[1])], fill=colour, width=max(1, round(reach / 5)))
        elif kind == 1:
            draw.ellipse((*(centre - reach / 2), *(centre + reach / 2)), fill=colour)
        else:
            draw.polygon([tuple(corner) for corner in corners], fill=colour)


def augment_glyph(
    rng: np.random.Generator, glyph: Image.Image, side: float, *, turn: float = 12.0
) -> Image.Image:
    """Resize a glyph, and rotate, mirror and relight it at random.

    Args:
        rng: The draws.
        glyph: RGBA, not changed.
        side: Longer side of the upright glyph in pixels.
        turn: Standard deviation of the rotation in degrees.

    Returns:
        A new RGBA image.
    """
    angle, mirror, gain, shift = rng.normal() * turn, rng.random() < 0.5, rng.random(3), rng.random()
    scale = side / max(glyph.size)
    out = glyph.resize(
        (max(2, round(glyph.width * scale)), max(2, round(glyph.height * scale))),
        Image.Resampling.BILINEAR,
        reducing_gap=2.0,
    )
    if mirror:
        out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if turn:
        out = out.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    pixels = np.array(out)
    light = pixels[..., :3] * (0.75 + 0.4 * gain).astype(np.float32) + np.float32(40 * (shift - 0.4))
    pixels[..., :3] = np.clip(light, 0, 255)
    return Image.fromarray(pixels, "RGBA")


def paste(image: Image.Image, piece: Image.Image, left: int, top: int) -> None:
    """Paste a piece onto the image.

    Args:
        image: RGB, changed in place.
        piece: RGBA.
        left: Column of the piece's left edge; may lie outside.
        top: Row of the piece's upper edge; may lie outside.
    """
    image.paste(piece, (left, top), piece)


def cover_mask(size: int, piece: Image.Image, left: int, top: int) -> Bytes:
    """Return where a piece covers a square image.

    Args:
        size: Side of the image in pixels.
        piece: RGBA.
        left: Column of the piece's left edge; may lie outside.
        top: Row of the piece's upper edge; may lie outside.

    Returns:
        `(size, size)` uint8, 1 where the piece covers the image by at least half.
    """
    cover = np.zeros((size, size), dtype=np.uint8)
    alpha = np.asarray(piece.getchannel("A"))
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(size, top + piece.height), min(size, left + piece.width)
    if y1 > y0 and x1 > x0:
        cover[y0:y1, x0:x1] = alpha[y0 - top : y1 - top, x0 - left : x1 - left] > 127
    return cover
