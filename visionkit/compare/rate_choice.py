"""The learning rate of each arm: what every rate of `--lrs` scored on validation, and which is best.

The runs lie in a folder beside those that are compared. They are no part of the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from visionkit.compare.run_record import RunRecord, arm_name, named_init, read_run, runs_inside
from visionkit.compare.sentences.number_text import percent
from visionkit.errors import RunError

__all__ = ["FOLDER", "RateChoice", "RateScore", "drop_superseded", "rate_lines", "read_choices"]

FOLDER = "lrs"
"""The folder of the runs that choose, inside the folder of the runs that are compared."""


@dataclass(frozen=True)
class RateScore:
    """One rate of an arm.

    Args:
        lr: The peak learning rate.
        score: The monitored score at the end of its run; None where there is none.
        reason: Why there is none; else empty.
    """

    lr: float
    score: float | None
    reason: str


@dataclass(frozen=True)
class RateChoice:
    """The rates of an arm at one fraction of the data.

    Args:
        arm: The arm.
        init: Its init.
        fraction: Fraction of the training data.
        schedule: How many times the base length the runs trained.
        seed: Their seed.
        monitor: The metric that decides.
        mode: Whether "max" or "min" of it is better.
        rates: The rates, ascending.
        lr: The best; the lower of two that score alike; None where none has a score.
    """

    arm: str
    init: str
    fraction: float
    schedule: int
    seed: int
    monitor: str
    mode: str
    rates: tuple[RateScore, ...]
    lr: float | None

    @property
    def warning(self) -> str:
        """Return a sentence where the best rate is the lowest or the highest that was tried, or ""."""
        ends = {self.rates[0].lr: "lowest", self.rates[-1].lr: "highest"}
        if self.lr not in ends:
            return ""
        where = "lower" if self.lr == self.rates[0].lr else "higher"
        return (
            f"The best rate of {self.arm} with {percent(self.fraction)} of the data, {self.lr:g}, is the "
            f"{ends[self.lr]} that was tried: add {where} ones to --lrs."
        )


def read_choices(folder: str | Path) -> tuple[RateChoice, ...]:
    """Return what the runs in the folder `lrs` of a folder of runs chose; empty where there are none.

    Args:
        folder: The folder of the runs that are compared.
    """
    groups: dict[tuple[str, float, int, int], list[RateScore]] = {}
    monitor, mode = "", "max"
    for run in runs_inside(Path(folder) / FOLDER):
        try:
            record = read_run(run)
        except RunError as error:
            failed = _settings(run)
            if failed is not None:
                key, lr = failed
                groups.setdefault(key, []).append(RateScore(lr, None, str(error)))
            continue
        monitor, mode = record.monitor
        rate = RateScore(
            float(record.result["config"]["lr"]), None if record.unscored else record.score, record.unscored
        )
        key = (record.init, record.fraction, record.schedule, record.seed)
        groups.setdefault(key, []).append(rate)
    order = sorted(groups, key=lambda key: (key[1:], key[0] == "scratch", key[0]))
    return tuple(
        RateChoice(
            arm_name(init), init, fraction, schedule, seed, monitor, mode, tuple(rates), _best(rates, mode)
        )
        for init, fraction, schedule, seed in order
        if (rates := sorted(groups[init, fraction, schedule, seed], key=lambda rate: rate.lr))
    )


def drop_superseded(
    records: Iterable[RunRecord], choices: Sequence[RateChoice]
) -> tuple[list[RunRecord], list[dict[str, str]]]:
    """Return the runs at the rates that were chosen, and folder and reason of those at another.

    A run was trained at another rate where rates were added to the choice later.

    Args:
        records: The runs.
        choices: What was chosen; runs of an arm and fraction that it has not are returned.
    """
    chosen: dict[tuple[str, float], set[float]] = {}
    for choice in choices:
        if choice.lr is not None:
            chosen.setdefault((choice.init, choice.fraction), set()).add(choice.lr)
    remaining, dropped = [], []
    for record in records:
        config = record.result["config"]
        rates = chosen.get((record.init, record.fraction))
        if not config.get("lrs") or rates is None or config.get("lr") in rates:
            remaining.append(record)
            continue
        best = " or ".join(f"{rate:g}" for rate in sorted(rates))
        reason = f"trained at the rate {config.get('lr'):g}; the best of --lrs is now {best}"
        dropped.append({"folder": str(record.folder), "reason": reason})
    return remaining, dropped


def rate_lines(choices: Sequence[RateChoice]) -> list[str]:
    """Return a line for each choice, with every rate's score, and the warnings."""
    lines = []
    for choice in choices:
        scores = ", ".join(
            f"{rate.lr:g}: {'none' if rate.score is None else f'{rate.score:.4f}'}" for rate in choice.rates
        )
        best = "none has a score" if choice.lr is None else f"best {choice.lr:g}"
        lines.append(
            f"rate of {choice.arm}, {percent(choice.fraction)} of the data: {best} ({choice.monitor} by "
            f"rate: {scores})"
        )
    return lines + [choice.warning for choice in choices if choice.warning]


def _best(rates: Sequence[RateScore], mode: str) -> float | None:
    sign = 1.0 if mode == "max" else -1.0
    known = [(sign * rate.score, -rate.lr) for rate in rates if rate.score is not None]
    score, lr = max(known, default=(math.nan, math.nan))
    return None if math.isnan(score) else -lr


def _settings(folder: Path) -> tuple[tuple[str, float, int, int], float] | None:
    """Return init, fraction, schedule, seed and rate of a run without a result; None if it has not begun."""
    try:
        loaded = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        init = named_init(str(loaded["init"]), loaded)
        key = (init, float(loaded["fractions"][0]), int(loaded["schedules"][0]))
        return (*key, int(loaded["seeds"][0])), float(loaded["lr"])
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, IndexError):
        return None
