"""How far a run is, as its line and its bar say it, and who is to be shown it. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from visionkit.run.feedback.pace import duration

__all__ = ["Audience", "RunState", "audience", "shown_to"]


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Args:
        name: The name of its folder.
        epoch: The epoch that it is in, from 1.
        epochs: Its epochs.
        images: Images seen.
        planned: Images of the whole run.
        loss: The latest training loss, or None.
        score: Name and value of the latest monitored score, or None.
        best: Whether this is the best so far.
        seconds: Seconds of training since this start.
        left: Seconds to the end, or None before they can be told.
        doing: "training", "validating" or "testing".
    """

    name: str
    epoch: int
    epochs: int
    images: int
    planned: int
    loss: float | None = None
    score: tuple[str, float] | None = None
    best: bool = False
    seconds: float = 0.0
    left: float | None = None
    doing: str = "training"

    def line(self) -> str:
        """Return the line of a validation.

        `epoch 3/6  images 2,976  train/loss 0.91  val/top1 0.431 (best)  2.1 min, 4.0 min left`
        """
        left = f", {duration(self.left)} left" if self.left else ""
        score = self._score() + (" (best)" if self.best else "")
        parts = [self._epoch(), f"images {self.images:,}", self._loss(), score, duration(self.seconds) + left]
        return "  ".join(part for part in parts if part)

    def bar(self) -> str:
        """Return what stands beside the bar of the run."""
        left = f"{duration(self.left)} left" if self.left else ""
        doing = self.doing if self.doing != "training" else ""
        return "  ".join(part for part in (self._epoch(), self._loss(), self._score(), doing or left) if part)

    def _epoch(self) -> str:
        return f"epoch {self.epoch}/{self.epochs}"

    def _loss(self) -> str:
        return "" if self.loss is None else f"train/loss {self.loss:.3g}"

    def _score(self) -> str:
        if self.score is None:
            return ""
        name, value = self.score
        return f"{name} {value:.3f}" if 1e-3 <= abs(value) < 1e4 or not value else f"{name} {value:.3g}"


class Audience(Protocol):
    """What shows the states and lines of runs."""

    def show_state(self, state: RunState) -> None:
        """Take the new state of a run."""

    def show_line(self, name: str, text: str) -> None:
        """Print a line of the run `name`."""


_AUDIENCE: list[Audience] = []


def audience() -> Audience | None:
    """Return who is shown the runs of this process, or None."""
    return _AUDIENCE[-1] if _AUDIENCE else None


@contextmanager
def shown_to(someone: Audience) -> Iterator[None]:
    """Show the runs inside the block to `someone`."""
    _AUDIENCE.append(someone)
    try:
        yield
    finally:
        _AUDIENCE.pop()
