"""Exact nearest neighbours of unit vectors, by blocked products; ties by index."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from visionkit.distributed import widest_float

__all__ = ["blocks_of_cosines", "blocks_of_neighbors", "largest"]

_BLOCK_BYTES = 256 * 2**20  # of the cosines of a block


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest values of each row and where they are, the largest first, ties by index.

    `torch.topk` orders equal values, and chooses among those at the end, as it likes.

    Args:
        values: `(N, M)`.
        count: At most M.

    Returns:
        Values and indices, `(N, count)` each.
    """
    top, indices = values.topk(count, dim=1)
    if not count:
        return top, indices
    tied = ((values >= top[:, -1:]).sum(1) > count) & ~top[:, -1].isnan()
    indices, order = indices.sort(dim=1)
    top = top.gather(1, order)
    top, order = top.sort(dim=1, descending=True, stable=True)
    indices = indices.gather(1, order)
    if bool(tied.any()):
        rows, order = values[tied].sort(dim=1, descending=True, stable=True)
        top[tied], indices[tied] = rows[:, :count], order[:, :count]
    return top, indices


def blocks_of_neighbors(
    queries: Tensor, gallery: Tensor, count: int, *, skip: Tensor | None = None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the nearest neighbours of queries, some queries at a time, in float64 where the device has it.

    Args:
        queries: `(Q, D)` of length 1.
        gallery: `(G, D)` of length 1.
        count: Neighbours of each; at most G.
        skip: `(Q,)` the row of the gallery that is the query itself, -1 for none: it comes last, at -inf.

    Yields:
        The first query's number, cosines `(n, count)`, largest first, and rows of the gallery `(n, count)`.
    """
    for start, cosines in blocks_of_cosines(queries, gallery, skip=skip):
        yield start, *largest(cosines, count)


def blocks_of_cosines(
    queries: Tensor, gallery: Tensor, *, skip: Tensor | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Yield the cosines of queries with a gallery, some queries at a time, as `blocks_of_neighbors` has them.

    Args:
        queries: `(Q, D)` of length 1.
        gallery: `(G, D)` of length 1.
        skip: `(Q,)` the row of the gallery that is the query itself, -1 for none: it is at -inf.

    Yields:
        The first query's number, and cosines `(n, G)`.
    """
    dtype = widest_float(gallery.device)
    gallery = gallery.to(dtype)
    step = max(1, _BLOCK_BYTES // (8 * max(1, len(gallery))))
    for start in range(0, len(queries), step):
        cosines = queries[start : start + step].to(dtype) @ gallery.T
        if skip is not None:
            own = skip[start : start + step]
            rows = (own >= 0).nonzero().flatten()
            cosines[rows, own[rows]] = -torch.inf
        yield start, cosines
