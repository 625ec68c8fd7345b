"""Load what was trained: a run folder or a checkpoint becomes a task with its facts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.backbones.weights import checkpoint_record
from visionkit.errors import DataError, InputError
from visionkit.predict.export.state_file import read_state
from visionkit.predict.kinds import KINDS
from visionkit.run.storage.checkpoint import load_checkpoint
from visionkit.tasks.hooks import TaskHooks

__all__ = ["Loaded", "load_task"]


@dataclass(frozen=True)
class Loaded:
    """A trained task, ready for evaluation.

    Args:
        task: In evaluation mode, on the CPU.
        facts: Its model facts ("preprocess", "data", "metrics", ...).
        run_folder: The run's folder; None where a checkpoint stands alone.
        checkpoint: The file that it was loaded from.
        note: Says which of several runs was taken; empty where there was no choice.
    """

    task: TaskHooks
    facts: dict[str, Any]
    run_folder: Path | None
    checkpoint: Path
    note: str = ""


def load_task(path: str | Path, *, which: str = "best") -> Loaded:
    """Load the task of a run folder or a checkpoint; no data, recipe or network is needed.

    Args:
        path: A run's folder, a folder that holds runs (the best by their monitor is taken), a checkpoint
            file, or a .safetensors file that `visionkit.predict.export.export` wrote.
        which: "best" (the checkpoint of the best validation) or "last".

    Raises:
        InputError: Nothing is there, no run in it has a checkpoint, or the checkpoint is of no known task.
        DataError: The checkpoint is damaged.
    """
    if which not in ("best", "last"):
        raise InputError(f"Expected which to be best or last, but got {which!r}.")
    location = Path(path)
    if "://" in str(path):
        raise InputError(f"Expected a run on this machine, but got the address {path!s}. Download it first.")
    if not location.exists():
        raise InputError(
            f"Expected a run folder or a checkpoint at {location}, but there is nothing. "
            "Runs are written below --out (runs/RECIPE); give one of those folders."
        )
    if location.suffix == ".safetensors" and location.is_file():
        task, metadata = read_state(location)
        return Loaded(task, metadata, None, location)
    if location.suffix in (".onnx", ".pt2"):
        raise InputError(
            f"Expected a run folder or a checkpoint, but {location} is an exported graph, not a "
            "task. Predict with visionkit.predict.load (.onnx) or torch.export.load (.pt2)."
        )
    run, note = (None, "") if location.is_file() else _choose_run(location)
    file = location if run is None else _checkpoint_of(run, which)
    if run is None and file.parent.name == "checkpoints":
        run = file.parent.parent
    load_checkpoint(file)  # names every damage, before a network is built
    kind = _task_class(file)
    try:
        task = kind.load_from_checkpoint(file)
    except InputError:
        raise
    except (RuntimeError, TypeError, KeyError) as error:
        raise DataError(f"cannot be built again: {type(error).__name__}: {error}", path=file) from error
    task.eval()
    return Loaded(task, dict(task.model_facts), run, file, note)


def _task_class(file: Path) -> type[TaskHooks]:
    from visionkit import tasks

    record = checkpoint_record(file)["visionkit"]
    known: dict[str, type[TaskHooks]] = {kind.task: getattr(tasks, kind.task) for kind in KINDS.values()}
    name = record.get("task")
    if name not in known:
        whose = f"of {name!r}" if name else "of a module that names no task"
        raise InputError(
            f"Expected a checkpoint of one of {', '.join(known)}, but {file} is {whose}. "
            "A module of your own is loaded with its own class."
        )
    return known[str(name)]


def _choose_run(folder: Path) -> tuple[Path, str]:
    """Return the run of a folder: itself, or the best of the runs below it."""
    if _has_checkpoint(folder):
        return folder, ""
    if (folder / "config.yaml").is_file() or (folder / "checkpoints").is_dir():
        raise InputError(
            f"Expected a checkpoint in {folder / 'checkpoints'}, but the run has none yet: it is unfinished. "
            "Start the same command again to continue it."
        )
    runs = sorted(child for child in folder.iterdir() if child.is_dir() and _has_checkpoint(child))
    if not runs:
        inside = sorted(child.name for child in folder.iterdir())[:5]
        holds = f"holds {', '.join(inside)}" if inside else "is empty"
        raise InputError(
            f"Expected a run, or a folder of runs, at {folder}, but it {holds} and no run has a checkpoint. "
            "Give the folder that a recipe wrote (its --out)."
        )
    if len(runs) == 1:
        return runs[0], f"{folder} holds one run: {runs[0].name}"
    scored = [(score, run) for run in runs if (score := _score(run)) is not None]
    if not scored:
        raise InputError(
            f"Expected one finished run in {folder}, but it holds {len(runs)} unfinished ones: "
            f"{', '.join(run.name for run in runs)}. Give one of them."
        )
    monitors = {(name, mode) for (name, mode, _), _ in scored}
    if len(monitors) > 1:
        raise InputError(
            f"Expected runs with one monitor in {folder}, but they have "
            f"{', '.join(sorted(name for name, _ in monitors))}. Give one of them."
        )
    best = max if next(iter(monitors))[1] == "max" else min
    (name, _, value), run = best(scored, key=lambda each: each[0][2])
    return run, f"{run.name}: the best of {len(scored)} finished runs by {name} ({value:.4g})"


def _score(run: Path) -> tuple[str, str, float] | None:
    """Return the name, direction and best value of a finished run's monitor."""
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        name, mode = result["monitor"]
        return str(name), str(mode), float(result["best"]["value"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints" / f"{name}.ckpt").is_file() for name in ("best", "last"))


def _checkpoint_of(run: Path, which: str) -> Path:
    file = run / "checkpoints" / f"{which}.ckpt"
    if not file.is_file():
        other = "last" if which == "best" else "best"
        raise InputError(f"Expected {file}, but there is none. Take the {other} one (which={other!r}).")
    return file
