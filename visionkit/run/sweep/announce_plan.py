"""Before a command starts: choose within the budget, and print what it is going to cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from visionkit.compare.budget_record import BUDGET_FILE, budget_lines, read_budget
from visionkit.errors import InputError, PreemptedError, RunError
from visionkit.files import write_text
from visionkit.printable import for_terminal
from visionkit.run.config import RunConfig
from visionkit.run.processes.launcher import is_first
from visionkit.run.requests import requests
from visionkit.run.sweep.budget import budget_table, recorded_axes, requested_axes, within
from visionkit.run.sweep.jobs import Placement, choose_jobs
from visionkit.run.sweep.plan import Speed, measure, plan_lines
from visionkit.run.sweep.rates import rate_runs, rates_of
from visionkit.run.sweep.runs import each_run

__all__ = ["announce_plan"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)


def announce_plan(
    config: ConfigT, train: Callable[[ConfigT, Path], dict[str, Any]], placement: Placement
) -> ConfigT:
    """Return the settings, with the axes that fit into a budget, and print the plan of the runs.

    Some steps are timed where a budget or a dry run asks for it, and before the first run of a command with
    several schedules or rates.

    Args:
        config: The command's settings.
        train: Trains one run in a folder.
        placement: How many runs at a time.

    Raises:
        InputError: The budget is too short, or a run is of several processes.
    """
    speeds: dict[str, Speed] | None = None
    dry_run = requests().dry_run
    budget: dict[str, Any] = {}
    if config.budget:
        if not placement.alone:
            raise InputError(
                "Expected runs of a single process with --budget, since every process would measure another "
                "speed. See the cost with --dry_run, and give --schedules, --fractions and --seeds."
            )
        axes = recorded_axes(config)
        budget = read_budget(config.out)
        if axes is None:
            largest = requested_axes(config).of(config)
            placement = choose_jobs(config, len(list(each_run(largest))))
            speeds = measure(list(each_run(config)), train, placement)
            axes, seconds = within(config, speeds, placement.jobs)
            budget = budget_table(config, axes, seconds)
            if is_first() and not dry_run:
                path = Path(config.out) / BUDGET_FILE
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps(budget, indent=1) + "\n")
        config = axes.of(config)
    rates = rates_of(config) if config.lrs else None
    runs = list(each_run(config, rates=rates))
    stages = [*([rate_runs(config)] if config.lrs else []), runs]
    wide = len(config.schedules) > 1 or bool(config.lrs)
    begun = any(folder.exists() for stage in stages for _, folder in stage)
    if speeds is None and dry_run:
        speeds = measure(runs, train, placement)
    elif speeds is None and wide and not begun and placement.alone:
        try:
            speeds = measure(runs, train, placement)
        except PreemptedError:
            raise
        except (InputError, RunError):
            pass  # what is wrong with a run, the run says
    if is_first() and (dry_run or wide or config.budget):
        for line in (*budget_lines(budget), *plan_lines(stages, speeds, placement)):
            print(for_terminal(line), flush=True)  # noqa: T201
        if dry_run:
            print("Nothing was started.", flush=True)  # noqa: T201
    return config
