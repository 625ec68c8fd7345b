"""Runs that differ on purpose in a setting, such as the learning rate, as one table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionkit.compare.compatibility import BY_RECORD, unlike
from visionkit.compare.run_record import RunRecord, arm_name, find_runs
from visionkit.compare.run_selection import read_runs
from visionkit.compare.sentences.number_text import format_statistics, percent
from visionkit.compare.statistics import SeedStatistics, seed_statistics
from visionkit.config import flatten
from visionkit.errors import InputError, unknown_name
from visionkit.files import write_text, writing
from visionkit.printable import printable

__all__ = ["SettingRow", "SettingTable", "compare_by"]

Key = tuple[tuple[str, ...], str, float, int]


@dataclass(frozen=True)
class SettingRow:
    """The runs of one arm with the same values of the settings.

    Args:
        values: The values of the settings, as text.
        arm: The arm.
        fraction: Fraction of the training data.
        schedule: How many times the base length the runs trained.
        runs: How many runs, over seeds and folds.
        best: The monitored score of the best validation; None where nothing was scored.
        last: That of the last validation.
        test: The same metric on the test split, if there is one.
        images: Images seen.
        stopped_early: How many of the runs ended before their planned length.
    """

    values: tuple[str, ...]
    arm: str
    fraction: float
    schedule: int
    runs: int
    best: SeedStatistics | None
    last: SeedStatistics | None
    test: SeedStatistics | None
    images: SeedStatistics
    stopped_early: int


@dataclass(frozen=True)
class SettingTable:
    """A table of runs by settings.

    Args:
        by: The settings.
        monitor: The metric that decides.
        mode: Whether "max" or "min" of it is better.
        rows: The best validation score first.
        notes: What else differed, and what was left out.
    """

    by: tuple[str, ...]
    monitor: str
    mode: str
    rows: tuple[SettingRow, ...]
    notes: tuple[str, ...]

    def cells(self) -> list[list[str]]:
        """Return the table as text: a header, then a line a row."""
        test = f"test/{self.monitor.partition('/')[2]} (best)"
        scores = [f"{self.monitor} (best)", f"{self.monitor} (last)", test]
        lines = [[*self.by, "arm", "data", "schedule", "runs", *scores, "images", "stopped early"]]
        for row in self.rows:
            values = [format_statistics(value) for value in (row.best, row.last, row.test)]
            values += [format_statistics(row.images, 0), str(row.stopped_early or "")]
            lines.append(
                [*row.values, row.arm, percent(row.fraction), f"{row.schedule}x", str(row.runs), *values]
            )
        return lines

    def text(self, *, width: int = 140) -> str:
        """Return the table for a terminal."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        header, *lines = self.cells()
        table = Table(box=box.SIMPLE)
        for index, name in enumerate(header):
            table.add_column(Text(name), justify="left" if index <= len(self.by) else "right")
        for line in lines:
            table.add_row(*map(Text, line))
        out = io.StringIO()
        console = Console(file=out, width=width, highlight=False, emoji=False)
        console.print(table)
        for note in ("mean ± sample sd over seeds and folds; the best validation first", *self.notes):
            console.print(Text(note))
        return printable(out.getvalue())

    def write(self, folder: Path) -> Path:
        """Write `by.csv` and `by.md`; return the latter.

        Args:
            folder: Where they go; made if it is not there.

        Raises:
            RunError: They cannot be written.
        """
        header, *lines = self.cells()
        table, path = io.StringIO(newline=""), folder / "by.md"
        csv.writer(table).writerows([header, *lines])
        rows = [header, ["---"] * len(header), *lines]
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "by.csv", table.getvalue())
            write_text(path, "".join(f"| {' | '.join(row)} |\n" for row in rows))
        return path


def compare_by(
    folders: Iterable[str | Path], by: Sequence[str], *, allow: Iterable[str] = ()
) -> SettingTable:
    """Return a table of finished runs that differ in the settings `by`, and in what tells runs apart anyway.

    What follows from a setting (the schedule from its rate, the order from its batch) may differ with it, and
    is noted.

    Args:
        folders: Run folders, or folders that hold run folders.
        by: Dotted names of settings ("lr", "optim.weight_decay").
        allow: Dotted names of what else may differ.

    Raises:
        InputError: There is no finished run, no such setting, or runs differ in more than they may.
    """
    records, skipped = read_runs(find_runs(folders))
    if not records:
        raise InputError(f"No finished run to compare: {skipped[0]['folder']}: {skipped[0]['reason']}")
    _check_names(records, by)
    forbidden, allowed = unlike(records, allow=[*by, *allow])
    follows = [text for text in forbidden if text.startswith(("equal.", "images_seen"))]
    rest = [text for text in forbidden if text not in follows]
    if rest:
        names, lines = " ".join(text.split(":")[0] for text in rest), "\n".join(f"  {text}" for text in rest)
        raise InputError(
            f"These runs differ in more than {', '.join(by)}:\n{lines}\nAdd it to the table, --by "
            f"{' '.join(by)} {names}, or name what may differ, --allow {names}"
        )
    monitor, mode = records[0].monitor
    groups, notes = _groups(records, by)
    rows = [_row(key, runs, monitor) for key, runs in groups.items()]
    sign = -1 if mode == "max" else 1
    rows.sort(key=lambda row: (row.best is None, sign * row.best.mean if row.best else 0.0))
    notes += [text for runs in groups.values() if (text := _unscored(runs, monitor))]
    notes += [f"follows from it: {text}" for text in follows]
    notes += [f"not held equal: {text}" for text in allowed if text.split(":")[0] not in by]
    notes += [f"left out: {item['folder']}: {item['reason']}" for item in skipped]
    return SettingTable(tuple(by), monitor, mode, tuple(rows), tuple(notes))


def _check_names(records: Sequence[RunRecord], by: Sequence[str]) -> None:
    known = list(dict.fromkeys(name for record in records for name in flatten(record.result["config"])))
    for name in by:
        if name not in known:
            raise unknown_name("setting", name, known, hint="It is in --by.")
        if name in BY_RECORD - {"data"}:
            raise InputError(f"--by {name}: runs are told apart by it anyway. Name a setting such as lr.")


def _groups(records: Sequence[RunRecord], by: Sequence[str]) -> tuple[dict[Key, list[RunRecord]], list[str]]:
    groups: dict[Key, list[RunRecord]] = {}
    notes = []
    for record in records:
        settings = flatten(record.result["config"])
        values = tuple(json.dumps(settings.get(name)) for name in by)  # exact: shown digits may be the same
        group = groups.setdefault((values, arm_name(record.init), record.fraction, record.schedule), [])
        twin = next((other for other in group if other.draw == record.draw), None)
        if twin is None:
            group.append(record)
        else:
            notes.append(f"left out: {record.folder}: has the settings and the seed of {twin.folder.name}")
    return groups, notes


def _unscored(runs: Sequence[RunRecord], monitor: str) -> str:
    """Return which runs of a row its means leave out, as nothing was scored in them; empty if none."""
    missing = [run.folder.name for run in runs if run.unscored or run.best.get(monitor) is None]
    return f"without a score, and left out of means: {', '.join(missing)}" if missing else ""


def _row(key: Key, runs: Sequence[RunRecord], monitor: str) -> SettingRow:
    test = f"test/{monitor.partition('/')[2]}"
    values, arm, fraction, schedule = key
    return SettingRow(
        tuple(_text(json.loads(value)) for value in values),
        arm,
        fraction,
        schedule,
        runs=len(runs),
        best=_statistics([run.best.get(monitor) for run in runs]),
        last=_statistics([None if run.unscored else run.score for run in runs]),
        test=_statistics([run.result["metrics"].get(test) for run in runs]),
        images=seed_statistics([float(run.result["images_seen"]) for run in runs]),
        stopped_early=sum(bool(run.stopped_early) for run in runs),
    )


def _statistics(values: Sequence[float | None]) -> SeedStatistics | None:
    known = [float(value) for value in values if value is not None]
    return seed_statistics(known) if known else None


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
