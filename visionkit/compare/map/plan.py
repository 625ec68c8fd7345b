"""What a transfer map is to hold: `map_cells.json`, written before the first run and read by the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visionkit.errors import InputError
from visionkit.files import to_plain, write_text

__all__ = ["PLAN_FILE", "PlannedCell", "PlannedRun", "read_plan", "write_plan"]

PLAN_FILE = "map_cells.json"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a cell.

    Args:
        arm: Its arm: "pretrained", "scratch", "frozen" or the name of a weights file.
        fraction: Fraction of the training data.
        schedule: How many times the base length it trains.
        seed: Its seed.
        fold: Its fold; None without cross-validation.
    """

    arm: str
    fraction: float
    schedule: int
    seed: int
    fold: int | None = None


@dataclass(frozen=True)
class PlannedCell:
    """One backbone on one data set: an ordinary comparison in a folder of its own.

    Args:
        backbone: Its name.
        data: The name of the data set in the map.
        recipe: The recipe that trains it.
        folder: The folder of the comparison, below that of the map.
        runs: Every run.
    """

    backbone: str
    data: str
    recipe: str
    folder: str
    runs: tuple[PlannedRun, ...]


def write_plan(cells: Sequence[PlannedCell], folder: str | Path) -> None:
    """Write what a map is to hold.

    Args:
        cells: Its cells.
        folder: The folder of the map; made if it is not there.
    """
    path = Path(folder) / PLAN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"schema": 1, "cells": to_plain(list(cells))}, indent=1) + "\n")


def read_plan(folder: str | Path) -> list[PlannedCell]:
    """Return what a map is to hold.

    Args:
        folder: The folder of the map.

    Raises:
        InputError: There is no map in the folder, or its file is damaged.
    """
    path = Path(folder) / PLAN_FILE
    if not path.is_file():
        raise InputError(
            f"Expected a transfer map in {folder}, but it has no {PLAN_FILE}. Give the folder that "
            "`visionkit map` writes to."
        )
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return [
            PlannedCell(**{**cell, "runs": tuple(PlannedRun(**run) for run in cell["runs"])})
            for cell in table["cells"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged ({error}). Start the same `visionkit map` again: it is written anew."
        ) from error
