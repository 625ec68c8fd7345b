"""Predictions of a classifier for one image, as plain values on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["ClassPrediction", "LabelsPrediction", "Prediction", "ValuesPrediction", "predictions"]


@dataclass
class ClassPrediction:
    """One class.

    Args:
        probabilities: `(K,)`, summing to 1.
        index: The likeliest class.
        confidence: Its probability.
        name: Its name, if the task knows names.
        id: The image's, if the batch names images.
    """

    probabilities: Tensor
    index: int
    confidence: float
    name: str | None = None
    id: str | None = None


@dataclass
class LabelsPrediction:
    """Any number of labels.

    Args:
        probabilities: `(K,)`, each in 0 .. 1.
        indices: The labels with a probability above one half.
        names: Their names; empty if the task knows none.
        id: The image's, if the batch names images.
    """

    probabilities: Tensor
    indices: tuple[int, ...]
    names: tuple[str, ...] = ()
    id: str | None = None


@dataclass
class ValuesPrediction:
    """Numbers.

    Args:
        values: `(K,)`.
        id: The image's, if the batch names images.
    """

    values: Tensor
    id: str | None = None


Prediction = ClassPrediction | LabelsPrediction | ValuesPrediction


def predictions(
    logits: Tensor, target: str, *, names: Sequence[str] | None, ids: Sequence[str] | None
) -> list[Prediction]:
    """Return one typed prediction an image.

    Args:
        logits: `(B, K)` float32 on the host.
        target: "single", "multi" or "regression".
        names: Of the classes.
        ids: Of the images.
    """
    labels: list[str] | list[None] = list(ids) if ids else [None] * len(logits)
    if target == "regression":
        return [ValuesPrediction(row, name) for row, name in zip(logits, labels)]
    if target == "single":
        probabilities = logits.softmax(dim=1)
        best = probabilities.max(dim=1)
        return [
            ClassPrediction(row, index, confidence, names[index] if names else None, label)
            for row, index, confidence, label in zip(
                probabilities, best.indices.tolist(), best.values.tolist(), labels
            )
        ]
    made: list[Prediction] = []
    for row, label in zip(logits.sigmoid(), labels):
        held = tuple((row > 0.5).nonzero().flatten().tolist())
        made.append(LabelsPrediction(row, held, tuple(names[i] for i in held) if names else (), label))
    return made
