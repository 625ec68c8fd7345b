"""Statistics over seeds: mean, deviation, the difference of two arms with its 95% interval, many tests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Difference",
    "SeedError",
    "SeedStatistics",
    "add_errors",
    "difference",
    "holm",
    "seed_error",
    "seed_statistics",
    "t_quantile",
    "two_sided_p",
]


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
    n = min(len(first), len(second))
    error = seed_error(first, second)
    if error is None:
        return Difference(mean, None, None, "single", n)
    # Rounding the degrees of freedom down widens the interval, so it never claims too much.
    half = t_quantile(max(1, math.floor(error.freedom))) * math.sqrt(error.variance)
    pairing: Literal["paired", "unpaired"] = "paired" if set(first) == set(second) else "unpaired"
    return Difference(mean, mean - half, mean + half, pairing, n)


@dataclass(frozen=True)
class SeedError:
    """How much the difference of two means may be off by the choice of seeds.

    Args:
        variance: The squared standard error.
        freedom: Degrees of freedom of its estimate.
    """

    variance: float
    freedom: float


def seed_error(
    first: Mapping[tuple[int, int], float], second: Mapping[tuple[int, int], float]
) -> SeedError | None:
    """Return the error of the difference, paired where seeds and folds are the same; None for one seed.

    Args:
        first: As `difference` takes it.
        second: Likewise.
    """
    if min(len(first), len(second)) < 2:
        return None
    if set(first) == set(second):
        gaps = [first[draw] - second[draw] for draw in sorted(first)]
        return SeedError(statistics.variance(gaps) / len(gaps), len(gaps) - 1)
    parts = [(statistics.variance(arm.values()) / len(arm), len(arm) - 1) for arm in (first, second)]
    return add_errors(*(SeedError(*part) for part in parts))


def add_errors(first: SeedError, second: SeedError) -> SeedError:
    """Return the error of two independent sources together; degrees of freedom by Welch and Satterthwaite.

    Satterthwaite, An approximate distribution of estimates of variance components, 1946.
    """
    total = first.variance + second.variance
    if total == 0:
        return SeedError(0.0, min(first.freedom, second.freedom))
    return SeedError(total, total**2 / sum(e.variance**2 / e.freedom for e in (first, second)))


def t_quantile(freedom: float, level: float = 0.975) -> float:
    """Return the quantile of Student's t.

    Args:
        freedom: Degrees of freedom, above 0.
        level: Probability below it; the default gives a two-sided 95% interval.
    """
    from scipy.special import stdtrit  # not at the top: the command line asks this module for other things

    return float(stdtrit(freedom, level))


def two_sided_p(t: float, freedom: float) -> float:
    """Return the probability of a Student's t at least as far from zero as `t`.

    Args:
        t: The statistic; infinity gives 0.
        freedom: Degrees of freedom, above 0.
    """
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(t)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by Holm's step-down method, in the order given.

    Rejecting what is below a level keeps the probability of any false rejection below that level, whatever
    the dependence between the tests.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics, 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
