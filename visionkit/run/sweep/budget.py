"""`--budget 2h`: the schedules, fractions and seeds that answer most within a time on this machine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from visionkit.compare.budget_record import BUDGET_FILE
from visionkit.errors import InputError
from visionkit.run.config import DefaultList, RunConfig
from visionkit.run.feedback.pace import duration, parse_duration
from visionkit.run.sweep.plan import Speed, total_seconds
from visionkit.run.sweep.rates import rate_runs
from visionkit.run.sweep.runs import each_run

__all__ = ["Axes", "budget_table", "choose_axes", "recorded_axes", "requested_axes", "within"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)
FIRST_SEEDS = 3
"""Seeds before anything else: with three a difference has an interval that is of use."""


@dataclass(frozen=True)
class Axes:
    """What spans the runs, beside the arms.

    Args:
        schedules: Lengths as multiples of the base length.
        fractions: Fractions of the training data.
        seeds: Seeds.
    """

    schedules: tuple[int, ...]
    fractions: tuple[float, ...]
    seeds: tuple[int, ...]

    def of(self, config: ConfigT) -> ConfigT:
        """Return settings with these axes."""
        lists = {name: list(values) for name, values in dataclasses.asdict(self).items()}
        return dataclasses.replace(config, **lists)  # type: ignore[arg-type]


# What is asked for where a list was not given.
LADDER = Axes((1, 2, 4, 8), (0.1, 1.0), (0, 1, 2, 3, 4))


def requested_axes(config: RunConfig) -> Axes:
    """Return the axes to choose from: the lists that were given, and longer ones in place of the others."""
    lists = {}
    for name, ladder in dataclasses.asdict(LADDER).items():
        given = getattr(config, name)
        lists[name] = ladder if isinstance(given, DefaultList) else tuple(given)
    return Axes(**lists)


def choose_axes(requested: Axes, seconds: float, cost: Callable[[Axes], float]) -> Axes:
    """Return the largest axes within a time, grown by one rule.

    It begins with the shortest schedule, the largest fraction and the first seed. Then come seeds up to
    three; then in turn the next longer schedule and the smallest fraction that is left; then the other seeds.
    Every combination is run. What no longer fits ends its axis, and the others go on.

    Args:
        requested: All that may be chosen.
        seconds: The time.
        cost: Returns the seconds of axes.

    Raises:
        InputError: Not even the first fits.
    """
    schedules, fractions = sorted(requested.schedules), sorted(requested.fractions)
    chosen = Axes((schedules[0],), (fractions[-1],), requested.seeds[:1])
    if cost(chosen) > seconds:
        raise InputError(
            f"Expected --budget to be enough for one seed of each arm, which takes about "
            f"{duration(cost(chosen))} here, but got {duration(seconds)}. Give more, or a shorter --images."
        )
    waiting: dict[str, list[Any]] = {"seeds": [*requested.seeds[1:]], "schedules": schedules[1:]}
    waiting["fractions"] = fractions[:-1]
    order = ["seeds"] * (FIRST_SEEDS - 1)
    order += ["schedules", "fractions"] * max(len(schedules), len(fractions))
    order += ["seeds"] * len(requested.seeds)
    for name in order:
        if not waiting[name]:
            continue
        values = (*getattr(chosen, name), waiting[name].pop(0))
        larger = dataclasses.replace(chosen, **{name: values})
        if cost(larger) <= seconds:
            chosen = larger
        else:
            waiting[name] = []
    return dataclasses.replace(chosen, fractions=tuple(sorted(chosen.fractions)))


def within(config: RunConfig, speeds: Mapping[str, Speed], jobs: int) -> tuple[Axes, float]:
    """Return the axes that fit into `config.budget`, and the seconds they take.

    Args:
        config: The command's settings.
        speeds: How fast each init is.
        jobs: Runs at a time.

    Raises:
        InputError: Not even one seed of each arm fits.
    """

    def cost(axes: Axes) -> float:
        full = axes.of(config)
        stages = [rate_runs(full)] if full.lrs else []
        return total_seconds([*stages, list(each_run(full))], speeds, jobs)

    axes = choose_axes(requested_axes(config), parse_duration(config.budget), cost)
    return axes, cost(axes)


def budget_table(config: RunConfig, axes: Axes, seconds: float) -> dict[str, Any]:
    """Return what was chosen and what was left out, as `budget.json` in the folder of the runs has it.

    Args:
        config: The command's settings.
        axes: What was chosen.
        seconds: What it takes.
    """
    requested, chosen = dataclasses.asdict(requested_axes(config)), dataclasses.asdict(axes)
    left_out = {name: [v for v in values if v not in chosen[name]] for name, values in requested.items()}
    table: dict[str, Any] = {"budget": config.budget, "estimated_seconds": seconds, "requested": requested}
    return table | {"chosen": chosen, "left_out": left_out}


def recorded_axes(config: RunConfig) -> Axes | None:
    """Return what an earlier start chose for the same budget and the same lists; None if there was none.

    A command that goes on keeps to it, although the machine may be measured as faster or slower now.
    """
    path = Path(config.out) / BUDGET_FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        same = table["budget"] == config.budget and _axes(table["requested"]) == requested_axes(config)
        return _axes(table["chosen"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _axes(table: Mapping[str, Any]) -> Axes:
    return Axes(*(tuple(table[name]) for name in ("schedules", "fractions", "seeds")))
