"""One probe: a linear classifier and the nearest neighbours on some features, and what they got right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from visionkit.errors import DataError, RunError
from visionkit.metrics.embedding.neighbors import blocks_of_neighbors
from visionkit.metrics.embedding.rows import unit_rows
from visionkit.run.probing.draws import Draw
from visionkit.run.probing.logistic import STRENGTHS, fit_probe

__all__ = ["Arm", "Outcome", "neighbor_classes", "run_probe"]


class Arm(NamedTuple):
    """What gives features.

    Args:
        backbone: The network; "pixels" for none.
        init: Its weights; empty for pixels.
        level: The level.
    """

    backbone: str
    init: str
    level: str


@dataclass(frozen=True)
class Outcome:
    """What a probe got right.

    Args:
        arm: The features.
        dim: Their number.
        draw: The training images.
        linear: `(M,)` whether the linear classifier is right about each scored image.
        neighbors: `(M,)` the same of the nearest neighbours.
        strength: The strength of regularisation that was chosen.
        loss: Cross-entropy on the held-out folds of the training images.
        at_end: Whether the strength is the first or the last that was tried.
    """

    arm: Arm
    dim: int
    draw: Draw
    linear: NDArray[np.bool_]
    neighbors: NDArray[np.bool_]
    strength: float
    loss: float
    at_end: bool


def run_probe(
    arm: Arm,
    draw: Draw,
    features: NDArray[np.float32],
    scored: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    num_classes: int,
    k: int,
) -> Outcome:
    """Fit a classifier to the features of the drawn images and score it on others.

    Args:
        arm: What the features are of.
        draw: The training images.
        features: `(N, D)` of all training images.
        scored: `(M, D)` of the images that are scored.
        labels: `(M,)` their classes.
        num_classes: Number of classes.
        k: Nearest neighbours that vote.

    Raises:
        DataError: No strength can be chosen.
        RunError: A fit does not converge.
    """
    rows = features[draw.rows]
    try:
        fitted = fit_probe(rows, draw.labels, draw.folds, num_classes=num_classes, strengths=STRENGTHS)
    except (DataError, RunError) as error:
        where = " ".join(filter(None, arm))
        raise type(error)(f"{where}, fraction {draw.fraction:g}, seed {draw.seed}: {error}") from error
    voted = neighbor_classes(rows, draw.labels, scored, k=k)
    return Outcome(
        arm,
        rows.shape[1],
        draw,
        fitted.logits(scored).argmax(1) == labels,
        voted == labels,
        fitted.strength,
        fitted.loss,
        fitted.at_end,
    )


def neighbor_classes(
    gallery: NDArray[np.float32], labels: NDArray[np.int64], queries: NDArray[np.float32], *, k: int
) -> NDArray[np.int64]:
    """Return the class of most of the `k` nearest images by cosine `(M,)`; of equals that with the nearest.

    Args:
        gallery: `(N, D)`.
        labels: `(N,)` classes.
        queries: `(M, D)`.
        k: Neighbours, or all images where they are fewer.
    """
    known, asked = (unit_rows(torch.from_numpy(rows)) for rows in (gallery, queries))
    classes: list[NDArray[np.int64]] = []
    for _, _, rows in blocks_of_neighbors(asked, known, min(k, len(labels))):
        near = labels[rows.numpy()]  # (B, k), the nearest first
        votes = (near[:, :, None] == near[:, None, :]).sum(2)  # (B, k) of each neighbour's class
        first = votes.argmax(1)  # the nearest of those with most votes
        classes.append(near[np.arange(len(near)), first])
    return np.concatenate(classes)
