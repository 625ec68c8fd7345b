"""All runs of a command as they train: lines everywhere; on a terminal a bar for each, and one over all."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from visionkit.printable import for_terminal
from visionkit.run.feedback.pace import duration, time_left
from visionkit.run.feedback.state import RunState
from visionkit.run.processes.stop import write_through

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Board"]

_EVERY = 0.9  # seconds between two drawings of the bars


class Board:
    """Prints the lines of runs, and draws their bars where standard error is a terminal.

    No thread draws: the training process draws between two steps, once a second.

    Args:
        amounts: The runs of the command that are still to be trained, by the names of their folders in their
            order, with how much each trains relative to the others.
        titles: What is printed before a line of a run, by name; a run without one prints indented lines.
        jobs: Runs at a time.
        terminal: Whether to draw bars; None: whether standard error is a terminal.
    """

    def __init__(
        self,
        amounts: Mapping[str, float],
        *,
        titles: Mapping[str, str] | None = None,
        jobs: int = 1,
        terminal: bool | None = None,
    ) -> None:
        self._amounts, self._titles, self._jobs = dict(amounts), dict(titles or {}), jobs
        self._terminal = sys.stderr.isatty() if terminal is None else terminal
        self._states: dict[str, RunState] = {}
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._drawn = 0.0
        self._messages: list[str] = []

    def __enter__(self) -> Self:
        if self._terminal:
            self._bars = _bars()
            self._bars.start()
            if len(self._amounts) > 1:
                self._tasks[""] = self._bars.add_task(f"all {len(self._amounts)} runs", total=1.0, text="")
            write_through(self._messages.append)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            write_through(None)
            for task in self._tasks.values():
                self._bars.remove_task(task)
            self._print_messages()
            self._bars.stop()
            self._bars = None

    def begin(self, name: str) -> None:
        """Note that a run begins."""
        self._began[name] = time.monotonic()
        if self._bars is not None:
            over_all = self._tasks.pop("", None)  # stays below the others
            if over_all is not None:
                self._bars.remove_task(over_all)
            self._tasks[name] = self._bars.add_task(name, total=1.0, text="starting")
            if over_all is not None:
                self._tasks[""] = self._bars.add_task(f"all {len(self._amounts)} runs", total=1.0, text="")
            self.draw(now=True)

    def end(self, name: str) -> None:
        """Note that a run has ended, whether well or not."""
        if name in self._began and name not in self._took:
            self._took[name] = time.monotonic() - self._began[name]
        if self._bars is not None and name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
            self.draw(now=True)

    def show_state(self, state: RunState) -> None:
        """Take the new state of a run."""
        self._states[state.name] = state
        self.draw()

    def show_line(self, name: str, text: str) -> None:
        """Print a line of a run."""
        title = self._titles.get(name)
        print(for_terminal(f"{title}  {text}" if title else f"  {text}"), flush=True)  # noqa: T201

    def left(self) -> float | None:
        """Return the seconds until all runs are done, from what was measured; None before that."""
        known = {name: seconds for name, seconds in self._took.items() if name in self._states}
        running: dict[str, float | None] = {}
        for name in self._began.keys() - self._took.keys():
            state = self._states.get(name)
            running[name] = None if state is None else state.left
            if state is not None and state.left is not None:
                known[name] = time.monotonic() - self._began[name] + state.left
        if not known:
            return None
        unit = sum(known.values()) / sum(self._amounts.get(name, 1.0) for name in known)
        waiting = [unit * amount for name, amount in self._amounts.items() if name not in self._began]
        going = [
            unit * self._amounts.get(name, 1.0) if left is None else left for name, left in running.items()
        ]
        return time_left(going, waiting, self._jobs)

    def summary(self) -> str:
        """Return how many runs are finished and the time left of all: "1 of 4 runs, 7.1 min left"."""
        left = self.left()
        text = f"{len(self._took)} of {len(self._amounts)} runs"
        return f"{text}, {duration(left)} left" if left else text

    def draw(self, *, now: bool = False) -> None:
        """Draw the bars, if they are drawn at all and were not just before.

        Args:
            now: Even if they were.
        """
        if self._bars is None or (not now and time.monotonic() - self._drawn < _EVERY):
            return
        self._drawn = time.monotonic()
        self._print_messages()
        done = sum(self._amounts.get(name, 1.0) for name in self._took)
        for name, task in self._tasks.items():
            state = self._states.get(name)
            if state is None:
                continue
            fraction = min(1.0, state.images / max(1, state.planned))
            done += fraction * self._amounts.get(name, 1.0)
            self._bars.update(task, completed=fraction, text=state.bar())
        if "" in self._tasks:
            all_of_it = sum(self._amounts.values())
            self._bars.update(self._tasks[""], completed=done / all_of_it, text=self.summary())
        self._bars.refresh()

    def _print_messages(self) -> None:
        while self._messages:
            sys.stderr.write(self._messages.pop(0))
            sys.stderr.flush()


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
        ),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        # Where only standard error is a terminal, lines go where standard output goes.
        redirect_stdout=sys.stdout.isatty(),
    )
