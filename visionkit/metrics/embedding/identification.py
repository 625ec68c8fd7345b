"""Identification: which individuals of a gallery an image may show, the likeliest first, or none of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionkit.config import check_number, limits
from visionkit.errors import InputError
from visionkit.metrics.embedding.neighbors import blocks_of_cosines, largest

__all__ = ["UNKNOWN", "Ranking", "best_threshold", "identification_scores", "rank_classes"]

UNKNOWN = -1
"""The class of an image whose individual is not in the gallery."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_THRESHOLDS = 1000  # that are tried, at most


class Ranking(NamedTuple):
    """The classes that each query may be of.

    Args:
        classes: `(Q, k)`, the likeliest first; a class comes once.
        cosines: `(Q, k)` of the query with the nearest image of each; -inf where that is the query alone.
    """

    classes: Ints
    cosines: Floats


def rank_classes(
    queries: Tensor, gallery: Tensor, labels: Ints, *, count: int = 5, skip: Tensor | None = None
) -> Ranking:
    """Return the `count` classes whose nearest image is nearest to each query; ties go by class.

    Args:
        queries: `(Q, D)` of length 1.
        gallery: `(G, D)` of length 1.
        labels: `(G,)` classes, whole numbers of 0 or more.
        count: Classes a query.
        skip: `(Q,)` the row of the gallery that is the query itself, -1 for none.

    Raises:
        InputError: The gallery has fewer classes.
    """
    names, numbers = np.unique(labels, return_inverse=True)
    check_number("count", count, limits(min=1), whole=True)
    if count > len(names):
        raise InputError(f"Expected at least {count} classes in the gallery, but it has {len(names)}.")
    of_row = torch.from_numpy(numbers).to(gallery.device)
    classes, cosines = [np.empty((0, count), np.int64)], [np.empty((0, count))]
    for _, values in blocks_of_cosines(queries, gallery, skip=skip):
        near = values.new_full((len(values), len(names)), -torch.inf)
        near.scatter_reduce_(1, of_row.expand(len(values), -1), values, "amax")
        top, index = largest(near, count)
        classes.append(names[index.cpu().numpy()])
        cosines.append(top.cpu().double().numpy())
    return Ranking(np.concatenate(classes), np.concatenate(cosines))


def identification_scores(ranking: Ranking, truth: Ints, *, threshold: float = -math.inf) -> dict[str, float]:
    """Return top1 and map_at_k of rankings in which "none of them" comes before the classes below a cosine.

    One of k answers is right, so that the mean average precision is the mean of 1 over its rank, and 0 where
    it is not among the k: Kaggle's score of Humpback Whale Identification, with "new_whale" as an answer.

    Args:
        ranking: Of each query, `k` classes.
        truth: `(Q,)` classes; `UNKNOWN` where the individual is not in the gallery.
        threshold: "None of them" comes before every class with a smaller cosine; by default it never does.

    Returns:
        NaN where there is no query.
    """
    count = ranking.classes.shape[1]
    position = (ranking.cosines >= threshold).sum(1)  # of "none of them"; k: it is no answer
    # At -inf is a class whose only image is the query itself: it cannot be an answer.
    hits = (ranking.classes == truth[:, None]) & (ranking.cosines > -math.inf)
    rank = np.where(hits.any(1), hits.argmax(1), count)
    rank += rank >= position  # behind "none of them"
    rank = np.where(truth == UNKNOWN, position, rank)
    points = np.where(rank < count, 1 / (1 + rank), 0.0)
    return {
        "top1": float((rank == 0).mean()) if len(rank) else math.nan,
        f"map_at_{count}": float(points.mean()) if len(rank) else math.nan,
    }


def best_threshold(ranking: Ranking, truth: Ints) -> float:
    """Return the cosine below which "none of them" comes first, by the best map_at_k of known answers.

    Among equally good ones the highest counts, half-way between two cosines; infinite where it is best to
    answer so always, or never. Of many cosines 1,000 quantiles are tried.

    Args:
        ranking: Of each query, `k` classes.
        truth: `(Q,)` classes; `UNKNOWN` where the individual is not in the gallery.
    """
    values = np.unique(ranking.cosines)
    cuts = np.concatenate([[-math.inf], (values[:-1] + values[1:]) / 2, [math.inf]])
    if len(cuts) > _THRESHOLDS:
        cuts = cuts[np.linspace(0, len(cuts) - 1, _THRESHOLDS).round().astype(int)]
    name = f"map_at_{ranking.classes.shape[1]}"
    scores = [identification_scores(ranking, truth, threshold=cut)[name] for cut in cuts.tolist()]
    return float(cuts[len(scores) - 1 - int(np.argmax(scores[::-1]))])
