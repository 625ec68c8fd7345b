"""A transfer map read from its folder: what is planned, and what the comparison of each cell says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visionkit.compare.map.plan import PlannedCell, PlannedRun, read_plan
from visionkit.compare.map.transfer_map import Gap, MapCell, Score, TransferMap, relative_gap
from visionkit.compare.run_record import runs_inside
from visionkit.compare.sentences.number_text import count_text
from visionkit.compare.statistics import holm
from visionkit.errors import first_line

__all__ = ["CELL_ERROR", "read_map"]

CELL_ERROR = "cell_error.txt"
"""In the folder of a comparison: why its command failed, where no run could say it."""
MAX_REASON = 160


def read_map(folder: str | Path) -> TransferMap:
    """Return the map of a folder: every cell that it is to hold, and what its comparison says.

    Args:
        folder: The folder that `visionkit map` writes to.

    Raises:
        InputError: There is no map in it.
    """
    folder = Path(folder)
    read = [_read_cell(folder, cell) for cell in read_plan(folder)]
    cells = [cell for cell, _ in read]
    p_values = [gap.p_value for cell in cells for gap in cell.gaps]
    adjusted = iter(holm([1.0 if p is None else p for p in p_values]))
    adjusted_cells = []
    for cell in cells:
        gaps = [(gap, next(adjusted)) for gap in cell.gaps]
        gaps_of_map = tuple(
            gap if gap.p_value is None else dataclasses.replace(gap, p_map=p) for gap, p in gaps
        )
        adjusted_cells.append(dataclasses.replace(cell, gaps=gaps_of_map))
    return TransferMap(tuple(adjusted_cells), tuple(cost for _, cost in read))


def _read_cell(folder: Path, plan: PlannedCell) -> tuple[MapCell, dict[str, Any]]:
    path = folder / plan.folder / "comparison.json"
    table: dict[str, Any] = {}
    done: set[PlannedRun] = set()
    damage = ""
    if path.is_file():
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            done = {
                PlannedRun(run["arm"], run["fraction"], run["schedule"], run["seed"], run["fold"])
                for run in table["runs"]
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            damage = f"{path.name} is damaged ({first_line(error)}): start the same command again"
            table = {}
    finished = len(done & set(plan.runs))
    problems, failed = _problems(folder / plan.folder, complete=finished == len(plan.runs))
    if damage:
        problems, failed = (*problems, damage), True
    cell = MapCell(
        plan.backbone,
        plan.data,
        plan.recipe,
        plan.folder,
        tuple(sorted({run.fraction for run in plan.runs})),
        planned=len(plan.runs),
        finished=finished,
        problems=problems,
        failed=failed,
        task=_task(table) if table else {},
        scores=tuple(_scores(table)) if table else (),
        gaps=tuple(_gaps(table)) if table else (),
    )
    return cell, _cost(plan, table)


def _problems(folder: Path, *, complete: bool) -> tuple[tuple[str, ...], bool]:
    """Return why runs of a cell are not finished, and whether one failed.

    In a cell whose planned runs are all compared the others are of an earlier plan, and not looked at.
    """
    texts: dict[str, None] = {}
    unfinished = 0
    for run in () if complete else runs_inside(folder):
        if (run / "error.txt").is_file() and not (run / "result.json").is_file():
            texts[f"{run.name}: {_line(run / 'error.txt')}"] = None
        else:
            unfinished += not (run / "result.json").is_file()
    if not texts and (folder / CELL_ERROR).is_file():
        texts[_line(folder / CELL_ERROR)] = None
    failed = bool(texts)
    if unfinished:
        texts[f"{unfinished} run{'s' * (unfinished > 1)} stopped midway"] = None
    return tuple(texts), failed


def _line(path: Path) -> str:
    text = " ".join(path.read_text(encoding="utf-8", errors="replace").split())
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]} ..."


def _task(table: Mapping[str, Any]) -> dict[str, Any]:
    data = table["data"]
    return {
        "task": table["task"],
        "monitor": table["monitor"],
        "mode": table["mode"],
        "data": data.get("name"),
        "sizes": data.get("sizes") or {},
        "classes": len(data.get("classes") or ()),
        "equal": table["equal"],
        "allowed": table["allowed"],
    }


def _at_longest(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the cells of the comparison at the longest schedule that both arms have."""
    schedules = [c["schedule"] for c in table["contrasts"]] or [c["schedule"] for c in table["cells"]]
    return [cell for cell in table["cells"] if cell["schedule"] == max(schedules)]


def _scores(table: Mapping[str, Any]) -> Sequence[Score]:
    return [
        Score(
            cell["arm"],
            cell["fraction"],
            cell["metrics"][table["monitor"]]["mean"],
            cell["metrics"][table["monitor"]]["sd"],
            len(cell["seeds"]),
            cell["train_size"],
        )
        for cell in _at_longest(table)
        if table["monitor"] in cell["metrics"]
    ]


def _gaps(table: Mapping[str, Any]) -> Sequence[Gap]:
    means = {(score.arm, score.fraction): score.mean for score in _scores(table)}
    longest = max((c["schedule"] for c in table["contrasts"]), default=1)
    gaps = []
    for contrast in table["contrasts"]:
        arm, baseline, fraction = contrast["arm"], contrast["baseline"], contrast["fraction"]
        if contrast["schedule"] != longest:
            continue
        known = _evidence(table, contrast, table["monitor"])
        tested = _evidence(table, contrast, f"test/{table['monitor'].partition('/')[2]}")
        mean = contrast["metrics"][table["monitor"]]["mean"]
        sign = 1 if table["mode"] == "max" else -1
        gaps.append(
            Gap(
                arm,
                baseline,
                fraction,
                longest,
                mean,
                known.get("low"),
                known.get("high"),
                known.get("p_value"),
                None,
                relative_gap(means[arm, fraction], means[baseline, fraction], table["mode"]),
                _sources(known),
                tested.get("mean"),
                "" if mean == 0 else arm if sign * mean > 0 else baseline,
            )
        )
    return gaps


def _evidence(table: Mapping[str, Any], contrast: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return the evidence on a difference; its arms are in the order of the comparison."""
    expected = (metric, contrast["arm"], contrast["baseline"], contrast["fraction"], contrast["schedule"])
    names = ("metric", "first", "second", "fraction", "schedule")
    return next((e for e in table["evidence"] if tuple(e[name] for name in names) == expected), {})


def _sources(evidence: Mapping[str, Any]) -> str:
    seeds = count_text(int(evidence["seeds"]), str(evidence.get("repeat", "seed"))) if evidence else ""
    parts = [seeds] if evidence.get("seed_interval") else []
    parts += [f"{evidence['images']:,} images"] if evidence.get("images") else []
    return " and ".join(parts)


def _cost(plan: PlannedCell, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the runs of a cell took; means over seeds."""
    rows = [
        {name: cell[name] for name in ("arm", "fraction", "schedule")}
        | {"runs": len(cell["seeds"])}
        | {
            name: (cell[name] or {}).get("mean")
            for name in ("seconds", "images_per_second", "peak_memory_mb")
        }
        for cell in table.get("cells") or ()
    ]
    seconds = sum((row["seconds"] or 0.0) * row["runs"] for row in rows)
    return {"backbone": plan.backbone, "data": plan.data, "seconds": seconds, "rows": rows}
