"""Compare finished runs: the scores of each arm over seeds, and its differences to the baseline."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.compare.budget_record import budget_lines, read_budget
from visionkit.compare.compatibility import require_alike
from visionkit.compare.curves import Curve, ImagesToReach, images_to_reach, mean_curve, mean_lead
from visionkit.compare.evidence import Evidence, evidence_of_pairs
from visionkit.compare.low_data import LowData, low_data
from visionkit.compare.rate_choice import RateChoice, drop_superseded, read_choices
from visionkit.compare.run_record import RunRecord, arm_name, find_runs
from visionkit.compare.run_selection import (
    arms_of,
    read_runs,
    reason_to_skip,
    refuse_repeats,
    run_notes,
    run_order,
)
from visionkit.compare.schedules import OverSchedules, compare_schedules
from visionkit.compare.statistics import Difference, SeedStatistics, difference, seed_statistics
from visionkit.errors import InputError
from visionkit.files import finite, to_plain
from visionkit.notices import Notice
from visionkit.printable import printable_values

__all__ = ["ArmDifference", "Cell", "Comparison", "arm_name", "compare", "read_runs"]


@dataclass(frozen=True)
class Cell:
    """One arm at one fraction of the training data and one schedule, over its seeds.

    Args:
        arm: "pretrained", "scratch" or the name of a weights file.
        fraction: Fraction of the training data, in (0, 1].
        schedule: How many times the base length its runs trained.
        train_size: Training images; None if the runs have no record of it.
        seeds: The seed of each run, ascending.
        folds: The fold of each run, in the same order; None without cross-validation.
        metrics: Every final metric over seeds: of the validation split with the last weights, of the test
            split with the weights of the best validation.
        best: Every validation metric of the best weights; empty if the runs have no record of it.
        curve: The mean learning curve of the monitored metric.
        runs: The learning curve of each seed, in the order of `seeds`.
        seconds: Seconds of training.
        images_per_second: Training throughput.
        peak_memory_mb: Peak memory, MB.
    """

    arm: str
    fraction: float
    schedule: int
    train_size: int | None
    seeds: tuple[int, ...]
    folds: tuple[int | None, ...]
    metrics: dict[str, SeedStatistics]
    best: dict[str, SeedStatistics]
    curve: Curve
    runs: tuple[Curve, ...]
    seconds: SeedStatistics | None
    images_per_second: SeedStatistics | None
    peak_memory_mb: SeedStatistics | None


@dataclass(frozen=True)
class ArmDifference:
    """The difference of an arm to the baseline at one fraction of the training data.

    Args:
        arm: The arm.
        baseline: The arm it is compared with.
        fraction: Fraction of the training data.
        schedule: How many times the base length both trained.
        metrics: Arm minus baseline, for every metric that both have.
        best: The same for the validation metrics of the best weights.
        arm_reaches: When the arm's mean curve reached the baseline's final score.
        baseline_reaches: When the baseline's mean curve reached the arm's final score.
        lead: Area between the mean curves divided by its width (arm minus baseline).
    """

    arm: str
    baseline: str
    fraction: float
    schedule: int
    metrics: dict[str, Difference]
    best: dict[str, Difference]
    arm_reaches: ImagesToReach
    baseline_reaches: ImagesToReach
    lead: float | None


@dataclass(frozen=True)
class Comparison:
    """Finished runs, compared.

    Args:
        task: The task of all runs.
        data: Name, sizes, classes, facts and fingerprint of the data.
        monitor: The metric that decides.
        mode: Whether "max" or "min" of it is better.
        arms: The arms; the baseline is the last one.
        fractions: Fractions of the training data, ascending.
        schedules: Lengths of the runs as multiples of the base length, ascending.
        cells: One for each arm, fraction and schedule that has runs.
        contrasts: The difference of every other arm to the baseline, for each fraction and schedule that both
            have.
        evidence: How sure the difference of each pair of arms is, by seeds and by images, for the monitored
            score and that of the test split.
        low_data: The fraction of the data with which each arm matches the baseline, at the longest schedule;
            empty with one fraction.
        over_schedules: Each other arm and the baseline over schedules, for each fraction.
        rates: The learning rates that each arm tried on validation, and the best; empty without `lrs`.
        budget: What was chosen and left out within a time; empty without one.
        equal: What was held equal, as the runs recorded it.
        allowed: Differences in other settings than init, seed and fraction that were allowed by name.
        skipped: Folders that were left out, each with its reason.
        notes: Remarks on runs that were used (stopped early, rows of metrics.csv left out).
        records: The runs.
    """

    task: str
    data: dict[str, Any]
    monitor: str
    mode: str
    arms: tuple[str, ...]
    fractions: tuple[float, ...]
    schedules: tuple[int, ...]
    cells: tuple[Cell, ...]
    contrasts: tuple[ArmDifference, ...]
    evidence: tuple[Evidence, ...]
    low_data: tuple[LowData, ...]
    over_schedules: tuple[OverSchedules, ...]
    rates: tuple[RateChoice, ...]
    budget: dict[str, Any]
    equal: dict[str, Any]
    allowed: tuple[str, ...]
    skipped: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    records: tuple[RunRecord, ...]

    @property
    def longest(self) -> int:
        """Return the longest schedule that both an arm and the baseline have; the longest if none."""
        return max((c.schedule for c in self.contrasts), default=self.schedules[-1])

    def at(self, schedule: int) -> Comparison:
        """Return the part of one schedule: its runs, cells and differences."""
        if self.schedules == (schedule,):
            return self
        cells = tuple(c for c in self.cells if c.schedule == schedule)
        return dataclasses.replace(
            self,
            arms=tuple(arm for arm in self.arms if any(c.arm == arm for c in cells)),
            fractions=tuple(f for f in self.fractions if any(c.fraction == f for c in cells)),
            schedules=(schedule,),
            cells=cells,
            contrasts=tuple(c for c in self.contrasts if c.schedule == schedule),
            evidence=tuple(e for e in self.evidence if e.schedule == schedule),
            low_data=self.low_data if schedule == self.longest else (),
            records=tuple(r for r in self.records if r.schedule == schedule),
        )

    def cell(self, arm: str, fraction: float) -> Cell | None:
        """Return the cell of an arm at a fraction, or None where nothing was run."""
        return next((c for c in self.cells if c.arm == arm and c.fraction == fraction), None)

    def contrast(self, arm: str, fraction: float) -> ArmDifference | None:
        """Return the difference of an arm to the baseline at a fraction, or None."""
        return next((c for c in self.contrasts if c.arm == arm and c.fraction == fraction), None)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain names, numbers and lists: the content of `comparison.json`."""
        table = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "records"}
        plain = {"schema": 1} | to_plain(table)
        plain["runs"] = [
            {
                "folder": str(record.folder),
                "arm": arm_name(record.init),
                "init": record.init,
                "seed": record.seed,
                "fold": record.fold,
                "fraction": record.fraction,
                "schedule": record.schedule,
                "metrics": record.result["metrics"],
                "best": record.best,
                "images_seen": record.result["images_seen"],
                "stopped_early": record.result.get("stopped_early"),
            }
            for record in self.records
        ]
        content: dict[str, Any] = printable_values(to_plain(plain, finite))
        return content

    def weights_of(self, split: str) -> str:
        """Return which weights the final metrics of a split ("val", "test") are of: "last" or "best"."""
        default = {"val": "last", "test": "best"}
        weights = {(r.result.get("metrics_of") or default).get(split, "last") for r in self.records}
        return " or ".join(sorted(weights))

    def notices(self) -> list[str]:
        """Return what the data's reader left out, changed or assumed: a line each."""
        return [" ".join(str(Notice(**item)).split()) for item in self.data.get("notices") or ()]


def compare(
    folders: Iterable[str | Path],
    *,
    allow: Iterable[str] = (),
    others: Iterable[str | Path] = (),
    margin: float | None = None,
) -> Comparison:
    """Compare finished runs that differ in init, seed, fold, fraction and schedule alone.

    Args:
        folders: Run folders, or folders that hold run folders.
        allow: Dotted names of what else may differ ("lr"); recorded in the comparison.
        others: Run folders that are added if they can be compared with the first, else listed as skipped.
        margin: How far apart scores may be and still count as equal, above 0; as the runs say if not given.

    Raises:
        InputError: A folder holds no run, no run is usable, runs differ in more than they may, or `margin`.
    """
    if isinstance(folders, str | Path):
        folders = [folders]
    records, skipped = read_runs(find_runs(folders))
    parents = dict.fromkeys(record.folder.parent for record in records)
    rates = tuple(choice for parent in parents for choice in read_choices(parent))
    records, dropped = drop_superseded(records, rates)
    skipped += dropped
    if not records:
        named = "\n".join(f"  {item['folder']}: {item['reason']}" for item in skipped)
        raise InputError(f"No finished run to compare.\n{named}")
    refuse_repeats(records)
    allowed = require_alike(records, allow=allow)
    more, unread = read_runs(sorted({Path(path).resolve() for path in others} - {r.folder for r in records}))
    known = {item["folder"] for item in skipped}
    skipped += [item for item in unread if item["folder"] not in known]
    for record in more:
        reason = reason_to_skip(records, record)
        if reason:
            skipped.append({"folder": str(record.folder), "reason": reason})
        else:
            records.append(record)
    if any(not record.unscored for record in records):
        skipped += [{"folder": str(r.folder), "reason": r.unscored} for r in records if r.unscored]
        records = [record for record in records if not record.unscored]
    records.sort(key=run_order)
    return _build(records, rates, allowed, skipped, margin)


def _build(
    records: list[RunRecord],
    rates: tuple[RateChoice, ...],
    allowed: list[str],
    skipped: list[dict[str, str]],
    margin: float | None,
) -> Comparison:
    arms = arms_of(records)
    fractions = tuple(sorted({record.fraction for record in records}))
    schedules = tuple(sorted({record.schedule for record in records}))
    monitor, mode = records[0].monitor
    runs = {
        key: chosen
        for key in itertools.product(arms, fractions, schedules)
        if (chosen := _runs_of(records, *key))
    }
    cells = {key: _cell(chosen, monitor) for key, chosen in runs.items()}
    baseline = arms[-1]
    scored = {key for key, cell in cells.items() if monitor in cell.metrics}
    contrasts = tuple(
        _arm_difference(cells[arm, *key], cells[baseline, *key], records, monitor, mode)
        for key in itertools.product(fractions, schedules)
        for arm in arms[:-1]
        if {(arm, *key), (baseline, *key)} <= scored
    )
    largest, budget = records[-1].result, read_budget(records[-1].folder.parent)
    longest = max((c.schedule for c in contrasts), default=schedules[-1])
    at_longest = {(arm, f): cell for (arm, f, schedule), cell in cells.items() if schedule == longest}
    return Comparison(
        task=str(largest["task"]),
        data=dict(largest["data"]),
        monitor=monitor,
        mode=mode,
        arms=arms,
        fractions=fractions,
        schedules=schedules,
        cells=tuple(sorted(cells.values(), key=lambda c: (c.fraction, c.schedule))),
        contrasts=contrasts,
        evidence=evidence_of_pairs(runs, (monitor, f"test/{monitor.partition('/')[2]}")),
        low_data=_low_data(
            arms, fractions, at_longest, [c for c in contrasts if c.schedule == longest], monitor, mode
        ),
        over_schedules=compare_schedules(records, arms, fractions, margin),
        rates=rates,
        budget=budget,
        equal=dict(largest.get("equal") or {}),
        allowed=tuple(allowed),
        skipped=tuple(skipped),
        notes=(
            *run_notes(records),
            *budget_lines(budget),
            *(choice.warning for choice in rates if choice.warning),
        ),
        records=tuple(records),
    )


def _runs_of(records: Sequence[RunRecord], arm: str, fraction: float, schedule: int) -> list[RunRecord]:
    return [r for r in records if (arm_name(r.init), r.fraction, r.schedule) == (arm, fraction, schedule)]


def _cell(records: Sequence[RunRecord], monitor: str) -> Cell:
    names = [
        n for n in records[0].result["metrics"] if all(r.number("metrics", n) is not None for r in records)
    ]
    runs = tuple(record.curves.get(monitor, Curve((), ())) for record in records)
    return Cell(
        arm=arm_name(records[0].init),
        fraction=records[0].fraction,
        schedule=records[0].schedule,
        train_size=records[0].train_size,
        seeds=tuple(record.seed for record in records),
        folds=tuple(record.fold for record in records),
        metrics={
            name: seed_statistics([float(r.result["metrics"][name]) for r in records]) for name in names
        },
        best={
            name: seed_statistics([record.best[name] for record in records])
            for name in records[0].best
            if all(name in record.best for record in records)
        },
        curve=mean_curve(runs),
        runs=runs,
        seconds=_measured(records, "seconds", "fit"),
        images_per_second=_measured(records, "images_per_second"),
        peak_memory_mb=_measured(records, "peak_memory_mb"),
    )


def _arm_difference(
    cell: Cell, base: Cell, records: Sequence[RunRecord], monitor: str, mode: str
) -> ArmDifference:
    def runs_of(cell: Cell) -> list[RunRecord]:
        return _runs_of(records, cell.arm, cell.fraction, cell.schedule)

    def by_draw(cell: Cell, name: str) -> dict[tuple[int, int], float]:
        return {r.draw: float(r.result["metrics"][name]) for r in runs_of(cell)}

    def best_by_draw(cell: Cell, name: str) -> dict[tuple[int, int], float]:
        return {r.draw: r.best[name] for r in runs_of(cell)}

    shared = [name for name in cell.metrics if name in base.metrics]
    shared_best = [name for name in cell.best if name in base.best]
    return ArmDifference(
        arm=cell.arm,
        baseline=base.arm,
        fraction=cell.fraction,
        schedule=cell.schedule,
        metrics={name: difference(by_draw(cell, name), by_draw(base, name)) for name in shared},
        best={name: difference(best_by_draw(cell, name), best_by_draw(base, name)) for name in shared_best},
        arm_reaches=images_to_reach(cell.curve, base.metrics[monitor].mean, mode=mode),
        baseline_reaches=images_to_reach(base.curve, cell.metrics[monitor].mean, mode=mode),
        lead=mean_lead(cell.curve, base.curve),
    )


def _low_data(
    arms: tuple[str, ...],
    fractions: tuple[float, ...],
    cells: dict[tuple[str, float], Cell],
    contrasts: Sequence[ArmDifference],
    monitor: str,
    mode: str,
) -> tuple[LowData, ...]:
    rows = []
    reference = cells.get((arms[-1], fractions[-1]))  # the baseline with the largest fraction
    if reference is None or len(fractions) == 1 or not contrasts:
        return ()
    for arm in arms[:-1]:
        scores = [(f, cells[arm, f].metrics[monitor].mean) for f in fractions if (arm, f) in cells]
        gaps = [(c.fraction, c.metrics[monitor]) for c in contrasts if c.arm == arm]
        target = reference.metrics[monitor].mean
        rows.append(low_data(arm, arms[-1], scores, target, gaps, mode=mode))
    return tuple(rows)


def _measured(records: Sequence[RunRecord], *path: str) -> SeedStatistics | None:
    values = [value for r in records if (value := r.number(*path)) is not None]
    return seed_statistics(values) if values else None
