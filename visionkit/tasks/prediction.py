"""What a classifier says about one picture, as plain values on the host."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["ClassPrediction", "LabelsPrediction", "ValuesPrediction"]


@dataclass(frozen=True)
class ClassPrediction:
    """One class of several.

    Args:
        probabilities: `(K,)`, summing to 1.
        index: The likeliest class.
        confidence: Its probability.
        name: Its name, if the task knows names.
        id: The picture's, if the batch names pictures.
    """

    probabilities: Tensor
    index: int
    confidence: float
    name: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class LabelsPrediction:
    """Any number of labels.

    Args:
        probabilities: `(K,)`, each in 0 .. 1.
        indices: The labels with a probability above one half.
        names: Their names; empty if the task knows none.
        id: The picture's, if the batch names pictures.
    """

    probabilities: Tensor
    indices: tuple[int, ...]
    names: tuple[str, ...] = ()
    id: str | None = None


@dataclass(frozen=True)
class ValuesPrediction:
    """Numbers.

    Args:
        values: `(K,)`.
        id: The picture's, if the batch names pictures.
    """

    values: Tensor
    id: str | None = None
