"""The vector of one image, on the host."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["EmbeddingPrediction"]


@dataclass
class EmbeddingPrediction:
    """A vector; the cosine of two images is the product of theirs.

    Args:
        vector: `(D,)` float32, of length 1.
        id: The image's, if the batch names images.
    """

    vector: Tensor
    id: str | None = None
