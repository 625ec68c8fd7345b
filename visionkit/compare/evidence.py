"""How sure a difference of two arms is: by seeds, by images, and by both together.

A score moves with the seed (initialization, order of data, draws of augmentation) and with the images that it
was taken on. The difference of runs that share seeds tells the first; a bootstrap over images that all runs
share tells the second. Each alone is too narrow: Bouthillier et al., Accounting for Variance in Machine
Learning Benchmarks, MLSys 2021. The two are added as independent errors. What depends on both, a seed that is
better on these images only, is in each of them, so the sum is rather too wide than too narrow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from visionkit.compare.resampling.bootstrap import SAMPLES, ImageBootstrap, percentile_interval
from visionkit.compare.run_record import RunRecord, repeat_word
from visionkit.compare.statistics import (
    SeedError,
    add_errors,
    difference,
    holm,
    seed_error,
    t_quantile,
    two_sided_p,
)

__all__ = ["Evidence", "evidence_of_pairs", "half_width"]

MAX_SEEDS = 1000
_POWER = NormalDist().inv_cdf(0.8)


@dataclass(frozen=True)
class Evidence:
    """The difference of two arms in one score at one fraction and schedule, and how sure it is.

    Args:
        metric: The score with its split.
        first: The arm that the other is subtracted from.
        second: The arm that is subtracted.
        fraction: Fraction of the training data.
        schedule: How many times the base length both trained.
        mean: First minus second, over all seeds.
        seeds: Pairs of runs, or the smaller number of runs.
        images: Images that were scored; 0 where their rows are not known.
        units: Images or groups that were resampled; 0 likewise.
        grouped: Whether groups were.
        seed_interval: 95% interval for other seeds on these images (Student's t); None with one seed.
        image_interval: 95% interval for other images with these weights (bootstrap); None without rows.
        low: Lower end of the 95% interval for all that is known; None where nothing is.
        high: Its upper end.
        seed_variance: Squared standard error from the seeds; None with one seed.
        image_variance: Squared standard error from the images; None without rows.
        p_value: Two-sided, of no difference; None without an interval.
        p_holm: The same adjusted for the number of pairs; equal with two arms.
        needed_seeds: Seeds at which a difference of this size would show in 4 of 5 comparisons, on these
            images; None if no number of them is enough, or the difference shows already.
        needed_images: The same for images, with these seeds.
        missing: Why the images' part is not known; empty if it is.
        repeat: What the runs of an arm are told apart by, and is called a seed above: "seed", "fold" or "pair
            of seed and fold".
    """

    metric: str
    first: str
    second: str
    fraction: float
    schedule: int
    mean: float
    seeds: int
    images: int = 0
    units: int = 0
    grouped: bool = False
    seed_interval: tuple[float, float] | None = None
    image_interval: tuple[float, float] | None = None
    low: float | None = None
    high: float | None = None
    seed_variance: float | None = None
    image_variance: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    needed_seeds: int | None = None
    needed_images: int | None = None
    missing: str = ""
    repeat: str = "seed"

    @property
    def shown(self) -> bool:
        """Return whether the arms differ: at the level of 5%, adjusted for the number of pairs."""
        return self.p_holm is not None and self.p_holm < 0.05


def evidence_of_pairs(
    runs: Mapping[tuple[str, float, int], Sequence[RunRecord]], metrics: Sequence[str]
) -> tuple[Evidence, ...]:
    """Return the evidence on each pair of arms, for each score, fraction and schedule.

    Args:
        runs: The runs by arm, in the order of arms, fraction and schedule.
        metrics: The scores; one that not all runs of a pair have is left out.
    """
    made: list[Evidence] = []
    cells = sorted({(fraction, schedule) for _, fraction, schedule in runs})
    for metric, cell in itertools.product(metrics, cells):
        arms = {
            arm: chosen
            for (arm, *of), chosen in runs.items()
            if tuple(of) == cell and all(_value(r, metric) is not None for r in chosen)
        }
        if len(arms) < 2:
            continue
        bootstrap = ImageBootstrap([record for chosen in arms.values() for record in chosen], metric)
        pairs = [
            _evidence(metric, cell, (first, second), (arms[first], arms[second]), bootstrap)
            for first, second in itertools.combinations(arms, 2)
        ]
        adjusted = holm([1.0 if pair.p_value is None else pair.p_value for pair in pairs])
        made += [
            pair if pair.p_value is None else replace(pair, p_holm=p_holm)
            for pair, p_holm in zip(pairs, adjusted, strict=True)
        ]
    return tuple(made)


def _evidence(
    metric: str,
    cell: tuple[float, int],
    names: tuple[str, str],
    runs: tuple[Sequence[RunRecord], Sequence[RunRecord]],
    bootstrap: ImageBootstrap,
) -> Evidence:
    values = [{r.draw: float(r.result["metrics"][metric]) for r in chosen} for chosen in runs]
    by_seed, from_seeds = difference(*values), seed_error(*values)
    repeat = repeat_word([record for chosen in runs for record in chosen])
    made = Evidence(metric, *names, *cell, by_seed.mean, by_seed.n, missing=bootstrap.problem, repeat=repeat)
    if from_seeds is not None and by_seed.low is not None and by_seed.high is not None:
        interval = (by_seed.low, by_seed.high)
        made = replace(made, seed_interval=interval, seed_variance=from_seeds.variance)
    from_images = None
    if not bootstrap.problem:
        first, second = (np.mean([bootstrap.scores(record) for record in chosen], axis=0) for chosen in runs)
        gaps = first - second  # (SAMPLES,)
        gaps = gaps[np.isfinite(gaps)]
        if len(gaps) > SAMPLES // 2:  # a sample may have nothing to score, where that is rare
            units = bootstrap.units
            from_images = SeedError(float(gaps.var(ddof=1)) * units / (units - 1), units - 1)
            made = replace(
                made,
                images=bootstrap.images,
                units=units,
                grouped=bootstrap.grouped,
                image_interval=percentile_interval(gaps, units),
                image_variance=from_images.variance,
            )
    return _together(made, from_seeds, from_images)


def _together(made: Evidence, seeds: SeedError | None, images: SeedError | None) -> Evidence:
    """Return the evidence with the interval and the test of all that is known."""
    known = [error for error in (seeds, images) if error is not None]
    if not known:
        return made
    total = known[0] if len(known) == 1 else add_errors(*known)
    half, p_value = half_width(total, seeds), max(_p_value(made.mean, each) for each in (total, known[0]))
    made = replace(made, low=made.mean - half, high=made.mean + half, p_value=p_value)
    if p_value < 0.05 or not made.mean:
        return made
    return replace(made, needed_seeds=_needed_seeds(made, images), needed_images=_needed_images(made))


def half_width(total: SeedError, seeds: SeedError | None) -> float:
    """Return half of a 95% interval: that of all sources, and not less than that of the seeds alone.

    With two or three seeds their variance is often far too small by chance. The images' part then gives the
    sum many degrees of freedom that it has not: 95% intervals would hold 87% to 93%. With this bound they
    hold 94% to 98%, whatever the ratio of the two (`tests/run/test_evidence.py`).

    Args:
        total: The errors of all sources, added.
        seeds: That of the seeds; None with one seed.
    """
    known = [total] if seeds is None else [total, seeds]
    return max(t_quantile(each.freedom) * math.sqrt(each.variance) for each in known)


def _p_value(mean: float, error: SeedError) -> float:
    known = mean / math.sqrt(error.variance) if error.variance else math.inf if mean else 0.0
    return two_sided_p(known, error.freedom)


def _needed_seeds(made: Evidence, images: SeedError | None) -> int | None:
    if made.seed_variance is None:
        return None
    one_seed = made.seed_variance * made.seeds
    for count in range(made.seeds + 1, MAX_SEEDS + 1):
        seeds = SeedError(one_seed / count, count - 1)
        total = seeds if images is None else add_errors(seeds, images)
        if abs(made.mean) >= half_width(total, seeds) + _POWER * math.sqrt(total.variance):
            return count
    return None


def _needed_images(made: Evidence) -> int | None:
    if not made.image_variance:
        return None
    # The seeds' part stays; the images' part falls with their number.
    freedom = made.seeds - 1 if made.seed_variance else made.units - 1
    room = (made.mean / (t_quantile(freedom) + _POWER)) ** 2 - (made.seed_variance or 0.0)
    return None if room <= 0 else math.ceil(made.images * made.image_variance / room)


def _value(record: RunRecord, metric: str) -> float | None:
    value = record.result["metrics"].get(metric)
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None
