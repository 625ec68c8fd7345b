"""Text that is drawn on images, in any script: its font, its width, and its division into lines.

The font is DejaVu Sans, which matplotlib brings along (Latin, Greek, Cyrillic, Arabic and more). A letter
that it does not have (Chinese, Devanagari) is drawn in the first font of the machine that has it; where none
has, as an empty box.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from matplotlib import font_manager, get_data_path
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont

from visionkit.printable import printable

__all__ = ["draw_text", "fit_text", "line_height", "text_width", "wrap_text"]

_JOINED = {"Mn", "Mc", "Me", "Zs", "Cf", "Sk"}  # accents, spaces, joiners: in the font of the letter before


def line_height(size: int) -> int:
    """Return the pixels from one line of text to the next."""
    return round(size * 1.35)


def text_width(text: str, size: int) -> float:
    """Return how wide a line of text is, in pixels.

    Args:
        text: One line.
        size: Height of the font, in pixels.
    """
    return sum(_font(file, size).getlength(part) for file, part in _parts(text))


def draw_text(
    draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, *, size: int, fill: str | tuple[int, ...]
) -> None:
    """Draw a line of text.

    Args:
        draw: Of the image.
        xy: Left upper corner of the line, which is `line_height(size)` high.
        text: One line.
        size: Height of the font, in pixels.
        fill: Colour.
    """
    left, baseline = xy[0], xy[1] + round(size * 1.05)
    for file, part in _parts(text):
        font = _font(file, size)
        draw.text((left, baseline), part, fill=fill, font=font, anchor="ls")
        left += font.getlength(part)


def wrap_text(text: str, size: int, width: float, *, max_lines: int = 0) -> list[str]:
    """Break a text into lines: between words, and inside of a word that is wider than a line.

    Args:
        text: Words; line breaks count as spaces.
        size: Height of the font, in pixels.
        width: Of a line, in pixels.
        max_lines: The last of them takes the rest, cut to the width; 0 is no limit.

    Returns:
        One line, if there are no words.
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= width:
            lines[-1] = longer
            continue
        pieces = _pieces(word, size, width)
        lines = [*(lines if lines[-1] else lines[:-1]), *pieces]
    if max_lines and len(lines) > max_lines:
        rest = " ".join(lines[max_lines - 1 :])
        lines = [*lines[: max_lines - 1], fit_text(rest, size, width)]
    return lines


def fit_text(text: str, size: int, width: float) -> str:
    """Return a line of text, cut and ended with dots where it is wider than `width` pixels.

    Args:
        text: One line.
        size: Height of the font, in pixels.
        width: In pixels.
    """
    if text_width(text, size) <= width:
        return text
    return f"{text[: _fitting(text, size, width - text_width('...', size))]}..."


def _pieces(word: str, size: int, width: float) -> list[str]:
    """Break a word into pieces that fit, of one letter or more."""
    pieces = []
    while text_width(word, size) > width and len(word) > 1:
        end = max(1, _fitting(word, size, width))
        pieces.append(word[:end])
        word = word[end:]
    return [*pieces, word]


def _fitting(text: str, size: int, width: float) -> int:
    """Return how many letters fit, by halving: width grows with the letters."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_width(text[:middle], size) <= width else (low, middle - 1)
    return low


@lru_cache(maxsize=1024)
def _parts(text: str) -> Sequence[tuple[str, str]]:
    """Return the text in parts of one font each."""
    clean = "".join(" " if unicodedata.category(char) == "Cc" else char for char in printable(text))
    files: list[str] = []
    for char in clean:
        joined = files and unicodedata.category(char) in _JOINED
        files.append(files[-1] if joined else _file_of(char))
    grouped = itertools.groupby(zip(files, clean, strict=True), key=lambda pair: pair[0])
    return [(file, "".join(char for _, char in pairs)) for file, pairs in grouped]


@cache
def _file_of(char: str) -> str:
    """Return the first font that has a letter; the usual one, where none has it."""
    usual = str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    others = (file for file in _machine_fonts() if ord(char) in _letters(file))
    return usual if ord(char) in _letters(usual) else next(others, usual)


@cache
def _machine_fonts() -> Sequence[str]:
    return sorted(font_manager.findSystemFonts())


@cache
def _letters(file: str) -> frozenset[int]:
    """Return the letters of a font; none of one that cannot be read, or is of fixed size (as emoji are)."""
    try:
        font = FT2Font(file)
        ImageFont.truetype(file, 12)
        return frozenset(font.get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=64)
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)
