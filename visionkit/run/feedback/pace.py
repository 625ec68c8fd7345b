"""How fast something goes, as measured, and the time left: of runs and of predictions. No torch."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Sequence

from visionkit.errors import InputError, expected

__all__ = ["Pace", "duration", "parse_duration", "time_left"]

_EVERY = 1.0  # seconds between the counts that are remembered
_TIME = re.compile(r"(\d+(?:\.\d+)?)(d|h|min|m|s)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}


class Pace:
    """The rate of the last `window` seconds, and the time left at that rate.

    Args:
        window: How far the rate looks back, in seconds.
    """

    def __init__(self, *, window: float) -> None:
        self.window = window
        self._counts: deque[tuple[float, int]] = deque()
        self._done = 0

    def add(self, done: int, now: float | None = None) -> None:
        """Note how much is done; less than before is a new beginning.

        Args:
            done: Images, or whatever is counted.
            now: When, in seconds; now by the monotonic clock if not given.
        """
        now = time.monotonic() if now is None else now
        counts = self._counts
        if counts and done < counts[-1][1]:
            counts.clear()
        self._done = done
        if not counts or now - counts[-1][0] >= _EVERY:
            counts.append((now, done))
        while len(counts) > 2 and now - counts[1][0] > self.window:
            counts.popleft()

    @property
    def rate(self) -> float | None:
        """Return how much is done in a second; None before it can be measured."""
        if len(self._counts) < 2:
            return None
        (since, before), (until, done) = self._counts[0], self._counts[-1]
        return (done - before) / (until - since) if done > before else None

    def left(self, total: float | None) -> float | None:
        """Return the seconds to `total`; None before the rate can be measured."""
        rate = self.rate
        if not rate or total is None:
            return None
        return max(0.0, (total - self._done) / rate)


def time_left(running: Sequence[float], waiting: Sequence[float], slots: int) -> float:
    """Return the seconds until all is done: what waits begins where something ends.

    Args:
        running: Seconds left of each that runs.
        waiting: Seconds that each of those that wait will take, in their order.
        slots: How many run at a time.
    """
    ends = sorted(running)[-slots:] if len(running) > slots else [*running]
    ends += [0.0] * (slots - len(ends))
    for seconds in waiting:
        ends.sort()
        ends[0] += seconds
    return max(ends)


def duration(seconds: float) -> str:
    """Return a time in the largest fitting unit: "4.1 s", "41 s", "2.5 min", "35 min", "2.5 h".

    Args:
        seconds: The time.
    """
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (float("inf"), 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{int(seconds / unit < 10)}f} {name}"
    return "endless"


def parse_duration(text: str) -> float:
    """Return the seconds of "90min", "2h", "1h30m" or "1.5d".

    Args:
        text: A number and a unit (d, h, min or m, s), once or more.

    Raises:
        InputError: It is none.
    """
    plain = text.replace(" ", "")
    parts = _TIME.findall(plain)
    if "".join(number + unit for number, unit in parts) != plain or not parts:
        raise InputError(expected("--budget", "a time such as 90min, 2h or 1h30m", text))
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
