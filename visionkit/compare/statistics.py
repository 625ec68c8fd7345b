"""Statistics over seeds: mean, standard deviation, and the difference of two arms with its 95% interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Difference", "SeedStatistics", "difference", "seed_statistics"]

# Two-sided 95% quantiles of Student's t for 1 .. 30 degrees of freedom.
_T95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_Z95 = 1.959964


@dataclass(frozen=True)
class SeedStatistics:
    """A quantity over seeds.

    Args:
        mean: The mean.
        sd: The sample standard deviation (n - 1); None for a single value.
        n: How many values.
        low: The smallest value.
        high: The largest value.
    """

    mean: float
    sd: float | None
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The first arm minus the second.

    Args:
        mean: The difference of the means.
        low: Lower end of the 95% interval; None where one seed leaves none.
        high: Upper end of the 95% interval.
        pairing: "paired" (both arms have the same seeds and folds), "unpaired" (Welch) or "single" (no
            interval).
        n: Pairs of runs, or the smaller number of runs.
    """

    mean: float
    low: float | None
    high: float | None
    pairing: Literal["paired", "unpaired", "single"]
    n: int

    @property
    def shown(self) -> bool:
        """Return whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def seed_statistics(values: Sequence[float]) -> SeedStatistics:
    """Return mean, sample standard deviation and range of at least one value."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return SeedStatistics(statistics.fmean(values), sd, len(values), min(values), max(values))


def difference(first: Mapping[tuple[int, int], float], second: Mapping[tuple[int, int], float]) -> Difference:
    """Return `first - second`, paired by seed and fold where these are the same.

    Args:
        first: Seed and fold (-1: none) to value, of one arm; at least one.
        second: The same of the other arm; at least one.
    """
    mean = statistics.fmean(first.values()) - statistics.fmean(second.values())
    if set(first) == set(second) and len(first) > 1:
        gaps = [first[draw] - second[draw] for draw in sorted(first)]
        half = _t95(len(gaps) - 1) * statistics.stdev(gaps) / math.sqrt(len(gaps))
        return Difference(mean, mean - half, mean + half, "paired", len(gaps))
    if len(first) > 1 and len(second) > 1:
        half = _welch_half_width(list(first.values()), list(second.values()))
        return Difference(mean, mean - half, mean + half, "unpaired", min(len(first), len(second)))
    return Difference(mean, None, None, "single", min(len(first), len(second)))


def _welch_half_width(first: Sequence[float], second: Sequence[float]) -> float:
    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    total = sum(parts)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True))
    return _t95(freedom) * math.sqrt(total)


def _t95(freedom: float) -> float:
    if freedom <= len(_T95):
        # Rounding the degrees of freedom down widens the interval, so it never claims too much.
        return _T95[max(int(freedom), 1) - 1]
    return _Z95 + (_Z95**3 + _Z95) / (4 * freedom)
