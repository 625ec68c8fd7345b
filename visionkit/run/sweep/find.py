"""`--find_lr` and `--find_batch_size`: look once for each arm, and say how to use what was found."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from visionkit.printable import for_terminal
from visionkit.run.config import RunConfig
from visionkit.run.processes.launcher import is_first
from visionkit.run.requests import requests
from visionkit.run.sweep.train_one import train_one

__all__ = ["find_for_arms"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)


def find_for_arms(
    runs: Sequence[tuple[ConfigT, Path]], train: Callable[[ConfigT, Path], dict[str, Any]]
) -> Path:
    """Look in the first run of each arm over its largest fraction; return the folder of the runs.

    All arms are to have the same value: the smallest that was found.

    Args:
        runs: Every run of the command and its folder.
        train: Makes task and data of one run and calls `fit`.
    """
    chosen: dict[tuple[str, object], tuple[ConfigT, Path]] = {}
    for one, folder in sorted(runs, key=lambda run: -run[0].fractions[0]):
        chosen.setdefault((one.init, one.transfer.freeze_through), (one, folder))
    findings = {}
    for one, folder in chosen.values():
        findings[folder] = train_one(train, one, folder)
        _print(f"{folder.name}: {_flags(findings[folder])}, see {folder}")
    if is_first():
        names = list(next(iter(findings.values())))
        shared = {name: min(values[name] for values in findings.values()) for name in names}
        command = shlex.join([*requests().command, *_flags(shared, "--").split()])
        alike = "" if len(findings) == 1 else ", the smallest of the arms for all of them"
        _print(f"\nNothing was trained. To train with it{alike}:\n  {command}")
        if len({values.get("lr") for values in findings.values()}) > 1:
            _print(
                "An arm may have a rate of its own: one command each, with --init and --lr, and\n"
                "  visionkit compare FOLDERS --allow lr equal.schedule"
            )
    return next(iter(findings)).parent


def _flags(values: dict[str, Any], prefix: str = "") -> str:
    return " ".join(f"{prefix}{name} {value}" for name, value in values.items())


def _print(text: str) -> None:
    if is_first():
        print(for_terminal(text), flush=True)  # noqa: T201
