"""How two sides are timed: in turn, in one process, by the CPU time they take."""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Pairs", "cpu_seconds", "time_pairs"]


@dataclass(frozen=True)
class Pairs:
    """Seconds a call of each side, one pair a round."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    ours_wall: tuple[float, ...]
    theirs_wall: tuple[float, ...]

    def ratios(self, *, at_most: bool, wall: bool = False) -> list[float]:
        """The peer's time over ours of each pair; with `at_most` ours over the peer's."""
        ours, theirs = (self.ours_wall, self.theirs_wall) if wall else (self.ours, self.theirs)
        return [o / t if at_most else t / o for o, t in zip(ours, theirs, strict=True)]

    def medians(self) -> tuple[float, float]:
        return statistics.median(self.ours), statistics.median(self.theirs)


def cpu_seconds() -> float:
    """CPU seconds of this process and of the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def time_pairs(
    ours: Callable[[], Any], theirs: Callable[[], Any], *, rounds: int, least: float, clock: str = "cpu"
) -> Pairs:
    """Time both sides in turn, the first one changing from round to round.

    A call shorter than `least` seconds is repeated until it fills them, on its side alone.
    """
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    now = time.perf_counter if clock == "wall" else cpu_seconds

    def once(call: Callable[[], Any], count: int) -> tuple[float, float]:
        gc.collect()
        wait()
        wall, start = time.perf_counter(), now()
        for _ in range(count):
            call()
        wait()
        return (now() - start) / count, (time.perf_counter() - wall) / count

    counts = [max(1, round(least / max(once(call, 1)[0], 1e-9))) for call in (ours, theirs)]
    ours_all, theirs_all = [], []
    for number in range(rounds):
        if number % 2:
            ours_all.append(once(ours, counts[0]))
            theirs_all.append(once(theirs, counts[1]))
        else:
            theirs_all.append(once(theirs, counts[1]))
            ours_all.append(once(ours, counts[0]))
    (ours_time, ours_wall), (theirs_time, theirs_wall) = zip(*ours_all), zip(*theirs_all)
    return Pairs(ours_time, theirs_time, ours_wall, theirs_wall)
