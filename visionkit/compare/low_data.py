"""The low-data curve: which fraction matches the baseline with all data, and where the arms meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from visionkit.compare.statistics import Difference

__all__ = ["LowData", "low_data"]


@dataclass(frozen=True)
class LowData:
    """The low-data curve of an arm, compared with the baseline's.

    Args:
        arm: The arm.
        baseline: The arm it is compared with.
        matches: Fraction of the data at which the arm has the baseline's score with the largest fraction
            (interpolated on the logarithm of the fraction); None if it never does.
        is_upper_bound: Whether `matches` is only an upper bound: the smallest fraction was already enough.
        meets: The fraction from which on the arm is not shown to be better; None when it is at the largest.
        unshown: The smaller fractions at which the arm is not shown to be better either.
    """

    arm: str
    baseline: str
    matches: float | None
    is_upper_bound: bool
    meets: float | None
    unshown: tuple[float, ...] = ()


def low_data(
    arm: str,
    baseline: str,
    scores: Sequence[tuple[float, float]],
    target: float,
    gaps: Sequence[tuple[float, Difference]],
    *,
    mode: str = "max",
) -> LowData:
    """Return where a low-data curve matches and where it meets the baseline's.

    Args:
        arm: The arm.
        baseline: The arm it is compared with.
        scores: `(fraction of the data, mean score)` of the arm, fractions rising.
        target: The baseline's mean score with its largest fraction.
        gaps: `(fraction of the data, arm minus baseline)`, fractions rising.
        mode: Whether "max" or "min" of the score is better.
    """
    sign = 1.0 if mode == "max" else -1.0
    matches, is_upper_bound = _first_match(scores, target, sign)
    ahead = [sign * gap.mean > 0 and (gap.shown or gap.pairing == "single") for _, gap in gaps]
    last = max((idx for idx, better in enumerate(ahead) if better), default=-1)
    meets = gaps[last + 1][0] if last + 1 < len(gaps) else None
    unshown = tuple(fraction for (fraction, _), better in zip(gaps[:last], ahead, strict=False) if not better)
    return LowData(arm, baseline, matches, is_upper_bound, meets, unshown if last >= 0 else ())


def _first_match(
    scores: Sequence[tuple[float, float]], target: float, sign: float
) -> tuple[float | None, bool]:
    for idx, (fraction, score) in enumerate(scores):
        if sign * score < sign * target:
            continue
        if idx == 0:
            return fraction, True
        before, low = scores[idx - 1]
        part = (target - low) / (score - low)
        return math.exp(math.log(before) + part * (math.log(fraction) - math.log(before))), False
    return None, False
