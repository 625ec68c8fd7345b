"""`--lrs`: each arm tries the same rates, and is trained at its best; the test split takes no part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from visionkit.compare.rate_choice import FOLDER, RateChoice, rate_lines, read_choices
from visionkit.compare.run_record import named_init
from visionkit.errors import RunError
from visionkit.printable import for_terminal
from visionkit.run.config import RunConfig
from visionkit.run.processes.launcher import is_first
from visionkit.run.requests import asking
from visionkit.run.storage.result import read_result
from visionkit.run.sweep.jobs import choose_jobs
from visionkit.run.sweep.runs import each_run
from visionkit.run.sweep.train_runs import train_runs

__all__ = ["choose_rates", "rate_runs", "rates_of"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)


def rate_runs(config: ConfigT) -> list[tuple[ConfigT, Path]]:
    """Return the runs that choose among `config.lrs`: settings and folder of each.

    Every rate is tried for each arm and fraction with the first seed (and fold), at the shortest schedule.
    """
    shortest = dataclasses.replace(
        config,
        seeds=config.seeds[:1],
        folds=config.runs_of_folds()[0],
        schedules=[min(config.schedules)],
        out=str(Path(config.out) / FOLDER),
    )
    rates = sorted(config.lrs)
    return [run for lr in rates for run in each_run(dataclasses.replace(shortest, lr=lr))]


def choose_rates(
    config: ConfigT, train: Callable[[ConfigT, Path], dict[str, Any]]
) -> dict[tuple[str, float], float]:
    """Train what `rate_runs` lists and is not finished; return the best rate of each arm and fraction.

    The best has the best monitored score at the end of training. A rate with which a run fails, as where its
    loss is no number, has no score. Test images are not looked at.

    Args:
        config: The command's settings.
        train: Trains one run in a folder.

    Raises:
        InputError: The settings do not fit.
        RunError: No rate gave an arm a score.
    """
    runs = rate_runs(config)
    if is_first():
        _print(f"{len(runs)} runs of schedule {runs[0][0].schedules[0]}x choose the rates, in {FOLDER}/.")
    with asking(test=False):
        failures = train_runs(config, runs, train, choose_jobs(config, len(runs)))
    refused = [error for error in failures if not isinstance(error, RunError)]
    if refused:
        raise refused[0]
    asked, choices = _choices(config)
    if is_first():
        for line in rate_lines(tuple(choices.values())):
            _print(f"  {line}")
    without = [key for key in asked if key not in choices or choices[key].lr is None]
    if without:
        init, fraction = without[0]
        raise RunError(
            f"No rate of --lrs gave {init} a score with {100 * fraction:.3g}% of the data: the runs in "
            f"{Path(config.out) / FOLDER} say why. Give lower rates."
        )
    return {key: float(choice.lr or 0.0) for key, choice in choices.items()}


def rates_of(config: RunConfig) -> dict[tuple[str, float], float] | None:
    """Return the best rate of each arm and fraction where all that choose are finished, else None."""
    if any(read_result(folder) is None for _, folder in rate_runs(config)):
        return None
    asked, choices = _choices(config)
    rates = {key: choice.lr for key, choice in choices.items() if choice.lr is not None}
    return rates if rates.keys() == asked.keys() else None


def _choices(
    config: RunConfig,
) -> tuple[dict[tuple[str, float], RunConfig], dict[tuple[str, float], RateChoice]]:
    """Return a run for each arm and fraction that asks for a rate, and what was chosen."""
    asked = {
        (named_init(one.init, {"transfer": vars(one.transfer)}), one.fractions[0]): one
        for one, _ in rate_runs(config)
    }
    choices = {
        (choice.init, choice.fraction): choice
        for choice in read_choices(Path(config.out))
        if _is_asked(choice, asked.get((choice.init, choice.fraction)))
    }
    return asked, choices


def _is_asked(choice: RateChoice, one: RunConfig | None) -> bool:
    return one is not None and (choice.seed, choice.schedule) == (one.seeds[0], one.schedules[0])


def _print(text: str) -> None:
    print(for_terminal(text), flush=True)  # noqa: T201
