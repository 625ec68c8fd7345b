"""Progress of a verb: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from visionkit.run.feedback.pace import Pace, duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ImageProgress", "image_progress"]

_EVERY = 30.0  # seconds between lines
_WINDOW = 30.0  # seconds that a rate looks back


class ImageProgress:
    """Says how many images, or steps, are done, how many a second, and the time left, on standard error.

    Args:
        total: Images in all.
        unit: What they are called.
        terminal: Whether to draw a bar; None: whether standard error is a terminal.
    """

    def __init__(self, total: int, *, unit: str = "images", terminal: bool | None = None) -> None:
        self.total, self.done, self.unit = total, 0, unit
        self._start = self._shown = time.monotonic()
        self._pace = Pace(window=_WINDOW)
        self._pace.add(0, self._start)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if sys.stderr.isatty() if terminal is None else terminal:
            self._bar = _bar()
            self._task = self._bar.add_task("", total=total, rate="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    def advance(self) -> None:
        """Count one image."""
        self.done += 1
        now = time.monotonic()
        self._pace.add(self.done, now)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, rate=self._rate_text())
            if self.done >= self.total:
                self._bar.stop()  # another may begin: a terminal shows one at a time
        elif now - self._shown >= _EVERY and self.done < self.total:
            self._shown = now
            seconds = self._pace.left(self.total)
            left = "" if seconds is None else f", {duration(seconds)} left"
            sys.stderr.write(f"{self.done:,} of {self.total:,} {self.unit}, {self._rate_text()}{left}\n")
            sys.stderr.flush()

    def _rate_text(self) -> str:
        rate = self._pace.rate
        return f"{rate:,.3g} {self.unit}/s" if rate else ""


@contextmanager
def image_progress(unit: str = "images") -> Iterator[Callable[[int], Callable[[], None]]]:
    """Give a function that begins to count: it takes the number of images, and returns what counts one.

    Args:
        unit: What they are called.
    """
    with ExitStack() as stack:
        yield lambda total: stack.enter_context(ImageProgress(total, unit=unit)).advance


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
    )
