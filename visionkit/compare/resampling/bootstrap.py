"""The bootstrap over images: the same draws for every run, so that arms are compared on the same images.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993. Groups of images that were held out together
(frames of one drive) are drawn as a whole, since images of one group are no independent draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from visionkit.compare.resampling.image_scores import ImageScores, read_image_scores
from visionkit.compare.resampling.weighted_scores import weighted_scores
from visionkit.compare.run_record import RunRecord
from visionkit.compare.statistics import t_quantile

__all__ = ["SAMPLES", "ImageBootstrap", "bootstrap_draws", "percentile_interval"]

SAMPLES = 1000
_CELLS = 4_000_000  # counts of one block of samples
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6  # how far the score of the rows may be from the reported one: float32 sums


class ImageBootstrap:
    """Bootstrap samples of the images of a split, and the scores of runs on them.

    Args:
        records: All runs that are compared.
        metric: The name of a score with its split: "val/top1".

    Attributes:
        problem: Why there are no samples; empty if there are.
        images: How many images were scored, over all folds.
        units: How many images, or groups of images, are drawn.
        grouped: Whether groups are drawn.
    """

    def __init__(self, records: Sequence[RunRecord], metric: str) -> None:
        split, _, self._name = metric.partition("/")
        self._rows: dict[Path, ImageScores] = {}
        self._scores: dict[Path, NDArray[np.float64]] = {}
        self.problem = ""
        for record in records:
            rows = read_image_scores(record.folder, split)
            problem = rows if isinstance(rows, str) else _difference(record, metric, rows)
            if isinstance(rows, str) or problem:
                self.problem = f"{record.folder.name}: {problem}"
                break
            self._rows[record.folder] = rows
        known = [] if self.problem else list(self._rows.values())
        names = {name for rows in known for name in rows.groups}
        self._position = {name: index for index, name in enumerate(sorted(names))}
        self.images = len({name for rows in known for name in rows.ids})
        self.units = len(names)
        self.grouped = any(rows.grouped for rows in known)
        if not self.problem and self.units < 2:
            self.problem = f"the {split} split has one {'group of images' if self.grouped else 'image'}"

    def scores(self, record: RunRecord) -> NDArray[np.float64]:
        """Return the score of a run on each sample `(SAMPLES,)`; NaN on one with nothing to score.

        Args:
            record: One of the runs.
        """
        known = self._scores.get(record.folder)
        if known is None:
            rows = self._rows[record.folder]
            unit = np.array([self._position[name] for name in rows.groups])  # (N,)
            drawn = bootstrap_draws(self.units, max(self.units, self.images))
            parts = [weighted_scores(rows.columns, draws[:, unit])[self._name] for draws in drawn]
            known = self._scores[record.folder] = np.concatenate(parts)
        return known


def bootstrap_draws(units: int, width: int) -> Iterator[NDArray[np.int64]]:
    """Yield blocks `(samples, units)` of how often each unit is drawn: the same `SAMPLES` at each call.

    Args:
        units: How many images, or groups, are drawn from.
        width: Numbers that a sample takes in the caller's arrays, so that a block of samples fits memory.
    """
    rng = np.random.default_rng(0)
    size = max(1, _CELLS // width)
    for start in range(0, SAMPLES, size):
        yield rng.multinomial(units, np.full(units, 1 / units), size=min(size, SAMPLES - start))


def percentile_interval(values: NDArray[np.float64], units: int) -> tuple[float, float]:
    """Return the 95% percentile interval of bootstrap values, widened for few units.

    The plain interval is too narrow by about sqrt((n - 1) / n) and by the difference of the normal and
    Student's distribution; other percentiles make up for both.

    Args:
        values: The statistic of each sample.
        units: How many images, or groups, were drawn.

    Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician, 2015.
    """
    tail = NormalDist().cdf(-math.sqrt(units / (units - 1)) * t_quantile(units - 1))
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)


def _difference(record: RunRecord, metric: str, rows: ImageScores) -> str:
    """Return how the rows of a run contradict its result, or an empty text."""
    reported, score = record.result["metrics"].get(metric), rows.scores.get(metric.partition("/")[2])
    if score is None:
        return f"{metric} is no score of single images"
    if reported is None or not math.isclose(score, reported, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE):
        return f"its images give {metric} {score:.6g}, its result has {reported}"
    return ""
