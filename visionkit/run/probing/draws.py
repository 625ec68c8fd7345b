"""The training images of each fraction and seed, with the folds that a strength is chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionkit.data.folds import assign_folds, group_names
from visionkit.data.splits import Subset, single_labels, subset
from visionkit.errors import DataError, printable
from visionkit.types import Reader

__all__ = ["Draw", "class_labels", "draw_images"]

_FOLDS = 5
_EACH = 2  # images of a class: one to train on while the other is held out


@dataclass(frozen=True)
class Draw:
    """The training images of one fraction and seed.

    Args:
        fraction: Fraction of the training images.
        seed: Seed of the choice and of the folds.
        rows: `(N,)` which of all training images.
        labels: `(N,)` their classes.
        folds: `(N,)` the fold of each; groups are never cut.
    """

    fraction: float
    seed: int
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]


def class_labels(reader: Reader, split: str) -> NDArray[np.int64]:
    """Return the class of each image `(N,)`.

    Args:
        reader: The images.
        split: Their split, for the error.

    Raises:
        DataError: They do not have one class each.
    """
    labels = single_labels(reader)
    if labels is None:
        raise DataError(
            f"Expected one class for each {split} image, but the data set has several labels or numbers: "
            "a probe fits a classifier of one class an image. For others train the recipe with "
            "--transfer.freeze_through all."
        )
    return labels


def draw_images(
    train: Reader, *, classes: Sequence[str], fractions: Sequence[float], seeds: Sequence[int], group_by: str
) -> list[Draw]:
    """Return the images of each fraction and seed: those that a recipe trains on with the same settings.

    Args:
        train: The training images.
        classes: Names of the classes.
        fractions: Fractions of them.
        seeds: Seeds of the choice.
        group_by: What keeps near copies in one fold; empty: nothing.

    Raises:
        InputError: A fraction is not in (0, 1].
        DataError: A class has fewer than two images at a fraction.
    """
    labels = class_labels(train, "training")
    groups = np.asarray(group_names(train, group_by)) if group_by else None
    draws = []
    for fraction in fractions:
        for seed in seeds:
            chosen = subset(train, fraction, seed=seed)
            part = chosen.indices if isinstance(chosen, Subset) and chosen.reader is train else None
            rows = np.asarray(range(len(train)) if part is None else part, np.int64)
            _check_classes(labels, rows, classes, fraction, seed)
            own = None if groups is None else groups[rows].tolist()
            count = min(_FOLDS, len(rows if own is None else set(own)))
            folds = assign_folds(len(rows), labels[rows], own, count=count, seed=seed)
            draws.append(Draw(fraction, seed, rows, labels[rows], folds))
    return draws


def _check_classes(
    labels: NDArray[np.int64], rows: NDArray[np.int64], classes: Sequence[str], fraction: float, seed: int
) -> None:
    counts, total = (np.bincount(each, minlength=len(classes)) for each in (labels[rows], labels))
    few = np.flatnonzero(counts < _EACH)
    if not len(few):
        return
    first = few[counts[few].argmin()]
    text = (
        f"Expected at least {_EACH} training images of each class, but at fraction {fraction:g} "
        f"(seed {seed}) {len(few)} of {len(classes)} classes have fewer: {printable(classes[first])!r} has "
        f"{counts[first]} of its {total[first]}."
    )
    if (total < _EACH).any():
        raise DataError(f"{text} Add images of it, or remove the class.")
    raise DataError(f"{text} Take a larger fraction, such as {min(1.0, _EACH / total.min() * 1.25):.2g}.")
