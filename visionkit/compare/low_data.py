"""With how little data: what share of it matches the baseline with all, and where the arms meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from visionkit.compare.statistics import Difference

__all__ = ["LowData", "low_data"]


@dataclass(frozen=True)
class LowData:
    """What the low-data curve of an arm says against the baseline.

    Args:
        arm: The arm.
        baseline: The arm it is held against.
        matches: Share of the data at which the arm scores what the baseline scores with the largest share
            (interpolated on the logarithm of the share); None when it never does.
        at_most: Whether `matches` is only an upper bound: the smallest share was already enough.
        meets: The share from which on the arm is not shown to be better; None when it is at the largest.
        unshown: The smaller shares at which the arm is not shown to be better either.
    """

    arm: str
    baseline: str
    matches: float | None
    at_most: bool
    meets: float | None
    unshown: tuple[float, ...] = ()


def low_data(
    arm: str,
    baseline: str,
    scores: Sequence[tuple[float, float]],
    goal: float,
    gaps: Sequence[tuple[float, Difference]],
    *,
    mode: str = "max",
) -> LowData:
    """Read a low-data curve.

    Args:
        arm: The arm.
        baseline: The arm it is held against.
        scores: The arm's share of the data and mean score, shares rising.
        goal: The baseline's mean score with its largest share.
        gaps: Share of the data and arm less baseline, shares rising.
        mode: Whether "max" or "min" of the score is better.
    """
    sign = 1.0 if mode == "max" else -1.0
    matches, at_most = _first_share(scores, goal, sign)
    ahead = [sign * gap.mean > 0 and (gap.shown or gap.pairing == "single") for _, gap in gaps]
    last = max((position for position, better in enumerate(ahead) if better), default=-1)
    meets = gaps[last + 1][0] if last + 1 < len(gaps) else None
    unshown = tuple(share for (share, _), better in zip(gaps[:last], ahead, strict=False) if not better)
    return LowData(arm, baseline, matches, at_most, meets, unshown if last >= 0 else ())


def _first_share(
    scores: Sequence[tuple[float, float]], goal: float, sign: float
) -> tuple[float | None, bool]:
    for position, (share, score) in enumerate(scores):
        if sign * score < sign * goal:
            continue
        if position == 0:
            return share, True
        before, low = scores[position - 1]
        part = (goal - low) / (score - low)
        return math.exp(math.log(before) + part * (math.log(share) - math.log(before))), False
    return None, False
