"""One finished run, read from its folder: `result.json` and the curves of `metrics.csv`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from visionkit.compare.curves import Curve
from visionkit.errors import InputError, RunError
from visionkit.files import local_path

__all__ = [
    "RunRecord",
    "arm_name",
    "find_runs",
    "named_init",
    "read_run",
    "repeat_word",
    "runs_inside",
    "runs_of",
]

HEADER = ("step", "epoch", "images", "split", "name", "value")
REQUIRED = ("task", "metrics", "monitor", "init", "seed", "images_seen", "config", "roles", "data", "status")
HINT = "Give run folders, or a folder that holds run folders."
RUN_FILES = ("result.json", "config.yaml", "metrics.csv", "cmd.txt")


@dataclass(frozen=True)
class RunRecord:
    """A finished run, read from its folder.

    Args:
        folder: The run's folder.
        result: What `result.json` holds.
        curves: One curve over images seen for each logged name ("val/top1", "train/loss").
        notes: What was odd while reading, in words; the run is usable all the same.
    """

    folder: Path
    result: dict[str, Any]
    curves: dict[str, Curve] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def init(self) -> str:
        """Return where the weights came from: "pretrained", "frozen" (those, fixed), "scratch" or a path."""
        return named_init(str(self.result["init"]), self.result["config"])

    @property
    def seed(self) -> int:
        """Return the seed of the run."""
        return int(self.result["seed"])

    @property
    def fold(self) -> int | None:
        """Return the fold of cross-validation that was held out; None without."""
        fold = self.result.get("fold")
        return None if fold is None else int(fold)

    @property
    def draw(self) -> tuple[int, int]:
        """Return what runs are paired by: the seed and the fold (-1 without cross-validation)."""
        return self.seed, -1 if self.fold is None else self.fold

    @property
    def fraction(self) -> float:
        """Return the fraction of the training data that was used, in (0, 1]."""
        return float(self.result.get("fraction", 1.0))

    @property
    def schedule(self) -> int:
        """Return how many times the base length the run trained; 1 where it has no record of it."""
        return int(self.result.get("schedule") or 1)

    @property
    def monitor(self) -> tuple[str, str]:
        """Return the name that decides, and whether "max" or "min" of it is better."""
        name, mode = self.result["monitor"]
        return str(name), str(mode)

    @property
    def score(self) -> float:
        """Return the monitored metric at the end of the run; NaN where there was nothing to score."""
        value = self.result["metrics"].get(self.monitor[0])
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan

    @property
    def unscored(self) -> str:
        """Return why the run has no score, or an empty text."""
        if not math.isnan(self.score):
            return ""
        value = self.result["metrics"].get(self.monitor[0])
        return f"nothing to score: its {self.monitor[0]} is {value!r}, not a finite number."

    @property
    def best(self) -> dict[str, float]:
        """Return the validation metrics of `best.ckpt`; of older runs the monitored one alone."""
        best = self.result.get("best") or {}
        metrics = best.get("metrics") or {best.get("name"): best.get("value")}
        numbers = {str(k): v for k, v in metrics.items() if isinstance(v, int | float) and math.isfinite(v)}
        return {name: float(value) for name, value in numbers.items()}

    @property
    def stopped_early(self) -> str:
        """Return "3,000 of 6,000 images" if the run ended before its planned length, else an empty text."""
        early = self.result.get("stopped_early")
        if not isinstance(early, dict):
            return ""
        seen, planned = early.get("images"), early.get("planned_images")
        known = all(isinstance(count, int) for count in (seen, planned))
        return f"{seen:,} of {planned:,} images" if known else "length unknown"

    def number(self, *path: str) -> float | None:
        """Return a finite number of `result.json` by the names that lead to it; None where there is none."""
        value: Any = self.result
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value)

    @property
    def train_size(self) -> int | None:
        """Return the number of training images that this run drew from; None if `result.json` has none."""
        sizes = self.result["data"].get("sizes") or {}
        size = sizes.get("train")
        return None if size is None else int(size)


def named_init(init: str, config: Mapping[str, Any]) -> str:
    """Return "frozen" for pretrained weights that stay fixed, else the init.

    Args:
        init: Where the weights came from.
        config: The settings of the run.
    """
    transfer = config.get("transfer") or {}
    fixed = transfer.get("freeze_through") == "all" and not transfer.get("unfreeze_at")
    return "frozen" if fixed and init == "pretrained" else init


def arm_name(init: str) -> str:
    """Return the name of an arm: its init, or the name of its weights file."""
    return init if init in ("pretrained", "scratch") else Path(init).name or init


def runs_of(records: Iterable[RunRecord], arm: str, fraction: float) -> list[RunRecord]:
    """Return the runs of an arm at a fraction of the training data."""
    return [record for record in records if arm_name(record.init) == arm and record.fraction == fraction]


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """Return the run folders among `folders` and directly inside them, each once, in order.

    Files and folders without a run are skipped where at least one run is among the others (`runs/x/*`).

    Args:
        folders: Run folders, or folders that hold run folders.

    Raises:
        InputError: A folder does not exist, or there is no run at all.
    """
    runs: dict[Path, None] = {}
    skipped: list[str] = []
    for given in (local_path(folder, "a run folder") for folder in folders):
        if not given.is_dir():
            if not given.exists():
                raise InputError(f"{given} does not exist. {HINT}")
            skipped.append(f"{given} is not a folder. {HINT}")
        elif _is_run(given):
            runs.setdefault(given.resolve())
        else:
            inside = runs_inside(given)
            runs |= dict.fromkeys(inside)
            if not inside:
                skipped.append(
                    f"{given} holds no run: expected {RUN_FILES[0]} in it, or in a folder directly inside "
                    "it. Give the folder that was passed as --out."
                )
    if not runs:
        raise InputError(skipped[0] if skipped else f"Expected folders to compare, but got none. {HINT}")
    return list(runs)


def runs_inside(folder: str | Path) -> list[Path]:
    """Return the run folders directly inside a folder, in order; none where it does not exist."""
    parent = Path(folder)
    inside = sorted(parent.iterdir()) if parent.is_dir() else []
    return [child.resolve() for child in inside if child.is_dir() and _is_run(child)]


def read_run(folder: str | Path) -> RunRecord:
    """Read one finished run.

    Args:
        folder: The run's folder.

    Raises:
        RunError: The run is unfinished or damaged; the text says which and how to go on.
    """
    folder = Path(folder)
    path = folder / "result.json"
    if not path.exists():
        error = folder / "error.txt"
        if error.is_file():
            text = " ".join(error.read_text(encoding="utf-8", errors="replace")[:300].split())
            raise RunError(f"failed: {text} Run it again with --resume auto.")
        raise RunError("unfinished: there is no result.json. Run it again with --resume auto.")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"damaged: result.json cannot be read ({error}). Run it again with --resume auto."
        ) from error
    _check_result(result)
    curves, notes = _read_curves(folder / "metrics.csv")
    record = RunRecord(folder, result, curves)
    if record.stopped_early:
        notes.append(f"stopped early, after {record.stopped_early}")
    return replace(record, notes=(*notes, *map(str, result.get("problems") or ())))


def _is_run(folder: Path) -> bool:
    # A comparison folder holds comparison.json and may hold the config that all its runs share.
    if (folder / "comparison.json").exists() and not (folder / "result.json").exists():
        return False
    if (folder / "result.json").exists() or (folder / "metrics.csv").exists():
        return True
    holds_runs = any(
        (child / name).exists() for child in folder.iterdir() if child.is_dir() for name in RUN_FILES
    )
    return not holds_runs and any((folder / name).exists() for name in RUN_FILES)


def _check_result(result: object) -> None:
    if not isinstance(result, dict):
        raise RunError("damaged: result.json holds no table of names and values.")
    if result.get("status", "finished") != "finished":
        raise RunError(f"unfinished: its status is {result['status']!r}. Run it again with --resume auto.")
    missing = [key for key in REQUIRED if key not in result]
    if missing:
        raise RunError(f"damaged: result.json lacks {', '.join(missing)}.")
    monitor = result["monitor"]
    if not (isinstance(monitor, list) and len(monitor) == 2 and monitor[1] in ("max", "min")):
        raise RunError(f'damaged: expected monitor to be [name, "max" or "min"], but got {monitor!r}.')
    for name in ("metrics", "config", "roles", "data"):
        if not isinstance(result[name], dict):
            raise RunError(
                f"damaged: expected {name} of result.json to be a table, but got {result[name]!r}."
            )
    value = result["metrics"].get(monitor[0])
    if not isinstance(value, int | float | None):
        raise RunError(f"damaged: its {monitor[0]} is {value!r}, not a number.")


def _read_curves(path: Path) -> tuple[dict[str, Curve], list[str]]:
    if not path.exists():
        return {}, ["metrics.csv is missing: no learning curve"]
    points: dict[str, dict[int, float]] = {}
    unreadable = 0
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        header = tuple(next(rows, ()))
        if header != HEADER:
            return {}, [f"metrics.csv has the header {','.join(header)!r}: no learning curve"]
        for row in rows:
            parsed = _parse_row(row)
            if parsed is None:
                unreadable += 1
                continue
            name, images, value = parsed
            # A resumed run may log a point twice; the later one counts.
            points.setdefault(name, {})[images] = value
    notes = [f"metrics.csv: {unreadable} unreadable or non-finite rows left out"] if unreadable else []
    return {name: Curve.of(series) for name, series in points.items()}, notes


def _parse_row(row: Sequence[str]) -> tuple[str, int, float] | None:
    if len(row) != len(HEADER):
        return None
    try:
        images, value = int(float(row[2])), float(row[5])
    except (ValueError, OverflowError):
        return None
    return (f"{row[3]}/{row[4]}", images, value) if math.isfinite(value) else None


def repeat_word(records: Sequence[RunRecord]) -> str:
    """Return what the runs of an arm are told apart by: "seed", "fold" or "pair of seed and fold".

    Args:
        records: The runs.
    """
    if all(record.fold is None for record in records):
        return "seed"
    return "fold" if len({record.seed for record in records}) == 1 else "pair of seed and fold"
