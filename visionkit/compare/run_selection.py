"""Which runs a comparison is of: read in order, none twice, and why each other is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from visionkit.compare.compatibility import unlike
from visionkit.compare.run_record import RunRecord, arm_name, read_run
from visionkit.config import flatten
from visionkit.errors import InputError, RunError

__all__ = ["arms_of", "read_runs", "reason_to_skip", "refuse_repeats", "run_notes", "run_order"]


def read_runs(folders: Iterable[Path]) -> tuple[list[RunRecord], list[dict[str, str]]]:
    """Return the finished runs in their order, and the folder and the reason of each that is left out.

    Args:
        folders: Run folders.
    """
    records, skipped = [], []
    for folder in folders:
        try:
            records.append(read_run(folder))
        except RunError as error:
            skipped.append({"folder": str(folder), "reason": str(error)})
    records.sort(key=run_order)
    return records, skipped


def run_order(record: RunRecord) -> tuple[Any, ...]:
    """Return what tells runs apart, in the order in which they are listed."""
    return record.fraction, record.schedule, record.init, record.draw


def reason_to_skip(records: Sequence[RunRecord], record: RunRecord) -> str:
    """Return why a run cannot be compared with others, or an empty text."""
    for other in records:
        if run_order(other) == run_order(record):
            return f"has the init, seed, fold, fraction and schedule of {other.folder.name}"
        if arm_name(other.init) == arm_name(record.init) and other.init != record.init:
            return f"its weights file has the name of another arm's: {other.init}"
    forbidden, _ = unlike([*records, record])
    return f"another comparison: {forbidden[0]}" if forbidden else ""


def refuse_repeats(records: Sequence[RunRecord]) -> None:
    """Refuse two runs of the same init, seed, fold, fraction and schedule.

    Raises:
        InputError: There are two; names both.
    """
    seen: dict[tuple[Any, ...], RunRecord] = {}
    for record in records:
        other = seen.setdefault(run_order(record), record)
        if other is not record:
            raise InputError(
                f"Two runs have init {record.init}, seed {record.seed}"
                f"{'' if record.fold is None else f', fold {record.fold}'} and fraction {record.fraction:g}: "
                f"{other.folder} and {record.folder}. A seed counts once: leave one of them out, or name the "
                "setting in which they differ on purpose: --by lr."
            )


def arms_of(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the arms of the runs; the order gives each its colour, and the baseline is last.

    Raises:
        InputError: Two weights files have the same name.
    """
    inits = {arm_name(record.init): record.init for record in records}
    if len(inits) < len({record.init for record in records}):
        raise InputError(
            "Two weights files of the same name are two arms: rename one so that they can be distinguished."
        )
    return tuple(sorted(inits, key=lambda arm: (arm == "scratch", arm != "pretrained", arm)))


def run_notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return what was odd in each run, and in which versions and hardware the runs differ: a line each."""
    notes = [f"{record.folder.name}: {note}" for record in records for note in record.notes]
    tables = [flatten(record.result.get("env") or {}) for record in records]
    for name in dict.fromkeys(name for table in tables for name in table):
        values = list(dict.fromkeys(str(table.get(name)) for table in tables))
        if len(values) > 1:
            notes.append(f"environments differ in {name}: {', '.join(values)}")
    return tuple(notes)
