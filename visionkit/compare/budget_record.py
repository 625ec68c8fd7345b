"""What `--budget` chose and left out, as its file beside the runs has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from visionkit.files import finite, to_plain

__all__ = ["BUDGET_FILE", "budget_lines", "read_budget"]

BUDGET_FILE = "budget.json"


def read_budget(folder: str | Path) -> dict[str, Any]:
    """Return what `budget.json` in a folder of runs says; empty where there is none that can be read.

    Args:
        folder: The folder of the runs.
    """
    try:
        table = json.loads((Path(folder) / BUDGET_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    parts = ("chosen", "left_out")
    if not isinstance(table, dict) or not all(isinstance(table.get(part), dict) for part in parts):
        return {}
    plain: dict[str, Any] = to_plain(table, finite)
    return plain


def budget_lines(budget: dict[str, Any]) -> list[str]:
    """Return what was chosen within a budget and what was left out: a line each; none without a budget.

    Args:
        budget: What `read_budget` returns.
    """
    if not budget:
        return []
    lines = [f"budget {budget.get('budget')}: {_listed(budget['chosen'])}"]
    left_out = _listed(budget["left_out"])
    return [*lines, f"left out, for the budget: {left_out}" if left_out else "the budget left nothing out"]


def _listed(axes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {' '.join(map(str, values))}" for name, values in axes.items() if values)
