"""Train those of a list of runs that are not finished, in turn or at once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from visionkit.errors import InputError, PreemptedError, RunError
from visionkit.printable import for_terminal
from visionkit.run.config import RunConfig
from visionkit.run.feedback.board import Board
from visionkit.run.feedback.pace import duration
from visionkit.run.feedback.state import shown_to
from visionkit.run.processes.launcher import is_first
from visionkit.run.processes.stop import listening
from visionkit.run.resume import check_resume, machine_changes
from visionkit.run.storage.disk import check_writable
from visionkit.run.storage.lock import hold
from visionkit.run.storage.result import TEST_FAILED, read_result, score_text
from visionkit.run.sweep.announce import announce
from visionkit.run.sweep.jobs import Job, Placement, run_jobs
from visionkit.run.sweep.train_one import train_one

__all__ = ["train_runs"]

ConfigT = TypeVar("ConfigT", bound=RunConfig)


def train_runs(
    config: ConfigT,
    runs: Sequence[tuple[ConfigT, Path]],
    train: Callable[[ConfigT, Path], dict[str, Any]],
    placement: Placement,
    *,
    then: Callable[[list[Exception]], None] = lambda failures: None,
) -> list[Exception]:
    """Train the runs that are not finished yet; return the errors of those that failed.

    Args:
        config: The command's settings.
        runs: Settings and folder of each run.
        train: Trains one run in a folder.
        placement: How many at a time.
        then: Called in the first process with the errors, while the folders are still held.

    Raises:
        InputError: A folder holds a run with other settings, or another command trains there.
        PreemptedError: The command was asked to stop.
    """
    first = is_first()
    # Another process may check after the first has begun: only the first can know a run of before.
    for one, folder in runs:
        if first or one.resume != "never":
            _check_folder(one, folder)
    todo = _unfinished(runs, train, first=first)
    failures: list[Exception] = []
    with hold([job.folder for job in todo] if first else []), listening():
        try:
            with _make_board(config, runs, todo, placement.jobs) as board, shown_to(board):
                _train_all(todo, placement, board, failures, first=first)
        except PreemptedError:
            raise
        except Exception as error:
            if not placement.alone:  # other processes wait for this one's end
                raise
            failures.insert(0, error)  # what is finished is compared all the same
        if first:
            then(failures)
    return failures


def _unfinished(
    runs: Sequence[tuple[ConfigT, Path]], train: Callable[[ConfigT, Path], dict[str, Any]], *, first: bool
) -> list[Job]:
    """Return the runs that are to be trained; of the others a line is printed."""
    todo = []
    for number, (one, folder) in enumerate(runs, start=1):
        title = f"[{number}/{len(runs)}] {folder.name}"
        result = read_result(folder)
        if result is None or any(TEST_FAILED in text for text in result.get("problems") or ()):
            todo.append(Job(title, folder, functools.partial(train_one, train, one, folder)))
            for line in announce([machine_changes(one, folder)] if first else []):
                _print(line)
        elif first:
            _print(f"{title}: finished before, kept.")
    return todo


def _make_board(
    config: RunConfig, runs: Sequence[tuple[RunConfig, Path]], todo: Sequence[Job], jobs: int
) -> Board:
    """Return what shows how far the runs are."""
    # With `images` a run trains as long with any fraction of the data.
    amounts = {
        folder.name: one.schedules[0] * (1.0 if one.images else one.fractions[0]) for one, folder in runs
    }
    return Board(
        {job.folder.name: amounts[job.folder.name] for job in todo},
        titles={job.folder.name: job.title for job in todo} if jobs > 1 else None,
        jobs=jobs,
        terminal=None if config.progress and is_first() else False,
    )


def _train_all(
    todo: Sequence[Job], placement: Placement, board: Board, failures: list[Exception], *, first: bool
) -> None:
    """Train all of `todo`, in turn or at once."""

    def finished(job: Job, result: dict[str, Any]) -> None:
        board.end(job.folder.name)
        _print_result(job, result)
        if len(todo) > 1:
            _print(f"  {board.summary()}")

    if placement.jobs > 1 and todo:
        _print(f"{len(todo)} runs, {placement.jobs} at a time, {placement.threads} thread(s) each.")
        run_jobs(todo, jobs=placement.jobs, threads=placement.threads, finished=finished, board=board)
        return
    for job in todo:
        with _passing_over(job, failures, board, first=first, alone=placement.alone):
            result = job.call()
            if first:
                finished(job, result)


@contextlib.contextmanager
def _passing_over(
    job: Job, failures: list[Exception], board: Board, *, first: bool, alone: bool
) -> Iterator[None]:
    """Print what begins; a run that fails inside is noted, and stops the next only where processes wait."""
    if first:
        _print(job.title)
    board.begin(job.folder.name)
    try:
        yield
    except RunError as error:
        if not alone or isinstance(error, PreemptedError):
            raise
        failures.append(error)
        _print(f"{job.title}: {error}")
    board.end(job.folder.name)  # not where the command is asked to stop: the run is not done


def _print_result(job: Job, result: dict[str, Any]) -> None:
    _print(
        f"{job.title}: {score_text(result)}; {result['images_seen']:,} images, "
        f"{duration(result['seconds']['total'])}, {result['images_per_second']:.0f} images/s"
    )
    early = result.get("stopped_early")
    if early:
        _print(f"  stopped early: {early['images']:,} of {early['planned_images']:,} images")
    for split, left in ((result.get("skipped") or {}).get("samples") or {}).items():
        _print(f"  left out: {left['count']} of {left['of']} {split} samples, which could not be read")
    for text in result.get("problems") or ():
        _print(f"  {text}")


def _check_folder(one: RunConfig, folder: Path) -> None:
    if not (folder / "config.yaml").exists():
        if one.resume == "require":
            raise InputError(f"--resume require: expected a run in {folder}, but there is none.")
        check_writable(folder.parent)
        return
    if one.resume == "never":
        raise InputError(
            f"{folder} already holds a run. Nothing is overwritten: continue it with --resume auto, or give "
            "another --out."
        )
    check_resume(one, folder)


def _print(text: str) -> None:
    print(for_terminal(text), flush=True)  # noqa: T201
