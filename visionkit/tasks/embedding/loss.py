"""The loss of an embedder: its settings, and how it is computed over the vectors of all processes."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from visionkit.config import check_number, limits
from visionkit.distributed import gather_with_gradients
from visionkit.errors import InputError, unknown_name
from visionkit.nn.embedding.losses import (
    batch_hard_triplet_loss,
    contrastive_loss,
    margin_softmax_loss,
    supervised_contrastive_loss,
)

__all__ = ["CLASS_LOSSES", "EmbeddingLoss", "LossName"]

LossName: TypeAlias = Literal["arcface", "cosface", "triplet", "contrastive", "supcon"]
CLASS_LOSSES = ("arcface", "cosface")
"""The losses with a learnt vector for each class."""

_MARGINS = {"arcface": 0.5, "cosface": 0.35, "triplet": 0.2, "contrastive": 1.0, "supcon": 0.0}


class EmbeddingLoss:
    """A loss of vectors and their classes.

    Args:
        name: Of the loss.
        margin: Its margin; that of its paper if None ("supcon" has none).
        scale: Of "arcface" and "cosface".
        temperature: Of "supcon".

    Raises:
        InputError: There is no such loss, or a number is out of range.
    """

    def __init__(self, name: LossName, *, margin: float | None, scale: float, temperature: float) -> None:
        if name not in get_args(LossName):
            raise unknown_name("loss", name, get_args(LossName))
        if name == "supcon" and margin is not None:
            raise InputError("Loss 'supcon' has no margin. Leave margin out, or take another loss.")
        self.name = name
        self.margin = _MARGINS[name] if margin is None else margin
        self.scale, self.temperature = scale, temperature
        check_number("margin", self.margin, limits(min=0))
        check_number("scale", scale, limits(above=0))
        check_number("temperature", temperature, limits(above=0))

    @property
    def of_classes(self) -> bool:
        """Whether it needs a learnt vector for each class, and no pairs."""
        return self.name in CLASS_LOSSES

    def __call__(self, vectors: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        """Return the loss, a float32 scalar.

        A loss of pairs or triplets is that of the vectors of all processes, as many on each: its value is the
        same on all, and its gradient, averaged by `DistributedDataParallel`, is that of one process with all
        the images.

        Args:
            vectors: `(B, D)` of length 1.
            labels: `(B,)` int64.
            weight: `(C, D)` the vectors of the classes; None where there are none.
        """
        if weight is not None:
            return margin_softmax_loss(
                vectors,
                weight,
                labels,
                margin=self.margin,
                scale=self.scale,
                angular=self.name == "arcface",
            )
        vectors, labels = _of_all_processes(vectors.float(), labels)
        if self.name == "triplet":
            return batch_hard_triplet_loss(vectors, labels, margin=self.margin)
        if self.name == "contrastive":
            return contrastive_loss(vectors, labels, margin=self.margin)
        return supervised_contrastive_loss(vectors, labels, temperature=self.temperature)


def _of_all_processes(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors and labels of all processes by one gather; the labels travel as bits beside them."""
    words = labels[:, None].contiguous().view(torch.float32)  # (B, 2)
    rows = gather_with_gradients(torch.cat([vectors, words], 1))
    bits = rows[:, -words.shape[1] :].detach().contiguous().view(torch.int64)
    return rows[:, : -words.shape[1]], bits[:, 0]
