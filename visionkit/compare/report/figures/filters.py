"""The filters of each arm's first convolution after its training."""

from __future__ import annotations

from pathlib import Path

from visionkit.compare.report.report_data import ReportData, one_run_each
from visionkit.compare.report.sections import Panel, Section

__all__ = ["applies", "draw"]


def applies(data: ReportData) -> bool:
    """Return whether a run drew its filters."""
    return bool(_files(data))


def draw(data: ReportData) -> Section:
    """Return the filters that the runs drew, those of all arms one below the other."""
    note = (
        "One run of each arm, after its training, at most the first 64 filters. Each is scaled to its own "
        "largest weight; grey is zero. Long training on photographs gives edges of all directions and pairs "
        "of opposing colours."
    )
    panels = [Panel(path.read_bytes, f"Filters of {arm}", arm=arm) for arm, path in _files(data)]
    return Section(panels, note=note)


def _files(data: ReportData) -> list[tuple[str, Path]]:
    return [
        (arm, path)
        for arm, run in one_run_each(data.comparison)
        if (path := run.folder / "figures" / "filters.png").is_file()
    ]
