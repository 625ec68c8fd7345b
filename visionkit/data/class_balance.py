"""How rare each class of a data set's masks is, and the weights that answer it."""

from __future__ import annotations

import torch
from torch import Tensor

from visionkit.data.label_map import IGNORE
from visionkit.errors import InputError, expected
from visionkit.types import Reader

__all__ = ["balanced_weights", "pixel_counts"]


def pixel_counts(reader: Reader, num_classes: int, *, most: int = 1000) -> Tensor:
    """Return how many pixels each class has, `(num_classes,)` int64.

    Args:
        reader: Samples with `mask`.
        num_classes: Classes of the masks.
        most: Read this many samples at most, evenly spread.

    Raises:
        DataError: A mask cannot be read.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64)
    total = len(reader)
    for place in range(min(total, most)):
        mask = reader[place * total // min(total, most)]["mask"]
        counts += torch.bincount(mask[mask != IGNORE].long().flatten(), minlength=num_classes)
    return counts


def balanced_weights(counts: Tensor, *, power: float) -> list[float]:
    """Return one weight a class, `share ** -power`, scaled so that the weights of all pixels have mean 1.

    At power 0 every pixel weighs the same, at 1 every class does; between them lie the usual compromises
    (median-frequency balancing, Eigen & Fergus, 2015, is nearly power 1). A class without a pixel weighs 1.

    Args:
        counts: `(C,)` pixels of each class.
        power: From 0 to 1.

    Raises:
        InputError: The power is out of range, or no class has a pixel.
    """
    if not 0 <= power <= 1:
        raise InputError(expected("balance", "from 0 to 1", power))
    if not counts.any():
        raise InputError(expected("masks", "at least one pixel of a class", "none"))
    share = counts.double() / counts.sum()
    there = counts > 0
    raw = share[there] ** -power
    weights = torch.ones_like(share)
    weights[there] = raw / (raw * share[there]).sum()
    return [float(weight) for weight in weights]
