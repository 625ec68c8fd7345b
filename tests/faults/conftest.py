"""The battery's table: each check gives one row, check, figure, verdict; printed at the end, and as JSON.

A test carries `@pytest.mark.check("R01", "what holds")` and calls `figure(good, of, note)`, which records
the row and fails when the two numbers differ. Rows travel in the reports, so they arrive from any process.
`VISIONKIT_FAULTS_JSON` names the file that the rows are also written to.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Figure = Callable[..., None]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Record how many of how many cases were as they must be; fail when some were not."""

    def record(good: int, of: int, note: str = "") -> None:
        request.node.user_properties.append(("figure", [good, of, note]))
        assert good == of, f"{good} of {of} {note}"
        assert of > 0, "no case was looked at"

    return record


@pytest.fixture(autouse=True)
def _named(request: pytest.FixtureRequest) -> None:
    mark = request.node.get_closest_marker("check")
    if mark is not None:
        request.node.user_properties.append(("check", list(mark.args)))


def rows(stats: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The rows of a session; of a check that ran in two lengths, the longer."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in stats.get(outcome, []):
            told = dict(getattr(report, "user_properties", ()))
            if "check" not in told:
                continue
            number, words = told["check"]
            good, of, note = told.get("figure", (0, 0, ""))
            failed = outcome in ("failed", "error")
            verdict = "FAILED" if failed else "skipped" if outcome == "skipped" else "holds"
            row = {"check": number, "what": words, "good": good, "of": of, "note": note, "verdict": verdict}
            before = found.get((number, words))
            if before is None or failed or (before["verdict"] != "FAILED" and of >= before["of"]):
                found[(number, words)] = row
    return sorted(found.values(), key=lambda row: (int(re.sub(r"\D", "", row["check"]) or 0), row["what"]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    table = rows(terminalreporter.stats)
    if not table:
        return
    write = terminalreporter.write_line
    width = max(len(row["what"]) for row in table)
    terminalreporter.section("what is guaranteed")
    write(f"{'check':6} {'':{width}}  {'figure':>14}  verdict")
    for row in table:
        figure = f"{row['good']:,} of {row['of']:,}" if row["of"] else "none"
        note = f"  ({row['note']})" if row["note"] else ""
        write(f"{row['check']:6} {row['what']:{width}}  {figure:>14}  {row['verdict']}{note}")
    held = sum(row["verdict"] == "holds" for row in table)
    write(f"{held} of {len(table)} checks hold")
    place = os.environ.get("VISIONKIT_FAULTS_JSON")
    if place:
        made = {"made": time.strftime("%Y-%m-%d"), "machine": platform.machine(), "rows": table}
        Path(place).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
