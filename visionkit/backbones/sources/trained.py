"""Where the weights of a trained task are: the best run of a folder, its checkpoint, a published folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from visionkit.errors import DataError, InputError
from visionkit.files import PART, file_digest

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "check_digest",
    "checkpoint_of",
    "choose_run",
    "published_config",
    "trained_file",
]

CONFIG = "config.json"  # the names that huggingface_hub gives them
WEIGHTS = "model.safetensors"
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_MAX_CONFIG = 64 * 2**20


def trained_file(folder: str | Path) -> Path:
    """Return the weights file of a run (its best checkpoint), of the best run of a folder, or published.

    Args:
        folder: A folder.

    Raises:
        InputError: It holds no trained task, several among which none is the best, or a pickle.
    """
    location = Path(folder)
    if (config := published_config(location)) is not None:
        check_digest(location, config)
        return location / WEIGHTS
    run, _ = choose_run(location)
    best = run / "checkpoints" / "best.ckpt"
    return best if best.is_file() else checkpoint_of(run, "last")


def published_config(folder: str | Path) -> dict[str, Any] | None:
    """Return what `config.json` of a published folder says; None for a folder that is none.

    Args:
        folder: A folder.

    Returns:
        "settings" (of the task), and "visionkit" with "task" and "facts".

    Raises:
        InputError: The folder holds a pickle, or no `model.safetensors`.
        DataError: `config.json` is damaged.
    """
    location = Path(folder)
    file = location / CONFIG
    if not file.is_file():
        return None
    config = _read_config(file)
    if "visionkit" not in config:
        raise InputError(
            f"Expected {file} to be of a published task, but it is of another library (no entry 'visionkit')."
            " Folders that `visionkit publish` or task.save_pretrained wrote are loaded; of other models"
            " give the weights file itself as init."
        )
    pickles = sorted(path.name for path in location.iterdir() if path.suffix.lower() in _PICKLES)
    if pickles:
        raise InputError(
            f"{location} holds {', '.join(pickles)}: a pickle, which may run code when it is loaded. A "
            f"published folder has its weights in {WEIGHTS} alone. Remove the pickle if you know it."
        )
    if not (location / WEIGHTS).is_file():
        raise InputError(
            f"Expected {WEIGHTS} beside {file}, but there is none. Copy or download the folder again."
        )
    return config


def check_digest(folder: str | Path, config: dict[str, Any]) -> None:
    """Refuse weights of a published folder that are not those that were written with its settings.

    Args:
        folder: The folder.
        config: What `published_config` returned; folders that say no digest are not checked.

    Raises:
        DataError: `model.safetensors` was altered, or is not complete.
    """
    file, known = Path(folder) / WEIGHTS, config["visionkit"].get("sha256")
    if known and (digest := file_digest(file)) != known:
        raise DataError(
            f"Expected the SHA-256 {str(known)[:16]}..., as {CONFIG} beside it says, but it is "
            f"{digest[:16]}...: the file was altered or is not complete. Download the folder again; if "
            "you altered the weights yourself, remove 'sha256' there.",
            path=file,
        )


def choose_run(folder: str | Path) -> tuple[Path, str]:
    """Return the run of a folder, itself or the best of the runs directly below it, and a note on the choice.

    Args:
        folder: A run's folder, or a folder that holds runs.

    Raises:
        InputError: There is no run with a checkpoint, or none of several is the best.
    """
    location = Path(folder)
    if _has_checkpoint(location):
        return location, ""
    if (location / "config.yaml").is_file() or (location / "checkpoints").is_dir():
        raise InputError(
            f"Expected a checkpoint in {location / 'checkpoints'}, but the run has none yet: it is "
            "unfinished. Start the same command again to continue it."
        )
    runs = sorted(child for child in location.iterdir() if child.is_dir() and _has_checkpoint(child))
    if not runs:
        inside = sorted(child.name for child in location.iterdir() if not child.name.endswith(PART))[:5]
        holds = f"holds {', '.join(inside)}" if inside else "is empty"
        raise InputError(
            f"Expected a run, or a folder of runs, at {location}, but it {holds} and no run has a checkpoint."
            " Give the folder that a recipe wrote (its --out)."
        )
    if len(runs) == 1:
        return runs[0], f"{location} holds one run: {runs[0].name}"
    scored = [(score, run) for run in runs if (score := _score(run)) is not None]
    if not scored:
        raise InputError(
            f"Expected one finished run in {location}, but it holds {len(runs)} unfinished ones: "
            f"{', '.join(run.name for run in runs)}. Give one of them."
        )
    monitors = {(name, mode) for (name, mode, _), _ in scored}
    if len(monitors) > 1:
        raise InputError(
            f"Expected runs with one monitor in {location}, but they have "
            f"{', '.join(sorted(name for name, _ in monitors))}. Give one of them."
        )
    best = max if next(iter(monitors))[1] == "max" else min
    (name, _, value), run = best(scored, key=lambda each: each[0][2])
    return run, f"{run.name}: the best of {len(scored)} finished runs by {name} ({value:.4g})"


def checkpoint_of(run: str | Path, which: str) -> Path:
    """Return the checkpoint of a run.

    Args:
        run: Its folder.
        which: "best" or "last".

    Raises:
        InputError: There is none of this name.
    """
    file = Path(run) / "checkpoints" / f"{which}.ckpt"
    if not file.is_file():
        other = "last" if which == "best" else "best"
        raise InputError(f"Expected {file}, but there is none. Take the {other} one (which={other!r}).")
    return file


def _read_config(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _MAX_CONFIG:
        raise DataError(f"{file.stat().st_size:,} bytes are no settings of a task.", path=file)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"the file is damaged ({type(error).__name__}: {error}).", path=file) from error
    parts = config if isinstance(config, dict) else {}
    ours = parts.get("visionkit", {})
    if not isinstance(config, dict) or not isinstance(ours, dict):
        raise DataError("expected the settings of a task by name.", path=file)
    if "visionkit" in parts and not isinstance(parts.get("settings"), dict):
        raise DataError("expected the task's arguments by name.", path=file, field="settings")
    return config


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
