"""What a command is going to cost: its runs, images and hours here, from some measured steps."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from visionkit.errors import InputError
from visionkit.printable import printable
from visionkit.run.config import RunConfig
from visionkit.run.feedback.pace import duration, time_left
from visionkit.run.requests import asking
from visionkit.run.storage.result import read_result
from visionkit.run.sweep.jobs import Job, Placement, run_jobs
from visionkit.run.sweep.train_one import train_one
from visionkit.run.training.schedule_length import length_of

__all__ = ["Speed", "estimate", "measure", "plan_lines", "total_seconds"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)
Run = tuple[RunConfig, Path]


@dataclass(frozen=True)
class Speed:
    """How fast runs of one arm are here.

    Args:
        images_per_second: Of training.
        val_images_per_second: Of validation and test.
        start_seconds: From the start of a run to its first step.
        train_size: Images of the whole training split.
        val_size: Images of the validation split.
        test_size: Images of the test split; 0 without.
        world: Processes of a run.
    """

    images_per_second: float
    val_images_per_second: float
    start_seconds: float
    train_size: int
    val_size: int
    test_size: int
    world: int = 1


def measure(
    runs: Sequence[tuple[ConfigT, Path]],
    train: Callable[[ConfigT, Path], dict[str, Any]],
    placement: Placement,
) -> dict[str, Speed]:
    """Return the speed of each init, of a run over its largest fraction, as many at a time as will be.

    Args:
        runs: Every run of the command.
        train: Makes task and data of one run and calls `fit`.
        placement: How many runs at a time, with how many threads.

    Raises:
        InputError: `train` does not call `fit`.
    """
    chosen: dict[str, ConfigT] = {}
    for one, _ in sorted(runs, key=lambda run: -run[0].fractions[0]):
        chosen.setdefault(one.init, one)
    speeds: dict[str, Speed] = {}
    with tempfile.TemporaryDirectory() as scratch, asking(measure=True):
        jobs = [
            Job(
                init,
                Path(scratch) / str(number),
                functools.partial(_timed, train, one, Path(scratch) / str(number)),
            )
            for number, (init, one) in enumerate(chosen.items())
        ]
        if placement.jobs > 1:
            run_jobs(
                jobs,
                jobs=placement.jobs,
                threads=placement.threads,
                finished=lambda job, result: speeds.update({job.title: _speed(result)}),
            )
        else:
            speeds = {job.title: _speed(job.call()) for job in jobs}
    return speeds


def estimate(one: RunConfig, speed: Speed, *, test: bool = True) -> tuple[int, float]:
    """Return the images and the seconds of one run.

    Args:
        one: Its settings.
        speed: How fast its arm is.
        test: Whether it is scored on the test split.
    """
    size = max(1, round(one.fractions[0] * speed.train_size))
    plan = length_of(one, size, batch_size=one.batch_size, world=speed.world)
    scored = plan.epochs // plan.validate_every * speed.val_size + test * speed.test_size
    seconds = plan.images / speed.images_per_second + scored / speed.val_images_per_second
    return plan.images, speed.start_seconds + seconds


def total_seconds(stages: Sequence[Sequence[Run]], speeds: Mapping[str, Speed], jobs: int) -> float:
    """Return the seconds of all runs, one stage after the other; the first of two chooses rates.

    Args:
        stages: The runs of each stage, in their order.
        speeds: How fast each init is.
        jobs: Runs at a time.
    """
    last = len(stages) - 1
    return sum(
        time_left([], [estimate(one, speeds[one.init], test=at == last)[1] for one, _ in stage], jobs)
        for at, stage in enumerate(stages)
    )


def plan_lines(
    stages: Sequence[Sequence[Run]], speeds: Mapping[str, Speed] | None, placement: Placement
) -> list[str]:
    """Return the plan: a line for each fraction and schedule, and one over all.

    Args:
        stages: The runs of each stage that are listed; finished ones take no more time.
        speeds: How fast each init is; None where nothing was measured.
        placement: How many runs at a time.
    """
    todo = [[run for run in stage if read_result(run[1]) is None] for stage in stages]
    lines, images, last = [], 0, len(stages) - 1
    for at, stage in enumerate(todo):
        groups: dict[tuple[float, int], list[RunConfig]] = {}
        for one, _ in stage:
            groups.setdefault((one.fractions[0], one.schedules[0]), []).append(one)
        for (fraction, schedule), runs in groups.items():
            text = f"{100 * fraction:.3g}% of the data, schedule {schedule}x: {len(runs)} runs"
            if speeds is not None:
                each = [estimate(one, speeds[one.init], test=at == last) for one in runs]
                images += sum(count for count, _ in each)
                mean = sum(seconds for _, seconds in each) / len(each)
                text += f" of {each[0][0]:,} images, {duration(mean)} each"
            lines.append(text if at == last else f"to choose the rates, {text}")
    count, of = sum(map(len, todo)), sum(map(len, stages))
    total = f"plan: {count} runs" + (f" ({of - count} more are finished)" if count < of else "")
    if speeds is not None and count:
        total += f", {images:,} images, about {duration(total_seconds(todo, speeds, placement.jobs))} here"
        total += f", {placement.jobs} at a time" if placement.jobs > 1 else ""
    return [printable(line) for line in (total, *(f"  {line}" for line in lines))]


def _timed(train: Callable[[ConfigT, Path], dict[str, Any]], one: ConfigT, folder: Path) -> dict[str, Any]:
    began = time.monotonic()
    measured = train_one(train, one, folder)
    if "entered" not in measured:
        raise InputError("Expected train() of the recipe to call visionkit.run.fit, which times some steps.")
    return measured | {"start_seconds": measured["entered"] - began}


def _speed(measured: Mapping[str, float]) -> Speed:
    return Speed(
        images_per_second=measured["images_per_second"],
        val_images_per_second=measured["val_images_per_second"],
        start_seconds=measured["start_seconds"],
        train_size=int(measured["train_size"]),
        val_size=int(measured["val_size"]),
        test_size=int(measured["test_size"]),
        world=int(measured["world"]),
    )
