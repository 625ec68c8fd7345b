"""The parts of a report: a figure says when it applies and what its section shows."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from visionkit.compare.data_tables import Table
from visionkit.compare.report.report_data import ReportData

__all__ = ["CardGroup", "Panel", "ReportFigure", "Section", "embed"]


@dataclass(frozen=True)
class Panel:
    """One figure or image of a section.

    Args:
        draw: Returns a matplotlib figure, or the bytes of a PNG or JPEG.
        alt: The image in words.
        file: Name without suffix in `figures/`; an image that exists already has none.
        name: Named where drawing fails; the section's title if empty.
        arm: Heading above the image.
    """

    draw: Callable[[], Figure | bytes]
    alt: str
    file: str = ""
    name: str = ""
    arm: str = ""


@dataclass(frozen=True)
class CardGroup:
    """Sample images with what each arm predicted.

    Args:
        title: The heading.
        arm: Whose samples they are, behind the heading; of all arms if empty.
        cards: See `report.html.j2`.
    """

    title: str
    arm: str
    cards: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Section:
    """What one figure shows.

    Args:
        panels: Figures, and images that are wider than a screen.
        note: One line below the title.
        tables: Tables below the figures.
        cards: Groups of sample images.
        legend: Colour (as CSS has it) and name of the classes of the cards.
        images: Small images, side by side: JPEG or PNG.
        lines: Sentences at the end.
    """

    panels: Sequence[Panel] = ()
    note: str = ""
    tables: Sequence[Table] = ()
    cards: Sequence[CardGroup] = ()
    legend: Sequence[tuple[str, str]] = ()
    images: Sequence[bytes] = ()
    lines: Sequence[str] = ()


class ReportFigure(NamedTuple):
    """A row of `FIGURES`: the title of a section, whether a comparison has it, and what it shows."""

    title: str
    applies: Callable[[ReportData], bool]
    draw: Callable[[ReportData], Section]


def embed(image: bytes) -> str:
    """Return a PNG or JPEG as the source of an image in HTML."""
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"
