"""Load what was trained: a run folder, a checkpoint or a published folder becomes a task with its facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.backbones.weights import checkpoint_record
from visionkit.errors import DataError, InputError
from visionkit.files import local_path
from visionkit.predict.export.state_file import read_state
from visionkit.predict.kinds import KINDS
from visionkit.predict.trained_files import SUFFIXES, find_trained
from visionkit.run.storage.checkpoint import load_checkpoint
from visionkit.tasks.hooks import TaskHooks

__all__ = ["Loaded", "load_task"]


@dataclass(frozen=True)
class Loaded:
    """A trained task, ready for evaluation.

    Args:
        task: In evaluation mode, on the CPU.
        facts: Its model facts ("preprocess", "data", "metrics", ...).
        run_folder: The run's folder; None where a checkpoint or a published folder is alone.
        checkpoint: The file that it was loaded from.
        note: Says which of several runs was taken; empty where there was no choice.
    """

    task: TaskHooks
    facts: dict[str, Any]
    run_folder: Path | None
    checkpoint: Path
    note: str = ""


def load_task(path: str | Path, *, which: str = "best") -> Loaded:
    """Load the task of a run, a checkpoint or a published folder; no data, recipe or network is needed.

    Args:
        path: A run's folder, a folder that holds runs (the best by their monitor is taken), a checkpoint
            file, a folder that `visionkit publish` or `task.save_pretrained` wrote, or a .safetensors file
            that `visionkit.predict.export.export` wrote.
        which: "best" (the checkpoint of the best validation) or "last".

    Raises:
        InputError: Nothing is there, no run in it has a checkpoint, the checkpoint is of no known task, or a
            published folder holds a pickle.
        DataError: The file is damaged.
    """
    if which not in ("best", "last"):
        raise InputError(f"Expected which to be best or last, but got {which!r}.")
    location = local_path(path, "a run")
    if not location.exists():
        raise InputError(
            f"Expected a run folder, a checkpoint or a published folder at {location}, but there is nothing. "
            "Runs are written below --out (runs/RECIPE); give one of those folders."
        )
    form, file, run, note = find_trained(location, which=which)
    if form == "published":
        return _read_published(file)
    return _read_exported(file) if form == "exported" else _read_file(file, run, note)


def _read_published(file: Path) -> Loaded:
    task = _task_class(file).from_pretrained(file.parent)
    return Loaded(task, dict(task.model_facts), None, file)


def _read_exported(location: Path) -> Loaded:
    if location.suffix == SUFFIXES["safetensors"]:
        task, metadata = read_state(location)
        return Loaded(task, metadata, None, location)
    raise InputError(
        f"Expected a run folder or a checkpoint, but {location} is an exported graph, not a "
        "task. Predict with visionkit.predict.load (.onnx) or torch.export.load (.pt2)."
    )


def _read_file(file: Path, run: Path | None, note: str) -> Loaded:
    load_checkpoint(file)  # names every damage, before a network is built
    kind = _task_class(file)
    try:
        task = kind.load_from_checkpoint(file)
    except InputError:
        raise
    except (RuntimeError, TypeError, KeyError, ValueError, AttributeError) as error:
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
