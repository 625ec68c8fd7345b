"""The parts of a report: a figure says when it applies and what its section shows."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from visionkit.compare.report.report_data import ReportData

__all__ = ["Panel", "ReportFigure", "Section", "embed"]


@dataclass(frozen=True)
class Panel:
    """One image of a section.

    Args:
        draw: Returns a matplotlib figure, or the bytes of a PNG.
        alt: The image in words.
        file: Name without suffix in `figures/`; a PNG that exists already has none.
        name: Named where drawing fails; the section's title if empty.
        arm: Heading above the image.
        large: Whether it takes the full width; the others stand side by side below.
    """

    draw: Callable[[], Figure | bytes]
    alt: str
    file: str = ""
    name: str = ""
    arm: str = ""
    large: bool = True


@dataclass(frozen=True)
class Section:
    """What one figure shows.

    Args:
        panels: The images.
        note: One line below the title.
        table: Rows below the images, a header first.
        cards: Arm to sample images with what each arm predicted (see `report.html.j2`).
        alike: Whether the small panels are the same size, so that an odd last one is not stretched.
    """

    panels: Sequence[Panel] = ()
    note: str = ""
    table: Sequence[Sequence[str]] = ()
    cards: Sequence[tuple[str, Sequence[dict[str, Any]]]] = ()
    alike: bool = False


class ReportFigure(NamedTuple):
    """A row of `FIGURES`: the title of a section, whether a comparison has it, and what it shows."""

    title: str
    applies: Callable[[ReportData], bool]
    draw: Callable[[ReportData], Section]


def embed(png: bytes) -> str:
    """Return a PNG as the source of an image in HTML."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
