"""Finished runs side by side: read, checked for equal conditions, compared, told in words. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visionkit.compare.comparison import Comparison, compare
from visionkit.compare.run_record import Record, find_runs, read_record
from visionkit.compare.statistics import difference
from visionkit.compare.summary import headline, summary_text

if TYPE_CHECKING:
    from visionkit.compare.report.report import write_report

__all__ = [
    "Comparison",
    "Record",
    "compare",
    "difference",
    "find_runs",
    "headline",
    "read_record",
    "summary_text",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name != "write_report":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from visionkit.compare.report.report import write_report  # loads matplotlib

    return write_report
