"""The table of speeds: measured rows as plain values, in print, as JSON, and against an earlier table."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.bench.processor import bf16_gain, cpu_flags, cpu_name, measure_rates, processor_kind
from tests.bench.row import Row
from tests.bench.timing import Pairs
from visionkit.run.processes.malloc import RAISED

__all__ = [
    "describe_machine",
    "measured",
    "print_table",
    "read_table",
    "slower",
    "write_table",
]

COLUMNS = ("row", "peer", "ratio", "spread", "goal", "limit", "verdict")
SLACK = 0.9  # a ratio below the committed spread by more than this share is a regression


def measured(row: Row, pairs: Pairs, facts: dict[str, Any]) -> dict[str, Any]:
    """One row as JSON holds it.

    Where the better type of numbers bounds the row, its bound is measured now, beside the row.
    """
    bound = round(bf16_gain(measure_rates(), row.bf16), 2) if row.bf16 else None
    ratios = pairs.ratios(at_most=row.at_most, wall=row.clock == "wall")
    ratio = statistics.median(ratios)
    ours, theirs = pairs.medians()
    return {
        "row": row.name,
        "peer": f"{row.peer}{_version(row.package)}",
        "ratio": round(ratio, 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "wall_ratio": round(statistics.median(pairs.ratios(at_most=row.at_most, wall=True)), 3),
        "goal": row.goal,
        "at_most": row.at_most,
        "limit": row.limit,
        "bf16_gain": bound,
        "verdict": "holds" if (ratio <= row.goal if row.at_most else ratio >= row.goal) else "short",
        "ours_ms": round(ours * 1e3, 4),
        "theirs_ms": round(theirs * 1e3, 4),
        "pairs": len(ratios),
        "clock": row.clock,
        "note": row.note,
        "facts": facts,
    }


def slower(row: dict[str, Any], before: dict[str, Any] | None) -> str:
    """Say what became slower than in an earlier table; "" where nothing did, or another size was timed."""
    if (
        before is None
        or "spread" not in before
        or "ratio" not in row
        or row.get("size") != before.get("size")
    ):
        return ""
    low, high = before["spread"]
    worse = row["ratio"] > high / SLACK if row["at_most"] else row["ratio"] < low * SLACK
    return f"regressed from {before['ratio']:g} [{low:g}..{high:g}]" if worse else ""


def _content(path: Path) -> dict[str, Any]:
    content = {"processors": {}, "rows": []}
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else content


def read_table(path: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Rows that an earlier table has of a kind of processor, by name."""
    return {row["row"]: row for row in _content(path)["rows"] if row["processor"] == kind}


def write_table(path: Path, rows: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    """Write the rows of one kind of processor.

    Those of an earlier table that were not measured now stay, with their own date: other rows, and the same
    rows on other kinds.
    """
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    kind, content = machine["kind"], _content(path)
    new = [{**row, "processor": kind, "date": stamp} for row in rows]
    measured_now = {(row["row"], row["processor"]) for row in new}
    kept = [row for row in content["rows"] if (row["row"], row["processor"]) not in measured_now]
    table = {
        "processors": {**content["processors"], kind: machine},
        "rows": sorted([*kept, *new], key=lambda row: (row["row"], row["processor"])),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def print_table(rows: list[dict[str, Any]]) -> str:
    """The rows in aligned columns."""
    lines = [COLUMNS]
    for row in rows:
        if "ratio" not in row:
            lines.append((row["row"], row["peer"], "", "", "", "", row["verdict"]))
            continue
        sign = "<=" if row["at_most"] else ">="
        spread = f"{row['spread'][0]:.2f}..{row['spread'][1]:.2f}"
        goal = f"{sign} {row['goal']:g}"
        cells = (row["row"], row["peer"], f"{row['ratio']:.2f}x", spread, goal, row["limit"], row["verdict"])
        lines.append(cells)
    width = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, width)).rstrip() for line in lines)


def is_tuned() -> bool:
    """Whether this process was started with malloc's thresholds raised."""
    return all(name in os.environ for name in RAISED)


def describe_machine(threads: int, *, gpu: bool = False) -> dict[str, Any]:
    """What the ratios were measured on; those of rows for the GPU on it."""
    import torch

    return {
        "kind": processor_kind(gpu=gpu),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in cpu_flags()],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": threads,
        "allocator": "raised thresholds on both sides" if is_tuned() else "as the system has it",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
    }


def _version(package: str) -> str:
    return f" {metadata.version(package)}" if package else ""
