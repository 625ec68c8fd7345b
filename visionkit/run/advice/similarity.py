"""How similar images are to what weights were trained on, by the nearest neighbour of each image.

A proxy: weights of like images put images of one class side by side, where the pixels alone do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from visionkit.compare.resampling.bootstrap import bootstrap_draws, percentile_interval
from visionkit.compare.statistics import t_quantile
from visionkit.errors import DataError
from visionkit.metrics.embedding.neighbors import blocks_of_neighbors
from visionkit.run.advice.advise import Similarity

__all__ = [
    "MIN_AGREEMENT",
    "MIN_IMAGES",
    "SIMILAR",
    "Accuracy",
    "MeasuredSimilarity",
    "measure_similarity",
    "nearest_correct",
]

SIMILAR = 1 / 3
"""Weights that remove more than this fraction of the errors were trained on similar images.

Between traffic signs and ultrasound (0.15 and 0.2) and CIFAR-10 (0.45): see the how-to on advice.
"""
MIN_IMAGES = 250
"""With fewer images an image has no neighbour of its kind: even photographs come out as different."""
MIN_AGREEMENT = 0.975  # fraction of bootstrap samples on one side of the limit


@dataclass(frozen=True)
class Accuracy:
    """A fraction of images, with Wilson's 95% interval (JASA, 1927).

    Args:
        value: The fraction.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, units: int) -> Accuracy:
        """Return the interval of a fraction of `units` independent draws."""
        z2 = t_quantile(math.inf) ** 2
        middle = (value + z2 / (2 * units)) / (1 + z2 / units)
        half = math.sqrt(z2 * (value * (1 - value) / units + z2 / (4 * units**2))) / (1 + z2 / units)
        return cls(value, max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class MeasuredSimilarity:
    """What was measured.

    Args:
        accuracies: Of the nearest neighbour, by the features that were compared.
        largest_class: Fraction of the images that are of the largest class: what a constant answer scores.
        images: Images that were scored.
        unscored: Images that could not be: no other group has an image of their class.
        units: Groups of images, or images, that count as independent.
        errors_removed: Fraction of the errors of random weights or pixels, whichever has fewer, that the
            trained weights do not make; None where there are none.
        low: Lower end of its 95% bootstrap interval; None where a sample has no errors.
        high: Upper end.
        similarity: "similar" if `errors_removed` is above `SIMILAR`, else "different".
        agreement: Fraction of the bootstrap samples that say the same.
    """

    accuracies: Mapping[str, Accuracy]
    largest_class: float
    images: int
    unscored: int
    units: int
    errors_removed: float | None
    low: float | None
    high: float | None
    similarity: Similarity
    agreement: float

    @property
    def shown(self) -> bool:
        """Whether nearly all bootstrap samples say the same, of enough images where it is "different"."""
        return self.agreement >= MIN_AGREEMENT and (self.similarity == "similar" or self.images >= MIN_IMAGES)


def measure_similarity(
    vectors: Mapping[str, Tensor], labels: Tensor, groups: Sequence[str] | None = None
) -> MeasuredSimilarity:
    """Return how much better the nearest neighbours by trained weights are than those by the others.

    The bootstrap draws images, or groups as a whole, and holds their neighbours as they are.

    Args:
        vectors: `(N, D)` of length 1, by name: "pretrained" first, then what it is compared with.
        labels: `(N,)` classes.
        groups: The group of each image: near copies that are no neighbours of each other. None: each alone.

    Raises:
        DataError: Fewer than two images or groups can be scored, or they are of one class.
    """
    number = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    classes = labels.numpy()
    if len(np.unique(classes)) < 2:
        raise DataError(f"Expected images of two classes or more, but all {len(classes)} are of one.")
    pairs = np.unique(np.stack([classes, number]), axis=1)[0]  # the class of each (class, group)
    known = np.bincount(pairs)[classes] > 1
    units, unit = np.unique(number[known], return_inverse=True)
    if len(units) < 2:
        raise DataError(
            f"Expected images of one class in two groups or more, but of {len(classes)} images only "
            f"{int(known.sum())} have their class in another. Measure more images, or give other groups."
        )
    correct = np.stack([nearest_correct(rows, classes, number) for rows in vectors.values()], 1)[known]
    sums = np.zeros((len(units), 1 + correct.shape[1]))
    np.add.at(sums, unit, np.column_stack([np.ones(len(correct)), correct]))
    errors_removed = float(_errors_removed(sums.sum(0)))
    draws = bootstrap_draws(len(units), len(units))
    drawn = np.concatenate([_errors_removed(np.matmul(block, sums, dtype=np.float64)) for block in draws])
    similarity: Similarity = "similar" if errors_removed > SIMILAR else "different"
    low, high = percentile_interval(drawn, len(units)) if np.isfinite(drawn).all() else (None, None)
    same = (drawn > SIMILAR) == (similarity == "similar")
    return MeasuredSimilarity(
        {
            name: Accuracy.of(float(value), len(units))
            for name, value in zip(vectors, correct.mean(0), strict=True)
        },
        float(np.bincount(classes[known]).max() / known.sum()),
        int(known.sum()),
        int((~known).sum()),
        len(units),
        errors_removed if math.isfinite(errors_removed) else None,
        low,
        high,
        similarity,
        float((same & np.isfinite(drawn)).mean()),
    )


def nearest_correct(
    vectors: Tensor, labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether the nearest image of another group is of the same class, for each image `(N,)`.

    Args:
        vectors: `(N, D)` of length 1.
        labels: `(N,)` classes.
        groups: `(N,)`; at least two.
    """
    count = min(len(labels), int(np.bincount(groups).max()) + 1)
    correct = np.zeros(len(labels), bool)
    for start, _, rows in blocks_of_neighbors(vectors, vectors, count):
        own = slice(start, start + len(rows))
        near = rows.numpy()
        other = groups[near] != groups[own, None]
        first = np.take_along_axis(near, other.argmax(1)[:, None], 1)[:, 0]
        correct[own] = labels[first] == labels[own]
    return correct


def _errors_removed(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the fraction of errors removed, of sums `(..., 1 + features)` of images and correct ones."""
    errors = sums[..., :1] - sums[..., 1:]
    fewest = errors[..., 1:].min(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(fewest > 0, 1 - errors[..., 0] / fewest, math.nan)
