"""Compare finished runs: read their folders, check that conditions were equal, compare arms, write a report.

An *arm*, as in a trial, is all runs that start from the same weights: `init` is "pretrained", "scratch" or a
weights file. The baseline is the last arm, scratch if there is one. Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visionkit.compare.by_setting import compare_by
from visionkit.compare.comparison import Comparison, compare
from visionkit.compare.run_record import RunRecord, find_runs, read_run
from visionkit.compare.statistics import difference
from visionkit.compare.summary import headline, print_summary, summary_text

if TYPE_CHECKING:
    from visionkit.compare.report.report import write_report

__all__ = [
    "Comparison",
    "RunRecord",
    "compare",
    "compare_by",
    "difference",
    "find_runs",
    "headline",
    "print_summary",
    "read_run",
    "summary_text",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name != "write_report":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from visionkit.compare.report.report import write_report  # loads matplotlib

    return write_report
