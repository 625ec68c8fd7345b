"""Retrieval: whether the nearest neighbours of an image are of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from visionkit.config import check_numbers, limits
from visionkit.distributed import widest_float
from visionkit.metrics.base import ScoreMetric
from visionkit.metrics.embedding.neighbors import blocks_of_neighbors
from visionkit.metrics.embedding.rows import ImageRows, image_keys, unit_rows

__all__ = ["RetrievalResult", "RetrievalScores", "retrieval_scores"]


class RetrievalResult(NamedTuple):
    """Scores over the queries that have an image of their class in the gallery.

    Args:
        recalls: Fraction of them with one among the first k, by k.
        map_at_r: Their mean average precision at R.
        queries: How many they are.
        alone: Queries without one, which no retrieval could serve: they are left out.
    """

    recalls: dict[int, float]
    map_at_r: float
    queries: int
    alone: int

    @property
    def left_out(self) -> str:
        """Return how many queries are left out and why, in a sentence; empty where none is."""
        if not self.alone:
            return ""
        return (
            f"{self.alone:,} of {self.queries + self.alone:,} images have no other of their class to be "
            "found and are left out of recall and map_at_r."
        )


@dataclass
class _Sums:
    hits: Tensor  # (number of ks,) queries with a hit
    precision: Tensor  # () sum of average precisions
    queries: int = 0


def retrieval_scores(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    ks: Sequence[int] = (1, 5, 10),
    skip: Tensor | None = None,
) -> RetrievalResult:
    """Return how well the nearest neighbours (largest cosine; equally, smallest L2 distance) do.

    Recall at k is the fraction of queries with an image of their class among the first k (Recall@K of Song
    et al., CVPR 2016); recall at 1 is also precision at 1. MAP@R: of a query with R images of its class in
    the gallery, `1/R` times the sum, over the first R neighbours that are of its class, of the precision up
    to there (Musgrave et al., "A Metric Learning Reality Check", ECCV 2020). Ties go by the row of the
    gallery.

    Args:
        queries: `(Q, D)` of length 1.
        query_labels: `(Q,)` whole numbers.
        gallery: `(G, D)` of length 1.
        gallery_labels: `(G,)`.
        ks: The ks of recall; beyond the gallery all of it counts.
        skip: `(Q,)` the row of the gallery that is the query itself, -1 for none.
    """
    own = torch.zeros(len(queries), dtype=torch.int64, device=gallery.device)
    order = gallery_labels.sort().values
    relevant = torch.searchsorted(order, query_labels, right=True) - torch.searchsorted(order, query_labels)
    if skip is not None:
        own = (skip >= 0).long()
        relevant = relevant - own
    sums = _Sums(
        torch.zeros(len(ks), dtype=torch.int64, device=gallery.device),
        torch.zeros((), dtype=widest_float(gallery.device), device=gallery.device),
    )
    max_relevant = int(relevant.max()) if len(relevant) else 0
    count = min(len(gallery), max(*ks, max_relevant))
    for start, _, rows in blocks_of_neighbors(queries, gallery, count, skip=skip):
        part = slice(start, start + len(rows))
        counted = relevant[part] > 0
        hits = gallery_labels[rows] == query_labels[part, None]  # (n, count)
        if skip is not None:
            hits &= rows != skip[part, None]
        _add(sums, hits[counted], relevant[part][counted], ks)
    total = sums.queries
    return RetrievalResult(
        {k: int(n) / total if total else float("nan") for k, n in zip(ks, sums.hits.tolist(), strict=True)},
        float(sums.precision) / total if total else float("nan"),
        total,
        len(queries) - total,
    )


def _add(sums: _Sums, hits: Tensor, relevant: Tensor, ks: Sequence[int]) -> None:
    """Add queries, from which of their neighbours are of their class and how many there are in all."""
    rank = torch.arange(1, hits.shape[1] + 1, dtype=sums.precision.dtype, device=hits.device)
    precision = hits.to(rank).cumsum(1) / rank
    inside = hits & (rank <= relevant[:, None])
    sums.precision += ((precision * inside).sum(1) / relevant).sum()
    sums.hits += torch.stack([hits[:, :k].any(1).sum() for k in ks])
    sums.queries += len(hits)


class RetrievalScores(ScoreMetric):
    """recall_at_K for some K, and map_at_r: see `retrieval_scores`.

    Every image is a query against all the others, unless `update` says which are queries and which gallery.
    Images are ordered by their ids before anything else, so that the scores are the same to the last bit for
    any number of processes and any order; without ids, by their vectors.

    Args:
        ks: The Ks.
        score: The one score that `compute` returns, for `self.log`; by default a dict of all.
        kwargs: As `torchmetrics.Metric` takes them.

    Attributes:
        result: The last `compute`'s, with the number of queries that were left out because no other image
            is of their class.
        images: Those of the last `compute`, of all processes.
    """

    monitor = ("recall_at_1", "max")
    vectors: list[Tensor]
    about: list[Tensor]

    def __init__(self, *, ks: Sequence[int] = (1, 5, 10), score: str | None = None, **kwargs: Any) -> None:
        ks = check_numbers("ks", list(ks), limits(min=1), whole=True)
        super().__init__([*(f"recall_at_{k}" for k in ks), "map_at_r"], score=score, **kwargs)
        self.ks = tuple(ks)
        self._add_rows("vectors", None, torch.float32)
        self._add_rows("about", 4, torch.int64)  # label, role, key of the id, length of the vector
        self.result: RetrievalResult | None = None
        self.images: ImageRows | None = None

    @torch.no_grad()
    def update(
        self,
        preds: Tensor,
        target: Tensor,
        ids: Sequence[object] | None = None,
        gallery: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            preds: `(B, D)` vectors; their lengths do not count.
            target: `(B,)` classes.
            ids: Names of the images.
            gallery: `(B,)` whether an image is of the gallery, and else a query; without it every image is
                both, and no image its own neighbour.

        Raises:
            DataError: A vector has a number that is not finite, or only zeros.
        """
        rows = unit_rows(preds, ids)
        role = torch.full_like(target, -1) if gallery is None else gallery.to(target)
        keys = image_keys(ids, len(rows)).to(target)
        width = torch.full_like(target, rows.shape[1])
        self.vectors.append(rows.flatten())
        self.about.append(torch.stack([target.long(), role.long(), keys, width], 1))

    def _scores(self) -> dict[str, float]:
        about = self._rows("about")
        width = int(about[0, 3]) if len(about) else 1
        rows = ImageRows.ordered(
            self._rows("vectors").view(-1, width), about[:, 0], keys=about[:, 2], roles=about[:, 1]
        )
        self.images = rows = rows.to(self.device)
        return self._scores_of(rows) if len(rows.vectors) else {}

    def _scores_of(self, rows: ImageRows) -> dict[str, float]:
        self.result = _result(rows, self.ks)
        values = {f"recall_at_{k}": value for k, value in self.result.recalls.items()}
        return values | {"map_at_r": self.result.map_at_r}


def _result(rows: ImageRows, ks: Sequence[int]) -> RetrievalResult:
    query, other = rows.roles != 1, rows.roles != 0
    position = other.long().cumsum(0) - 1
    skip = torch.where(other, position, -1)[query]
    return retrieval_scores(
        rows.vectors[query],
        rows.labels[query],
        rows.vectors[other],
        rows.labels[other],
        ks=ks,
        skip=skip,
    )
