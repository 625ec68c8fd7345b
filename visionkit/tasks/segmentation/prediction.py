"""Predictions of a segmenter for one image, as plain values on the host."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["SegmentationPrediction"]


@dataclass
class SegmentationPrediction:
    """The class of every pixel.

    Args:
        mask: `(H, W)` int64 class numbers, at the size of the image that was given.
        names: Names of the classes, by number; empty if the task knows none.
        id: The image's name, if the batch names images.
    """

    mask: Tensor
    names: tuple[str, ...] = ()
    id: str | None = None
