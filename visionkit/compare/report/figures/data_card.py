"""The data: what it is made of, some training images, and files that are in two splits."""

from __future__ import annotations

from visionkit.compare.data_tables import card_lines, data_tables
from visionkit.compare.report.predictions import open_image, thumbnail
from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Section

__all__ = ["applies", "draw"]

MAX_EXAMPLES = 6


def applies(data: ReportData) -> bool:
    """Return whether a run wrote what its data are made of."""
    return bool(data.card)


def draw(data: ReportData) -> Section:
    """Return the tables, the examples and the duplicates."""
    folder = data.comparison.records[-1].folder
    names = [f"figures/examples/{idx}.jpg" for idx in range(MAX_EXAMPLES)]
    images = [image for name in names if (image := open_image(folder, {"image": name}))]
    examples = [thumbnail(image, 2 * max(image.size)) for image in images]
    note = f"{data.name}, all of it: as its reader gives it." + (
        " Training images with their targets:" * bool(examples)
    )
    return Section(note=note, images=examples, tables=data_tables(data.card), lines=card_lines(data.card))
