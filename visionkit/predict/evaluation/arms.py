"""The evaluations of several runs side by side: a row a run, then mean and spread of each arm."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from visionkit.compare.comparison import arm_name
from visionkit.compare.run_record import runs_inside
from visionkit.compare.sentences.number_text import format_statistics, percent
from visionkit.compare.statistics import seed_statistics
from visionkit.files import local_path
from visionkit.predict.evaluation.result import Evaluation
from visionkit.printable import printable
from visionkit.run.storage.disk import write_file

__all__ = ["arms_text", "finished_runs", "write_arms"]

MAX_SCORES = 8  # columns of a table; `evaluation.json` has all


def finished_runs(path: str | Path) -> list[Path]:
    """Return the finished runs directly inside a folder; none where it is a run itself, or a file.

    Args:
        path: A folder.
    """
    folder = local_path(path, "a run")
    if not folder.is_dir() or (folder / "checkpoints").is_dir():
        return []
    return [run for run in runs_inside(folder) if (run / "result.json").is_file()]


def arms_text(evaluations: Sequence[Evaluation]) -> str:
    """Return the table of several runs: their scores, then mean ± standard deviation of each arm.

    Args:
        evaluations: Of one split of one data set.
    """
    scores = [name for name in evaluations[0].metrics if name.count("/") == 1][:MAX_SCORES]
    rows = [["", *scores, "stored"]]
    for each in evaluations:
        equal = "-" if each.stored is None else "differ" if each.differences else "equal"
        values = [f"{each.metrics.get(name, math.nan):.4f}" for name in scores]
        rows.append([each.checkpoint.parent.parent.name, *values, equal])
    arms: dict[tuple[str, float, int], list[Evaluation]] = {}
    for each in evaluations:
        arms.setdefault((arm_name(each.init), each.fraction, each.schedule), []).append(each)
    for (arm, fraction, schedule), members in arms.items():
        length = "" if schedule == 1 else f", schedule {schedule}x"
        label = f"{arm}, {percent(fraction)} of the data{length} (n = {len(members)})"
        cells = [seed_statistics([each.metrics.get(name, math.nan) for each in members]) for name in scores]
        rows.append([label, *(format_statistics(cell, 4) for cell in cells), ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    notes = dict.fromkeys(note for each in evaluations for note in each.notes)
    first = evaluations[0]
    head = f"{first.data}, {first.split} split, {first.images:,} images, {first.checkpoint.stem} weights"
    return printable("\n".join([head, "", *lines, "", *(f"note: {note}" for note in notes)]).rstrip())


def write_arms(evaluations: Sequence[Evaluation], folder: str | Path) -> Path:
    """Write `evaluation.json` of several runs, a list with one entry each, and return its path.

    Args:
        evaluations: Of several runs.
        folder: Where it goes.
    """
    path = Path(folder) / "evaluation.json"
    text = json.dumps([each.to_dict() for each in evaluations], indent=1, allow_nan=False) + "\n"
    write_file(path, lambda part: part.write_text(text, encoding="utf-8"), needed=len(text))
    return path
