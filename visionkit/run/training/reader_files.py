"""The result of a run, and what its reader gets beside it: what the data are made of, and the curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from visionkit.compare.data_tables import CARD_FILE, read_card
from visionkit.data.data_card import data_card, data_key
from visionkit.data.splits import Splits
from visionkit.files import write_text
from visionkit.run.storage.result import write_result

__all__ = ["write_curves", "write_data_file", "write_result_files"]


def write_result_files(folder: Path, result: dict[str, Any], splits: Splits) -> None:
    """Write `result.json`, `data.json` and the curves; an error in the last two is a problem of the run.

    Args:
        folder: The run's folder.
        result: What `result.json` holds; its "problems" grow.
        splits: All of the data.
    """
    result["problems"] += filter(None, [write_data_file(folder, splits)])
    write_result(folder, result)
    problem = write_curves(folder)  # drawn from the result
    if problem:
        result["problems"].append(problem)
        write_result(folder, result)


def write_data_file(folder: Path, splits: Splits) -> str:
    """Write `data.json`, or copy that of a run beside it of the same data.

    Args:
        folder: The run's folder.
        splits: All of the data, whatever fraction of it the run trains on.

    Returns:
        Why it could not be made; empty if it was.
    """
    try:
        key = data_key(splits)
        for other in sorted(folder.parent.glob(f"*/{CARD_FILE}")):
            if read_card(other.parent).get("key") == key:
                if other.parent != folder:
                    write_text(folder / CARD_FILE, other.read_text(encoding="utf-8"))
                return ""
        write_text(folder / CARD_FILE, json.dumps(data_card(splits), indent=1) + "\n")
    except Exception as error:
        return f"The data card failed: {type(error).__name__}: {error}"
    return ""


def write_curves(folder: Path) -> str:
    """Draw `figures/curves.png` of a run that has figures and its result; return why not, empty if it was."""
    if not (folder / "figures").is_dir():
        return ""
    try:
        from visionkit.compare.report.run_curves import draw_run_curves  # loads matplotlib

        draw_run_curves(folder)
    except Exception as error:
        return f"The curves failed: {type(error).__name__}: {error}"
    return ""
