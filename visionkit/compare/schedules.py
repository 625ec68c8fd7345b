"""Scores over schedules: how much longer the baseline has to train, and where the arms are equal.

A schedule of k is a run of its own, k times as long as that of 1, with its own warm-up and decay; so each
score is that of a finished training (He, Girshick and Dollár, arXiv 1811.08883).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from visionkit.compare.run_record import RunRecord, runs_of
from visionkit.compare.statistics import Difference, SeedStatistics, difference, seed_statistics, t_quantile
from visionkit.config import check_number, limits

__all__ = [
    "MARGIN",
    "CatchUp",
    "OverSchedules",
    "Parity",
    "ScheduleScores",
    "ScheduleStep",
    "catch_up",
    "compare_schedules",
    "over_schedules",
    "parity",
]

Draw = tuple[int, int]
MARGIN = 0.01
"""Scores that differ by less than this are equal, unless the runs say otherwise: one point of accuracy."""
GRID = 64  # points between two schedules at which the interval is looked for


@dataclass(frozen=True)
class Parity:
    """Whether two arms are equal, by two one-sided tests (Schuirmann, 1987) at 5% over pairs of runs.

    Args:
        margin: How far apart scores may be and still count as equal.
        answer: "equal" (the 90% interval of the paired difference lies within the margin), "differ" (it does
            not, and the 95% interval excludes zero) or "cannot tell".
        low: Lower end of the 90% interval; None where the runs are not paired or one pair leaves none.
        high: Upper end.
    """

    margin: float
    answer: Literal["equal", "differ", "cannot tell"]
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """Return the answer in words."""
        return {"equal": f"equal within {self.margin:g}", "differ": "differs"}.get(self.answer, self.answer)


@dataclass(frozen=True)
class ScheduleScores:
    """The runs of one arm at one fraction of the data and one schedule.

    Args:
        schedule: The length as a multiple of the base length.
        images: Images seen at the end, the mean over runs.
        scores: The monitored score at the end by seed and fold (-1: none).
    """

    schedule: int
    images: float
    scores: Mapping[Draw, float]


@dataclass(frozen=True)
class ScheduleStep:
    """Both arms at one schedule.

    Args:
        schedule: The length as a multiple of the base length.
        images: Images seen at the end.
        arm: The score of the arm over seeds; None where it has no runs of this schedule.
        baseline: That of the baseline.
        difference: Arm minus baseline; None where one of them has no runs.
        parity: Whether they are equal; None where one of them has no runs.
    """

    schedule: int
    images: float
    arm: SeedStatistics | None
    baseline: SeedStatistics | None
    difference: Difference | None
    parity: Parity | None


@dataclass(frozen=True)
class CatchUp:
    """How much longer the baseline trains until it has the score of an arm at the arm's shortest schedule.

    Args:
        schedule: The arm's shortest schedule.
        target: The arm's mean score there.
        arm_images: Images the arm has seen there.
        images: Images after which the baseline has that score; None if it does not within `max_images`.
        times: `images / arm_images`.
        bound: "exact" between two schedules; "at most" when the baseline's shortest was already enough.
        low: Lower end of the 95% interval of `times`; None where one seed leaves no interval, or where all
            of the interval is beyond `max_images`.
        high: Upper end; None where it is beyond `max_images`, or there is no interval.
        max_images: Images of the baseline's longest schedule.
        pairing: As in `Difference`; "single": no interval.
    """

    schedule: int
    target: float
    arm_images: float
    images: float | None
    times: float | None
    bound: Literal["exact", "at most", "not reached"]
    low: float | None
    high: float | None
    max_images: float
    pairing: Literal["paired", "unpaired", "single"]


@dataclass(frozen=True)
class OverSchedules:
    """An arm and the baseline at one fraction of the data, over schedules.

    Args:
        arm: The arm.
        baseline: The arm it is compared with.
        fraction: Fraction of the training data.
        steps: Both at each schedule, short ones first.
        catch_up: How much longer the baseline has to train; None where it has one schedule only.
    """

    arm: str
    baseline: str
    fraction: float
    steps: tuple[ScheduleStep, ...]
    catch_up: CatchUp | None


def compare_schedules(
    records: Sequence[RunRecord], arms: Sequence[str], fractions: Sequence[float], margin: float | None
) -> tuple[OverSchedules, ...]:
    """Return each arm and the baseline over schedules, for each fraction that both have.

    Args:
        records: The runs; those without a score are left out.
        arms: The arms; the baseline is the last one.
        fractions: Fractions of the training data.
        margin: How far apart scores may be and still count as equal, above 0; None: as the first run says.

    Raises:
        InputError: The margin is not above 0.
    """
    mode = records[0].monitor[1]
    margin = float(records[0].result["config"].get("margin") or MARGIN) if margin is None else margin
    check_number("margin", margin, limits(above=0))
    rows = []
    for fraction, arm in itertools.product(fractions, arms[:-1]):
        mine, base = (_schedule_scores(records, name, fraction) for name in (arm, arms[-1]))
        if mine and base:
            rows.append(over_schedules(arm, arms[-1], fraction, mine, base, mode=mode, margin=margin))
    return tuple(rows)


def _schedule_scores(records: Sequence[RunRecord], arm: str, fraction: float) -> list[ScheduleScores]:
    groups: dict[int, list[RunRecord]] = {}
    for record in runs_of(records, arm, fraction):
        if not record.unscored:
            groups.setdefault(record.schedule, []).append(record)
    return [
        ScheduleScores(
            schedule,
            statistics.fmean(float(run.result["images_seen"]) for run in runs),
            {run.draw: run.score for run in runs},
        )
        for schedule, runs in sorted(groups.items())
    ]


def parity(first: Mapping[Draw, float], second: Mapping[Draw, float], *, margin: float) -> Parity:
    """Return whether two arms are equal within `margin`, by two one-sided tests over pairs.

    The arms are equal where the 90% interval of the mean paired difference lies within -margin .. margin,
    which is the test at 5% on either side. Runs that cannot be paired, or a single pair, cannot tell.

    Args:
        first: Seed and fold to score, of one arm.
        second: The same of the other.
        margin: How far apart they may be, above 0.
    """
    gap = difference(first, second)
    if gap.pairing != "paired":
        return Parity(margin, "differ" if gap.shown else "cannot tell", None, None)
    gaps = [first[draw] - second[draw] for draw in sorted(first)]
    half = t_quantile(len(gaps) - 1, 0.95) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    low, high = statistics.fmean(gaps) - half, statistics.fmean(gaps) + half
    answer: Literal["equal", "differ", "cannot tell"] = "differ" if gap.shown else "cannot tell"
    return Parity(margin, "equal" if -margin < low and high < margin else answer, low, high)


def catch_up(arm: ScheduleScores, baseline: Sequence[ScheduleScores], *, mode: str = "max") -> CatchUp:
    """Return how many times as many images the baseline needs to reach an arm's score.

    Between two schedules each seed's score is interpolated on the logarithm of the images. The estimate is
    where the mean difference to the arm, paired by seed, first is zero. The interval holds every length at
    which the 95% t interval of that difference includes zero, from the first at which its better end is there
    to the first at which its worse end is: a test turned round, so that it is right where some seeds, or all,
    never get there.

    Args:
        arm: The arm at its shortest schedule.
        baseline: The baseline at two or more schedules, short ones first.
        mode: Whether "max" or "min" of the score is better.
    """
    sign = 1.0 if mode == "max" else -1.0
    shared = set.intersection(*(set(each.scores) for each in baseline))
    logs = np.log([each.images for each in baseline])
    parts = [np.linspace(start, end, GRID + 1) for start, end in itertools.pairwise(logs)]
    grid = np.unique(np.concatenate(parts))

    def gap_at(at: float) -> Difference:
        def score(draw: Draw) -> float:
            return float(np.interp(at, logs, [each.scores[draw] for each in baseline]))

        values = {draw: sign * score(draw) for draw in sorted(shared)}
        return difference(values, {draw: sign * value for draw, value in arm.scores.items()})

    target, last = statistics.fmean(arm.scores.values()), baseline[-1].images
    if not shared:  # no seed has all schedules: their means are compared
        means = [statistics.fmean(each.scores.values()) for each in baseline]
        gaps = [
            Difference(sign * (float(np.interp(at, logs, means)) - target), None, None, "single", 1)
            for at in grid
        ]
    else:
        gaps = [gap_at(at) for at in grid]
    at = _first_above(grid, [gap.mean for gap in gaps])
    ends: list[float | None] = [None, None]
    if gaps[0].pairing != "single":
        better, worse = ([float(getattr(gap, end) or 0.0) for gap in gaps] for end in ("high", "low"))
        ends = [_first_above(grid, values) for values in (better, worse)]
    low, high = (None if end is None else math.exp(end) / arm.images for end in ends)
    images = None if at is None else math.exp(at)
    return CatchUp(
        schedule=arm.schedule,
        target=target,
        arm_images=arm.images,
        images=images,
        times=None if images is None else images / arm.images,
        bound="not reached" if at is None else "at most" if at == grid[0] else "exact",
        low=low,
        high=high,
        max_images=last,
        pairing=gaps[0].pairing,
    )


def over_schedules(
    arm: str,
    baseline: str,
    fraction: float,
    arm_scores: Sequence[ScheduleScores],
    baseline_scores: Sequence[ScheduleScores],
    *,
    mode: str,
    margin: float,
) -> OverSchedules:
    """Return an arm and the baseline at one fraction of the data, over schedules.

    Args:
        arm: The arm.
        baseline: The arm it is compared with.
        fraction: Fraction of the training data.
        arm_scores: The arm's runs at each schedule, short ones first; at least one.
        baseline_scores: The baseline's.
        mode: Whether "max" or "min" of the score is better.
        margin: How far apart scores may be and still count as equal.
    """
    first, second = ({each.schedule: each for each in scores} for scores in (arm_scores, baseline_scores))
    steps = []
    for schedule in sorted({*first, *second}):
        one, other = first.get(schedule), second.get(schedule)
        images = [each.images for each in (one, other) if each is not None]
        both = one is not None and other is not None
        steps.append(
            ScheduleStep(
                schedule,
                statistics.fmean(images),
                arm=seed_statistics(list(one.scores.values())) if one else None,
                baseline=seed_statistics(list(other.scores.values())) if other else None,
                difference=difference(one.scores, other.scores) if both and one and other else None,
                parity=parity(one.scores, other.scores, margin=margin) if both and one and other else None,
            )
        )
    result = catch_up(arm_scores[0], baseline_scores, mode=mode) if len(baseline_scores) > 1 else None
    return OverSchedules(arm, baseline, fraction, tuple(steps), result)


def _first_above(grid: np.ndarray, values: Sequence[float]) -> float | None:
    """Return where `values` over `grid` first are zero or more, interpolated; None where they never are."""
    for idx, value in enumerate(values):
        if value < 0:
            continue
        if idx == 0:
            return float(grid[0])
        before = values[idx - 1]
        return float(grid[idx - 1] + (grid[idx] - grid[idx - 1]) * -before / (value - before))
    return None
