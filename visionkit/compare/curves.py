"""Learning curves over images seen: mean over seeds, images to reach a score, mean lead over another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Curve", "ImagesToReach", "images_to_reach", "mean_curve", "mean_lead"]


@dataclass(frozen=True)
class Curve:
    """A value over images seen.

    Args:
        images: Images seen at each point, rising.
        values: The value at each point.
    """

    images: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, points: Mapping[int, float]) -> Curve:
        """Return the curve through `points` (images seen to value)."""
        pairs = sorted(points.items())
        return cls(tuple(images for images, _ in pairs), tuple(value for _, value in pairs))

    def at(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the linearly interpolated values at `images`, `(N,)`."""
        values: np.ndarray = np.interp(np.asarray(images, dtype=float), self.images, self.values)
        return values


@dataclass(frozen=True)
class ImagesToReach:
    """When a curve reached a score.

    Args:
        target: The score to reach.
        images: Images seen when it was reached, or None when it never was.
        bound: "exact" between two points; "at most" when the first point was already there.
    """

    target: float
    images: float | None
    bound: Literal["exact", "at most", "not reached"]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean of `curves` where all of them are known, interpolated where their points differ."""
    known = [curve for curve in curves if curve.images]
    if not known:
        return Curve((), ())
    start, end = max(c.images[0] for c in known), min(c.images[-1] for c in known)
    grid = sorted({n for curve in known for n in curve.images if start <= n <= end})
    if not grid:
        return Curve((), ())
    mean = np.mean([curve.at(grid) for curve in known], axis=0)
    return Curve(tuple(grid), tuple(float(value) for value in mean))


def images_to_reach(curve: Curve, target: float, *, mode: str = "max") -> ImagesToReach:
    """Return how many images `curve` needs to reach `target` for the first time.

    Args:
        curve: A (mean) learning curve.
        target: The score to reach.
        mode: Whether "max" or "min" of the value is better.
    """
    sign = 1.0 if mode == "max" else -1.0
    values, signed = [sign * value for value in curve.values], sign * target
    for idx, value in enumerate(values):
        if value < signed:
            continue
        if idx == 0:
            return ImagesToReach(target, float(curve.images[0]), "at most")
        before, left, right = values[idx - 1], curve.images[idx - 1], curve.images[idx]
        part = (signed - before) / (value - before)
        return ImagesToReach(target, left + part * (right - left), "exact")
    return ImagesToReach(target, None, "not reached")


def mean_lead(first: Curve, second: Curve) -> float | None:
    """Return the area between two curves divided by its width: the mean of `first - second` over images.

    Returns:
        The lead in the unit of the value, over the images that both curves cover; None without overlap.
    """
    if not first.images or not second.images:
        return None
    start, end = max(first.images[0], second.images[0]), min(first.images[-1], second.images[-1])
    if end <= start:
        return None
    grid = np.unique([start, end, *(n for n in (*first.images, *second.images) if start <= n <= end)])
    gap = first.at(grid) - second.at(grid)
    return float(np.trapezoid(gap, grid) / (end - start))
