"""What a segmenter says about one picture, as plain values on the host."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["SegmentationPrediction"]


@dataclass
class SegmentationPrediction:
    """The class of every pixel.

    Args:
        mask: `(H, W)` int64 class numbers, at the size of the picture that was given.
        names: Names of the classes, by number; empty if the task knows none.
        id: The picture's name, if the batch names pictures.
    """

    mask: Tensor
    names: tuple[str, ...] = ()
    id: str | None = None
