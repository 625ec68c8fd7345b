"""Captioning: where each arm attended while it generated each word."""

from __future__ import annotations

from pathlib import Path

from visionkit.compare.report.report_data import ReportData
from visionkit.compare.report.sections import Panel, Section

__all__ = ["applies", "draw"]

MAX_IMAGES = 5


def applies(data: ReportData) -> bool:
    """Return whether a run drew its attention."""
    return bool(_files(data))


def draw(data: ReportData) -> Section:
    """Return the attention maps that the runs drew, of each image those of all arms one below the other."""
    note = (
        f"{data.samples_of}, validation images drawn at random, the same in every arm. Light is where "
        "attention lies while the word is said; a word that names a thing is drawn with that thing's box and "
        "the share of attention inside it."
    )
    return Section(
        [Panel(path.read_bytes, "Attention maps of each word", arm=arm) for arm, path in _files(data)],
        note=note,
    )


def _files(data: ReportData) -> list[tuple[str, Path]]:
    return [
        (arm, path)
        for idx in range(MAX_IMAGES)
        for arm, run in data.runs.items()
        if (path := run.folder / "figures" / "attention" / f"{idx}.jpg").is_file()
    ]
