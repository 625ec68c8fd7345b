"""One run as its folder shows it now: state, progress, speed, curves, and the images that it has written."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from visionkit.compare.run_record import find_runs
from visionkit.errors import InputError
from visionkit.printable import printable, printable_values
from visionkit.run.feedback.pace import Pace
from visionkit.run.storage.lock import FILE as LOCK
from visionkit.run.storage.lock import is_held
from visionkit.run.storage.result import read_result
from visionkit.watch.metrics_file import MetricsFile

__all__ = ["RunFolder", "all_runs"]

_RUN_NAME = re.compile(
    r"-f[0-9.e-]+(-x[0-9]+)?(-lr[0-9.e-]+)?-s[0-9]+(-k[0-9]+)?$"
)  # after the init, as `run_name` has it
_MAX_TEXT = 2**20  # bytes of a settings file that is read
_WINDOW = 180.0  # seconds over which the speed is measured
_MAX_SAMPLES = 32  # predictions shown


def all_runs(folders: Sequence[Path]) -> list[Path]:
    """Return the run folders among `folders`, in them, and in the folders in them; also those that wait.

    Args:
        folders: Run folders, or folders that hold runs, or will.
    """
    listed: dict[Path, None] = {}
    for folder in folders:
        inside = _runs_of(folder)
        if not inside:
            children = sorted(child for child in _children(folder) if child.is_dir())
            inside = [run for child in children for run in _runs_of(child)]
        listed |= dict.fromkeys(inside)
    return list(listed)


def _runs_of(folder: Path) -> list[Path]:
    try:
        runs = find_runs([folder])
    except (InputError, OSError):
        runs = []
    # A run that its command has not begun holds a lock and nothing else.
    waiting = [child.resolve() for child in (folder, *_children(folder)) if (child / LOCK).is_file()]
    return sorted({*runs, *waiting})


def _children(folder: Path) -> list[Path]:
    try:
        return [child for child in folder.iterdir() if child.is_dir()]
    except OSError:
        return []


class RunFolder:
    """Reads a run's folder, again and again; nothing in it is written.

    Args:
        folder: The run's folder.

    Attributes:
        key: Names the run in addresses.
        metrics: Its `metrics.csv`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:12]
        self.metrics = MetricsFile(folder / "metrics.csv")
        self._pace = Pace(window=_WINDOW)

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint of the run."""
        return self.folder / "checkpoints" / "last.ckpt"

    def describe(self) -> dict[str, Any]:
        """Read the folder and return what the page shows of the run, without its curves."""
        if self.metrics.update():
            self._pace.add(self.metrics.images, self.metrics.path.stat().st_mtime)
        result = read_result(self.folder) or {}
        config, plan = _settings(self.folder / "config.yaml"), _settings(self.folder / "plan.json")
        state, why = self._state(result)
        planned = plan.get("images")
        early = result.get("stopped_early")
        if isinstance(early, dict):
            planned = early.get("planned_images")
        planned, images = _number(planned), _number(result.get("images_seen", self.metrics.images)) or 0
        running = state == "running"
        speed = _number(result.get("images_per_second")) if result else self._pace.rate if running else None
        shown = {
            "key": self.key,
            "name": self.folder.name,
            "folder": str(self.folder),
            "state": state,
            "why": why,
            "init": str(config.get("init") or _RUN_NAME.sub("", self.folder.name)),
            "seed": _first(config.get("seeds")),
            "fraction": _first(config.get("fractions")),
            "backbone": str(config.get("backbone", "")),
            "data": str(config.get("data", "")),
            "images": images,
            "planned": planned,
            "epoch": self.metrics.epoch,
            "speed": speed,
            "left": self._pace.left(planned) if running else None,
            "monitor": plan.get("monitor") or result.get("monitor"),
            "unreadable": self.metrics.unreadable,
            "figures": self._figures(),
            "samples": _version(self.folder / "predictions" / "val.jsonl"),
        }
        return dict(printable_values(shown))

    def curves(self, generation: int, count: int) -> dict[str, Any]:
        """Return the rows that a browser does not have yet.

        Args:
            generation: The generation of the file that it has rows of.
            count: How many it has.
        """
        begin = count if generation == self.metrics.generation and count >= 0 else 0
        rows = self.metrics.rows[begin:]
        names = sorted({name for name, _, _ in rows})
        index = {name: number for number, name in enumerate(names)}
        return {
            "generation": self.metrics.generation,
            "begin": begin,
            "names": [printable(name) for name in names],
            "rows": [[index[name], images, value] for name, images, value in rows],
        }

    def predictions(self) -> list[dict[str, Any]]:
        """Return the predictions whose images the run has written, worst first; none before it has."""
        rows: list[dict[str, Any]] = []
        try:
            with (self.folder / "predictions" / "val.jsonl").open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    if '"image": null' in line:
                        continue
                    row = _json(line)
                    if isinstance(row.get("image"), str):
                        names = (
                            "id",
                            "image",
                            "truth",
                            "prediction",
                            "confidence",
                            "loss",
                            "right",
                        )
                        rows.append({name: row.get(name) for name in names})
                    if len(rows) == _MAX_SAMPLES:
                        break
        except OSError:
            return []
        return rows

    def _state(self, result: dict[str, Any]) -> tuple[str, str]:
        """Return the state in one word, and why, where there is a reason."""
        if result:
            early = result.get("stopped_early")
            problems = "; ".join(map(str, result.get("problems") or ()))
            return ("stopped early" if early else "finished"), problems
        error = self.folder / "error.txt"
        if error.is_file():
            return "failed", _text(error)[:2000].strip()
        begun = (self.folder / "config.yaml").is_file()
        if is_held(self.folder):
            return ("running" if begun else "waiting"), ""
        if begun:
            return "stopped", "No process trains here. The command that began it continues it (cmd.txt)."
        return "waiting", ""

    def _figures(self) -> dict[str, int]:
        """Return the images that the run has written, by name, with a number that changes with them."""
        names = ["figures/train-batch.png", "figures/val-worst.png", "figures/val-random.png"]
        names += [f"figures/watch/{number}.png" for number in range(8)]
        return {name: version for name in names if (version := _version(self.folder / name))}


def _version(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns // 1_000_000
    except OSError:
        return 0


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_TEXT)
    except OSError:
        return ""


def _settings(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(_text(path))  # JSON is YAML
    except (yaml.YAMLError, ValueError, RecursionError):  # being written, or somebody else's
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _first(values: Any) -> float | None:
    return _number(values[0]) if isinstance(values, list) and values else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) else None


def _json(line: str) -> dict[str, Any]:
    try:
        loaded = json.loads(line)
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
