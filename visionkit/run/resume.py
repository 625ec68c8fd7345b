"""Whether the run in a folder may be continued with the settings that are asked for now. No torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

from visionkit.config import flatten, roles
from visionkit.errors import InputError
from visionkit.run.config import RunConfig, to_dict
from visionkit.run.requests import requests

__all__ = ["check_resume", "fixed_settings", "machine_changes", "new_run_hint"]


def fixed_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a run keeps to its end, by dotted names: "identity" and "arm"."""
    table = roles(config)
    return {n: v for n, v in flatten(to_dict(config)).items() if table.get(n) not in ("machine", "free")}


def check_resume(config: RunConfig, folder: Path) -> None:
    """Refuse to continue a run with other settings than those that its folder was started with.

    Args:
        config: The settings asked for now.
        folder: The run's folder; without a `config.yaml` in it nothing is compared.

    Raises:
        InputError: A setting of the role "identity" or "arm" changed; names it, both values and how to go on.
    """
    fixed = fixed_settings(config)
    rows = [text for name, text in _changes(config, folder).items() if name in fixed]
    if not rows:
        return
    listed = "; ".join(rows[:4]) + (f" and {len(rows) - 4} more" if len(rows) > 4 else "")
    raise InputError(
        f"{folder} holds a run with other settings: {listed}. Nothing is overwritten: give the settings it "
        f"was started with, or another --out. {new_run_hint(folder, config)}".rstrip()
    )


def machine_changes(config: RunConfig, folder: Path) -> str:
    """Return a sentence on the settings of the role "machine" that differ from the folder's, or ""."""
    table = roles(config)
    rows = [text for name, text in _changes(config, folder).items() if table[name] == "machine"]
    return f"{folder.name} goes on with other machine settings: {'; '.join(rows)}." if rows else ""


def new_run_hint(folder: Path, config: RunConfig | None = None) -> str:
    """Return how a new run begins from the weights of the run in `folder`, with other settings.

    Args:
        folder: The run's folder.
        config: What is asked for now: where that is a longer training, the command line of the rest is given.
    """
    best = next(
        (path for name in ("best", "last") if (path := folder / f"checkpoints/{name}.ckpt").exists()), None
    )
    if best is None:
        return ""
    rest = {} if config is None else _rest(config, folder)
    if config is not None and rest and requests().command:
        flags = ["--init", str(best), "--seeds", str(config.seeds[0]), "--out", f"{config.out}-longer"]
        flags += [word for name, count in rest.items() for word in (f"--{name}", str(count))]
        return (
            "Its learning rate has ended, so that more training is a new run from its weights, with a "
            f"schedule of its own:\n  {shlex.join([*requests().command, *flags])}"
        )
    return f"To go on from its weights as a new run: --init {shlex.quote(str(best))} --out OTHER_FOLDER."


def _rest(config: RunConfig, folder: Path) -> dict[str, int]:
    """Return by how many epochs or images the training asked for is longer; empty where it is not."""
    path = folder / "config.yaml"
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    now = to_dict(config)
    more = {name: now[name] - before.get(name, now[name]) for name in ("epochs", "images")}
    return {name: count for name, count in more.items() if count > 0}


def _changes(config: RunConfig, folder: Path) -> dict[str, str]:
    """Return what differs from the settings in a run's folder: a text for each name, with both values."""
    path = folder / "config.yaml"
    if not path.exists():
        return {}
    # A setting that the folder's version did not have was as its default is.
    before = flatten(to_dict(type(config)())) | flatten(
        yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    )
    now = flatten(to_dict(config))
    return {
        name: f"--{name} was {before.get(name)!s}, is {value!s}"
        for name, value in now.items()
        if before.get(name) != value
    }
