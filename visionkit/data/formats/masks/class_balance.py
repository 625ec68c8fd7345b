"""Class frequencies of a data set, by pixels or by images, and the weights that balance them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visionkit.data.formats.masks.label_map import IGNORE
from visionkit.errors import InputError, expected
from visionkit.types import Reader

__all__ = ["balanced_weights", "image_counts", "pixel_counts"]


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
    labels: Sequence[int] | None = getattr(reader, "labels", None)
    if labels is None:
        raise InputError(
            "Expected images of one class each to balance, but the data set does not offer `labels`. Leave "
            "balance at 0 for several classes an image, and for numbers."
        )
    return torch.bincount(torch.as_tensor(list(labels), dtype=torch.int64), minlength=num_classes)


def balanced_weights(counts: Tensor, *, power: float) -> list[float]:
    """Return one weight a class, `fraction ** -power`, scaled so that the weights of all samples have mean 1.

    A sample is a pixel of a mask, or an image of one class. At power 0 every sample weighs the same, at 1
    every class does; between them lie the usual compromises (median-frequency balancing, Eigen & Fergus,
    2015, is nearly power 1). A class without a sample weighs 1.

    Args:
        counts: `(C,)` samples of each class.
        power: From 0 to 1.

    Raises:
        InputError: The power is out of range, or no class has a sample.
    """
    if not 0 <= power <= 1:
        raise InputError(expected("balance", "from 0 to 1", power))
    if not counts.any():
        raise InputError(expected("the data set", "at least one sample of a class", "none"))
    fraction = counts.double() / counts.sum()
    there = counts > 0
    raw = fraction[there] ** -power
    weights = torch.ones_like(fraction)
    weights[there] = raw / (raw * fraction[there]).sum()
    return [float(weight) for weight in weights]
