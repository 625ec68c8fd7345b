"""Scores, choices and differences with their intervals, from what each probe got right."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from visionkit.compare.evidence import half_width
from visionkit.compare.resampling.bootstrap import bootstrap_draws, percentile_interval
from visionkit.compare.statistics import SeedError, add_errors, difference, seed_error, seed_statistics
from visionkit.run.probing.networks import POOLED
from visionkit.run.probing.outcomes import Arm, Outcome
from visionkit.run.probing.result import Interval, ProbeCell, ProbeChoice, ProbeDifference, ProbeScore

__all__ = ["CHOSEN", "Summary"]

CHOSEN = "chosen"
"""The level of a difference that is that of the lowest loss on the training images, seed by seed."""

Floats = NDArray[np.float64]
Cell = tuple[Arm, float]


class Summary:
    """Scores and their intervals; every score is of the same images, and every bootstrap sample too.

    Args:
        outcomes: Of all probes, each arm and fraction with the same seeds.
        groups: The group of each scored image: drawn as a whole. None: each alone.

    Attributes:
        units: Images, or groups of images, that are drawn.
    """

    def __init__(self, outcomes: Sequence[Outcome], groups: Sequence[str] | None = None) -> None:
        self._cells: dict[Cell, list[Outcome]] = {}
        for each in outcomes:
            self._cells.setdefault((each.arm, each.draw.fraction), []).append(each)
        count = len(outcomes[0].linear)
        names, unit = np.unique(np.arange(count) if groups is None else groups, return_inverse=True)
        self.units = len(names)
        # The linear classifiers' columns, then the neighbours'.
        correct = np.column_stack([*(o.linear for o in outcomes), *(o.neighbors for o in outcomes)])
        samples = _bootstrap(correct.astype(np.float64), unit, self.units) if self.units > 1 else None
        self._samples: dict[tuple[int, str], Floats] = {}
        for index, each in enumerate(outcomes):
            if samples is not None:
                self._samples[id(each), "linear"] = samples[:, index]
                self._samples[id(each), "neighbors"] = samples[:, len(outcomes) + index]

    def cells(self) -> tuple[ProbeCell, ...]:
        """Return every arm at every fraction."""
        return tuple(
            ProbeCell(
                *arm,
                rows[0].dim,
                fraction,
                len(rows[0].draw.rows),
                self._score(rows),
                self._score(rows, "neighbors"),
                tuple(each.strength for each in rows),
                tuple(each.loss for each in rows),
                sum(each.at_end for each in rows),
            )
            for (arm, fraction), rows in self._cells.items()
        )

    def choices(self) -> tuple[ProbeChoice, ...]:
        """Return, for each network with more than one level, the level of the lowest loss."""
        made = []
        for (backbone, init, fraction), levels in self._networks().items():
            if len(levels) < 2:
                continue
            by_seed = zip(*levels.values(), strict=True)
            rows = [min(of_seed, key=lambda each: each.loss) for of_seed in by_seed]
            gap = None
            if POOLED in levels:
                names = ((init, CHOSEN), (init, POOLED))
                gap = self._difference(backbone, fraction, names, rows, levels[POOLED])
            chosen = tuple(each.arm.level for each in rows)
            made.append(ProbeChoice(backbone, init, fraction, chosen, self._score(rows), gap))
        return tuple(made)

    def differences(self) -> tuple[ProbeDifference, ...]:
        """Return each level minus the pooled vector, and trained minus random weights at each level."""
        made = []
        networks = self._networks()
        for (backbone, init, fraction), levels in networks.items():
            pooled = levels.get(POOLED)
            for level, rows in levels.items():
                if pooled is not None and level != POOLED:
                    names = ((init, level), (init, POOLED))
                    made.append(self._difference(backbone, fraction, names, rows, pooled))
                random = networks.get((backbone, "scratch", fraction), {}).get(level)
                if init != "scratch" and random is not None:
                    names = ((init, level), ("scratch", level))
                    made.append(self._difference(backbone, fraction, names, rows, random))
        return tuple(made)

    def _networks(self) -> dict[tuple[str, str, float], dict[str, list[Outcome]]]:
        networks: dict[tuple[str, str, float], dict[str, list[Outcome]]] = {}
        for (arm, fraction), rows in self._cells.items():
            if arm.init:
                networks.setdefault((arm.backbone, arm.init, fraction), {})[arm.level] = rows
        return networks

    def _score(self, rows: Sequence[Outcome], method: str = "linear") -> ProbeScore:
        values = [float(getattr(each, method).mean()) for each in rows]
        by_seed = seed_statistics(values)
        # The mean against a constant: Student's t of one sample.
        gap = difference(_by_seed(rows, values), dict.fromkeys(_by_seed(rows, values), 0.0))
        seeds = None if gap.low is None or gap.high is None else (gap.low, gap.high)
        return ProbeScore(tuple(values), by_seed.mean, seeds, self._image_interval(rows[0], method))

    def _image_interval(self, outcome: Outcome, method: str) -> Interval | None:
        samples = self._samples.get((id(outcome), method))
        return None if samples is None else percentile_interval(samples, self.units)

    def _difference(
        self,
        backbone: str,
        fraction: float,
        names: tuple[tuple[str, str], tuple[str, str]],
        first: Sequence[Outcome],
        second: Sequence[Outcome],
    ) -> ProbeDifference:
        values = [_by_seed(rows, [float(each.linear.mean()) for each in rows]) for rows in (first, second)]
        mean = statistics.fmean(values[0].values()) - statistics.fmean(values[1].values())
        seeds, low, high = seed_error(*values), None, None
        if self._samples:
            gaps = np.mean(
                [
                    self._samples[id(one), "linear"] - self._samples[id(other), "linear"]
                    for one, other in zip(first, second, strict=True)
                ],
                axis=0,
            )  # (SAMPLES,)
            units = self.units
            images = SeedError(float(gaps.var(ddof=1)) * units / (units - 1), units - 1)
            half = half_width(images if seeds is None else add_errors(seeds, images), seeds)
            low, high = mean - half, mean + half
        return ProbeDifference(backbone, fraction, *names, mean, low, high)


def _by_seed(rows: Sequence[Outcome], values: Sequence[float]) -> Mapping[tuple[int, int], float]:
    return {(each.draw.seed, -1): value for each, value in zip(rows, values, strict=True)}


def _bootstrap(correct: Floats, unit: NDArray[np.int64], units: int) -> Floats:
    """Return the fraction that is right `(SAMPLES, K)`, of correct answers `(M, K)`."""
    sums = np.zeros((units, 1 + correct.shape[1]))
    np.add.at(sums, unit, np.column_stack([np.ones(len(correct)), correct]))
    blocks = [block @ sums for block in bootstrap_draws(units, units)]
    drawn = np.concatenate(blocks)
    fractions: Floats = drawn[:, 1:] / drawn[:, :1]
    return fractions
