"""Several runs at the same time on one machine's cores, each in its own process.

Small networks use one core well and two cores badly, so that two runs beside each other finish sooner than
two runs in turn. The processes are forked after the imports, which are thus paid once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from visionkit.errors import InputError, PreemptedError, RunError
from visionkit.forking import CheckedForkContext
from visionkit.printable import for_terminal
from visionkit.run.config import RunConfig
from visionkit.run.feedback.board import Board
from visionkit.run.feedback.state import RunState, shown_to
from visionkit.run.processes.launcher import find_processes
from visionkit.run.processes.lifetime import die_with_parent
from visionkit.run.processes.stop import SIGNALS, write_now, write_through
from visionkit.run.sweep.announce import announce, forward
from visionkit.run.training.device_policy import choose_policy

__all__ = ["Job", "Placement", "choose_jobs", "run_jobs"]

MAX_JOBS = 4
"""Runs at a time unless `--jobs` asks for more: each needs the memory of a run."""

POLL = 0.5
ASKED = "Interrupted: every run saves after its next update and ends. Press Ctrl-C again to end them at once."


@dataclass(frozen=True)
class Job:
    """One run to be trained in a child process.

    Args:
        title: What is printed of it.
        folder: Its folder; what it prints goes to `log.txt` there.
        call: Trains it and returns its result.
    """

    title: str
    folder: Path
    call: Callable[[], dict[str, Any]]


class Placement(NamedTuple):
    """Where the runs of a command are trained.

    Args:
        jobs: Runs at a time.
        threads: Threads of each.
        alone: Whether a run is a single process.
    """

    jobs: int
    threads: int
    alone: bool


def choose_jobs(config: RunConfig, runs: int) -> Placement:
    """Return how many runs are trained at a time, and with how many threads each.

    With `jobs` 0, as many runs as there are threads are trained at a time, four at most, where a run is one
    process on a CPU; otherwise one. The numbers follow from all runs of the command, finished or not, because
    threads decide the last bits of a sum: a command started again must divide them alike.

    Args:
        config: `jobs`, and what the runs use.
        runs: All runs that the command spans.

    Raises:
        InputError: `jobs` is above 1 on a GPU or with several processes a run.
    """
    import torch

    threads = torch.get_num_threads()
    accelerator = choose_policy(config).accelerator
    processes = find_processes(config, accelerator=accelerator)
    alone = processes.world == 1
    # A Ray worker runs in a thread of a process that cannot be forked. Windows has no fork, and on macOS a
    # process that is forked after the imports may crash in Apple's libraries.
    forks = accelerator == "cpu" and alone and processes.launcher != "ray" and sys.platform == "linux"
    if config.jobs < 0:
        raise InputError(f"Expected --jobs to be 0 (auto) or more, but got {config.jobs}.")
    if config.jobs > 1 and not forks:
        raise InputError(
            f"Expected --jobs 1, but got {config.jobs}: runs go at the same time only where each is one "
            "process on a CPU of Linux. Elsewhere start each arm as a command of its own, with --init and "
            "--seeds."
        )
    if not forks:
        return Placement(1, threads, alone)
    jobs = max(1, min(config.jobs or min(threads, MAX_JOBS), runs))
    return Placement(jobs, max(1, threads // jobs), alone)


def run_jobs(
    todo: Sequence[Job],
    *,
    jobs: int,
    threads: int,
    finished: Callable[[Job, dict[str, Any]], None],
    board: Board | None = None,
) -> None:
    """Train all of `todo`, `jobs` at a time; what fails does not stop the others.

    SIGTERM, SIGUSR1 and an interrupt (Ctrl-C) reach every run, which saves and ends; a second interrupt ends
    them at once. A run whose parent is gone ends at once, and is continued by the same command like any
    other that was stopped.

    Args:
        todo: The runs, started in this order.
        jobs: How many at a time.
        threads: Threads of each.
        finished: Called in this process with each result as it comes.
        board: Shows how far each is; made if not given.

    Raises:
        InputError: The first run that failed did so for something the user can put right.
        RunError: The first run that failed did so for another reason, or was asked to stop.
        KeyboardInterrupt: The runs were interrupted.
    """
    import visionkit.tasks  # noqa: F401  what every run imports is imported once, before the fork

    waiting, here = list(todo), os.getpid()
    board = board or Board({job.folder.name: 1.0 for job in todo}, terminal=False)
    failures: list[tuple[type[Exception], str]] = []
    running: dict[Connection, tuple[multiprocessing.process.BaseProcess, Job]] = {}
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if os.getpid() != here:  # a process just forked, which has begun nothing
            os._exit(128 + number)
        again = signal.SIGINT in asked and number == signal.SIGINT
        asked.append(number)
        if number == signal.SIGINT:
            number = signal.SIGKILL if again else signal.SIGTERM
            write_now(f"\n{'Interrupted: ending every run at once.' if again else ASKED}\n")
        for child, _ in list(running.values()):
            if child.pid is not None and child.is_alive():
                os.kill(child.pid, number)

    with _signals(pass_on):
        while (waiting and not asked) or running:
            while waiting and len(running) < jobs and not asked:
                job = waiting.pop(0)
                board.begin(job.folder.name)
                child, end = _start(job, threads)
                running[end] = (child, job)
                if asked and child.pid is not None:  # while it was started, before it was in the table
                    os.kill(child.pid, signal.SIGTERM)
            ready = wait(list(running), timeout=POLL)
            board.draw()
            for end in [end for end in running if end in ready]:
                answer = _answer(end)
                if answer is not None and _show(answer, board, running[end][1]):
                    continue
                child, job = running.pop(end)
                end.close()
                child.join()
                kind, value = answer or _exit_answer(child, asked)
                if isinstance(value, dict) or not asked:  # what is asked to stop is not done
                    board.end(job.folder.name)
                if isinstance(value, dict):
                    finished(job, value)
                elif not isinstance(kind, str):
                    board.show_line(job.folder.name, _ending(kind, str(value)))
                    failures.append((kind, f"{job.folder.name}: {value}\nIts log: {job.folder / 'log.txt'}"))
    if signal.SIGINT in asked:
        raise KeyboardInterrupt
    if failures:
        kind, text = failures[0]
        raise kind(text)
    if asked:
        raise PreemptedError("Asked to stop. Start the same command again to continue.")


def _exit_answer(
    child: multiprocessing.process.BaseProcess, asked: Sequence[int]
) -> tuple[type[Exception], str]:
    code = child.exitcode or 0
    kind = PreemptedError if asked else RunError
    return kind, f"ended {'by signal' if code < 0 else 'with'} {abs(code)}"


def _ending(kind: object, text: str) -> str:
    line = text.splitlines()[0] if text else "no reason was given"
    return line if kind is PreemptedError else f"failed: {line}"


def _show(answer: tuple[Any, Any], board: Board, job: Job) -> bool:
    """Show what a run that goes on has sent; return whether it was that, and not how the run ended."""
    kind, value = answer
    if kind == "notice":
        for line in announce([str(value)]):
            print(f"  notice    {for_terminal(line)}", flush=True)  # noqa: T201
    elif kind == "line":
        board.show_line(job.folder.name, str(value))
    elif kind == "state":
        board.show_state(value)
    return isinstance(kind, str) and kind != "done"


class _Sender:
    """Sends states and lines to the process that shows them."""

    def __init__(self, end: Connection) -> None:
        self.end = end

    def show_state(self, state: RunState) -> None:
        """Send a state."""
        self._send("state", state)

    def show_line(self, name: str, text: str) -> None:
        """Send a line."""
        self._send("line", text)

    def _send(self, kind: str, value: object) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and this process soon
            self.end.send((kind, value))


def _start(job: Job, threads: int) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    here, there = multiprocessing.Pipe(duplex=False)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Fork: the recipe's functions need no import by name, and the heavy imports are already made.
    child = CheckedForkContext().Process(target=_work, args=(job, threads, there, os.getpid()))
    child.start()
    there.close()
    return child, here


def _work(job: Job, threads: int, end: Connection, parent: int) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes it on as SIGTERM, which saves first
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    die_with_parent(parent)
    write_through(None)
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / "log.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(threads)
    forward(lambda line: end.send(("notice", line)))
    try:
        with shown_to(_Sender(end)):
            result = job.call()
        end.send(("done", result))
    except (InputError, RunError) as error:
        kind = next(kind for kind in (InputError, PreemptedError, RunError) if isinstance(error, kind))
        sys.stderr.write(f"\n{error}\n")
        end.send((kind, str(error)))
    except BaseException as error:
        traceback.print_exc()
        end.send((RunError, f"{type(error).__name__}: {error}"))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # skips the exit handlers that belong to the parent


def _answer(end: Connection) -> tuple[str | type[Exception], Any] | None:
    """Return what a run sent, None where it is gone.

    ("notice" or "line", text), ("state", state), ("done", result), or (class, text) of an error.
    """
    try:
        answer: tuple[str | type[Exception], Any] = end.recv()
    except (EOFError, OSError):
        return None
    return answer


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Any:
    try:
        before = {n: signal.signal(n, handler) for n in (*SIGNALS, signal.SIGINT)}
    except ValueError:  # not in the main thread: the caller handles signals there
        before = {}
    try:
        yield
    finally:
        for number, do in before.items():
            signal.signal(number, do)
