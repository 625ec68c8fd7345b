"""Class frequencies of a data set, by pixels or by images, and the weights that balance them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from visionkit.data.formats.masks.label_map import IGNORE
from visionkit.data.splits import single_labels
from visionkit.errors import InputError, expected
from visionkit.types import Reader

__all__ = ["balanced_weights", "class_labels", "image_counts", "pixel_counts"]


def pixel_counts(reader: Reader, num_classes: int, *, max_samples: int = 1000) -> Tensor:
    """Return how many pixels each class has, `(num_classes,)` int64.

    Args:
        reader: Samples with `mask`.
        num_classes: Classes of the masks.
        max_samples: Read this many samples at most, evenly spread.

    Raises:
        DataError: A mask cannot be read.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64)
    total = len(reader)
    for index in range(min(total, max_samples)):
        mask = reader[index * total // min(total, max_samples)]["mask"]
        counts += torch.bincount(mask[mask != IGNORE].long().flatten(), minlength=num_classes)
    return counts


def image_counts(reader: Reader, num_classes: int) -> Tensor:
    """Return how many images each class has, `(num_classes,)` int64.

    Args:
        reader: Samples of one class each: it offers `labels`.
        num_classes: Number of classes.

    Raises:
        InputError: The reader does not say the class of each sample.
    """
    labels = single_labels(reader)
    if labels is None:
        raise InputError(
            "Expected images of one class each to balance, but the data set does not offer `labels`. Leave "
            "class weights and the balanced sampler out for several classes an image, and for numbers."
        )
    return torch.bincount(torch.from_numpy(labels), minlength=num_classes)


def class_labels(reader: Reader, classes: Sequence[str], *, every: bool = True) -> list[int]:
    """Return the class of each image, where every class has one.

    Args:
        reader: Samples of one class each.
        classes: Names of the classes.
        every: Whether a class without an image is refused.

    Raises:
        InputError: The reader does not say the class of each sample, or a class has none.
    """
    counts = image_counts(reader, len(classes))
    if every:
        _refuse_empty(counts, classes)
    return [int(label) for label in single_labels(reader)]  # type: ignore[union-attr]


def _refuse_empty(counts: Tensor, classes: Sequence[str]) -> None:
    empty = [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]
    if empty:
        named = ", ".join(map(repr, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise InputError(
            f"Expected training images of every class to balance, but there are none of {named}. Train on a "
            "larger fraction, take the class out of the data set, or leave the balancing out."
        )


def balanced_weights(
    counts: Tensor, *, power: float | Literal["balanced"] = "balanced", classes: Sequence[str] = ()
) -> list[float]:
    """Return one weight a class, `fraction ** -power`, scaled so that the weights of all samples have mean 1.

    A sample is a pixel of a mask, or an image of one class. At power 0 every sample weighs the same, at 1
    every class does; between them lie the usual compromises (median-frequency balancing, Eigen & Fergus,
    2015, is nearly power 1).

    Args:
        counts: `(C,)` samples of each class.
        power: From 0 to 1; "balanced" is 1, as in scikit-learn.
        classes: Names of the classes: one without a sample is refused by its name. Without names it weighs 1.

    Raises:
        InputError: The power is out of range, no class has a sample, or one that has a name has none.
    """
    power = 1.0 if power == "balanced" else power
    if not 0 <= power <= 1:
        raise InputError(expected("class_weights", "from 0 to 1", power))
    if not counts.any():
        raise InputError(expected("the data set", "at least one sample of a class", "none"))
    if classes:
        _refuse_empty(counts, classes)
    fraction = counts.double() / counts.sum()
    there = counts > 0
    raw = fraction[there] ** -power
    weights = torch.ones_like(fraction)
    weights[there] = raw / (raw * fraction[there]).sum()
    return [float(weight) for weight in weights]
