"""Exact nearest neighbours in bounded memory: blocked float32 products choose candidates, float64 decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from visionkit.errors import InputError, expected, unknown_name

__all__ = [
    "METRICS",
    "Metric",
    "Neighbors",
    "as_vectors",
    "exact_distances",
    "exact_neighbors",
    "nearest_of",
    "take_rows",
]

Metric = Literal["cosine", "l2"]
METRICS: tuple[Metric, ...] = get_args(Metric)

Floats = NDArray[np.float32]
_QUERIES = 512  # of a block
_ROWS = 8192  # of the gallery in a block: 512 x 8192 products are 16 MiB
_GROUPS = 32  # columns of a block are reduced by this factor before the smallest are searched
_EXTRA = 24  # candidates beyond k
_EXACT_ROWS = 4096  # of the gallery at once in float64
_ROUNDING = 2.0**-24  # of one float32 operation, relative
_SMALLEST = 2.0**-100  # squared lengths below it may have lost digits in float32


class Neighbors(NamedTuple):
    """The nearest rows of a gallery for some queries.

    Args:
        distances: `(Q, k)` float64, the smallest first.
        rows: `(Q, k)` int64 rows of the gallery; of equal distances the smaller row comes first.
    """

    distances: NDArray[np.float64]
    rows: NDArray[np.int64]


def as_vectors(values: Any, what: str, *, dim: int | None = None) -> Floats:
    """Return vectors as a float32 array `(N, D)`.

    Args:
        values: An array or a tensor.
        what: What they are, for errors.
        dim: D, where it is known.

    Raises:
        InputError: They are not numbers of this shape, or a row has NaN or infinity: the first is named.
    """
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    shape = f"(N, {'D' if dim is None else dim}) numbers"
    if array.ndim != 2 or not array.shape[1] or not np.issubdtype(array.dtype, np.number):
        raise InputError(expected(what, shape, f"{array.dtype} {array.shape}"))
    if dim is not None and array.shape[1] != dim:
        fix = "The vectors of queries and gallery come from one encoder."
        raise InputError(expected(what, shape, array.shape, fix=fix))
    array = np.ascontiguousarray(array, dtype=np.float32)
    check_finite(np.einsum("nd,nd->n", array, array, dtype=np.float64), what)
    return array


def check_finite(squares: NDArray[np.float64], what: str) -> None:
    """Refuse vectors whose squared length is not finite.

    Args:
        squares: `(N,)` squared lengths.
        what: What they are, for the error.

    Raises:
        InputError: One is not finite; the first is named.
    """
    faulty = np.flatnonzero(~np.isfinite(squares))
    if len(faulty):
        raise InputError(
            f"Expected {what} of finite numbers, but {len(faulty)} of {len(squares)} have NaN or infinity, "
            f"the first is row {faulty[0]}. Leave these rows out, or look for what made them."
        )


def exact_distances(query: NDArray[Any], vectors: NDArray[Any], metric: Metric) -> NDArray[np.float64]:
    """Return the distances of one query to some vectors, in float64, each by one and the same arithmetic.

    Args:
        query: `(D,)`.
        vectors: `(N, D)`.
        metric: "l2": the root of the sum of squared differences. "cosine": 1 minus the cosine, as half the
            squared distance of the vectors scaled to length 1; a vector of zeros has the cosine 0.

    Returns:
        `(N,)`.
    """
    one, others = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "cosine":
        lengths = np.sqrt(np.square(others).sum(1))
        length = np.sqrt(np.square(one).sum())
        others = others / np.where(lengths > 0, lengths, 1)[:, None]
        one = one / (length or 1.0)
        half = np.square(others - one).sum(1) / 2
        zero: NDArray[np.float64] = np.where((lengths > 0) & (length > 0), half, 1.0)
        return zero
    root: NDArray[np.float64] = np.sqrt(np.square(others - one).sum(1))
    return root


def exact_neighbors(queries: Any, gallery: Any, *, k: int, metric: Metric = "cosine") -> Neighbors:
    """Return the k nearest rows of a gallery for each query, as float64 decides it; ties go by row.

    Blocks of float32 products choose somewhat more than k candidates, whose distances are computed again in
    float64. Rounding cannot hide a neighbour: where the candidates do not reach beyond the k-th by more than
    the largest error that a product of this length can have, the query is compared with every row.

    Args:
        queries: `(Q, D)`, an array or a tensor; computed with in float32.
        gallery: `(G, D)`, likewise, memory-mapped or not; or a sequence of such arrays, one after another.
        k: Neighbours of each query.
        metric: "cosine" (1 minus the cosine) or "l2".

    Raises:
        InputError: There are fewer than k rows, a length differs, or a number is not finite.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    parts = gallery if isinstance(gallery, list | tuple) else [gallery]
    parts = [as_vectors(part, "the gallery") for part in parts]
    return search_parts(as_vectors(queries, "the queries"), parts, k=k, metric=metric)


def search_parts(queries: Floats, parts: Sequence[Floats], *, k: int, metric: Metric) -> Neighbors:
    """Return the k nearest rows of a gallery that lies in several arrays, as `exact_neighbors` does.

    Args:
        queries: `(Q, D)`.
        parts: `(n, D)` each.
        k: Neighbours of each query.
        metric: "cosine" or "l2".

    Raises:
        InputError: There are fewer than k rows, a length differs, or a number is not finite.
    """
    total = sum(len(part) for part in parts)
    if not 1 <= k <= total:
        fix = "Ask for fewer neighbours, or add to the gallery."
        raise InputError(expected("k", f"1 to {total:,}, the vectors of the gallery", k, fix=fix))
    dims = {part.shape[1] for part in parts} | {queries.shape[1]}
    if len(dims) > 1:
        fix = "The vectors of queries and gallery come from one encoder."
        raise InputError(
            expected("the vectors of queries and gallery", "of one length", sorted(dims), fix=fix)
        )
    distances, rows = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    count = min(total, k + _EXTRA)
    for first in range(0, len(queries), _QUERIES):
        block = _scaled(queries[first : first + _QUERIES], metric)
        keys, candidates, error = _candidates(block, parts, count, metric)
        for index in range(len(block)):
            query, chosen = queries[first + index], np.sort(candidates[index])
            limit = np.partition(keys[index], k - 1)[k - 1] + 2 * error[index]
            if count < total and not keys[index].max() > limit:
                chosen = _within(block[index : index + 1], parts, limit, metric)
            nearest = nearest_of(query, parts, chosen, k=k, metric=metric)
            distances[first + index], rows[first + index] = nearest
    return Neighbors(distances, rows)


def _scaled(queries: Floats, metric: Metric) -> Floats:
    """Return queries `(Q, D)` whose products with the gallery are keys, but for what `_keys` does."""
    if metric == "l2":
        return np.ascontiguousarray(-2 * queries)
    lengths = np.sqrt(np.einsum("nd,nd->n", queries, queries, dtype=np.float64))
    return np.ascontiguousarray(-queries / np.where(lengths > 0, lengths, 1)[:, None], dtype=np.float32)


def _keys(scaled: Floats, vectors: Floats, squares: Floats, metric: Metric) -> Floats:
    """Return keys `(Q, G)`, ordered as the distances: minus the cosine, or the square less |q|^2."""
    keys: Floats = scaled @ vectors.T
    if metric == "cosine":
        keys *= 1 / np.sqrt(np.where(squares > 0, squares, 1))
    else:
        keys += squares
    return keys


def _candidates(
    scaled: Floats, parts: Sequence[Floats], count: int, metric: Metric
) -> tuple[Floats, NDArray[np.int64], NDArray[np.float64]]:
    """Return keys and rows `(Q, count)` of candidates, and the largest error `(Q,)` of a key.

    A dot product of D float32 numbers errs by at most D roundings of the product of both lengths, however it
    is summed (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
    """
    keys, rows = np.empty((len(scaled), 0), np.float32), np.empty((len(scaled), 0), np.int64)
    largest, first, has_tiny = 0.0, 0, False
    for part in parts:
        for start in range(0, len(part), _ROWS):
            vectors = part[start : start + _ROWS]
            squares = np.einsum("nd,nd->n", vectors, vectors)
            check_finite(squares, f"the gallery from row {first} on")
            block = _keys(scaled, vectors, squares, metric)
            columns = _smallest(block, count, keys.max(1) if keys.shape[1] == count else None)
            keys = np.concatenate([keys, np.take_along_axis(block, columns, 1)], 1)
            rows = np.concatenate([rows, columns + first], 1)
            if keys.shape[1] > count:
                chosen = np.argpartition(keys, count - 1, axis=1)[:, :count]
                keys, rows = np.take_along_axis(keys, chosen, 1), np.take_along_axis(rows, chosen, 1)
            largest = max(largest, float(squares.max(initial=0)))
            low = squares < _SMALLEST
            has_tiny = has_tiny or bool(low.any() and vectors[low].any())
            first += len(vectors)
    roundings = (1.5 * scaled.shape[1] + 16) * _ROUNDING
    lengths = np.sqrt(np.einsum("qd,qd->q", scaled, scaled, dtype=np.float64))  # 1, or twice the query's
    error = lengths * np.sqrt(largest) + largest if metric == "l2" else np.ones(len(scaled))
    if has_tiny and (metric == "cosine" or largest < _SMALLEST):
        error[:] = np.inf
    return keys, rows, roundings * error


def _smallest(keys: Floats, count: int, limit: Floats | None) -> NDArray[np.int64]:
    """Return columns `(Q, n)` with, of each row, its `count` smallest keys, or all of them below its limit.

    The smallest of each group of columns tells which groups can have one: they are few.
    """
    width = keys.shape[1]
    if width <= count:
        return np.broadcast_to(np.arange(width), keys.shape)
    groups = width // _GROUPS
    if groups <= count:
        return np.argpartition(keys, count - 1, axis=1)[:, :count]
    even = keys[:, : groups * _GROUPS].reshape(len(keys), _GROUPS, groups)
    group_min = even.min(1)  # (Q, groups): column c is in group c % groups
    taken = count if limit is None else min(count, int((group_min < limit[:, None]).sum(1).max()))
    rest = np.broadcast_to(np.arange(groups * _GROUPS, width), (len(keys), width - groups * _GROUPS))
    if not taken:
        return rest
    chosen = np.argpartition(group_min, taken - 1, axis=1)[:, :taken]  # (Q, taken)
    columns = (chosen[:, None, :] + groups * np.arange(_GROUPS)[:, None]).reshape(len(keys), -1)
    columns = np.concatenate([columns, rest], 1)
    if columns.shape[1] <= count:
        return columns
    nearest = np.argpartition(np.take_along_axis(keys, columns, 1), count - 1, axis=1)[:, :count]
    return np.take_along_axis(columns, nearest, 1)


def _within(scaled: Floats, parts: Sequence[Floats], limit: float, metric: Metric) -> NDArray[np.int64]:
    """Return every row whose key for one query `(1, D)` is at most `limit`: none of them can be ruled out."""
    chosen, first = [], 0
    for part in parts:
        for start in range(0, len(part), _ROWS):
            vectors = part[start : start + _ROWS]
            squares = np.einsum("nd,nd->n", vectors, vectors)
            outside = _keys(scaled, vectors, squares, metric)[0] > limit
            chosen.append(np.flatnonzero(~outside) + first)
            first += len(vectors)
    return np.concatenate(chosen)


def nearest_of(
    query: Floats, parts: Sequence[Floats], chosen: NDArray[np.int64], *, k: int, metric: Metric
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return distances and rows `(k,)` of the nearest of some rows, as float64 decides it; ties go by row.

    Args:
        query: `(D,)`.
        parts: `(n, D)` each: the gallery, one part after another.
        chosen: `(C,)` the rows, in order.
        k: At most C.
        metric: "cosine" or "l2".
    """
    distances = np.empty(len(chosen))
    for first in range(0, len(chosen), _EXACT_ROWS):
        rows = chosen[first : first + _EXACT_ROWS]
        distances[first : first + len(rows)] = exact_distances(query, take_rows(parts, rows), metric)
    if len(chosen) > k:
        inside = distances <= np.partition(distances, k - 1)[k - 1]
        chosen, distances = chosen[inside], distances[inside]
    order = np.argsort(distances, kind="stable")[:k]  # the rows are in order: ties go by row
    return distances[order], chosen[order]


def take_rows(parts: Sequence[Floats], rows: NDArray[np.int64]) -> Floats:
    """Return rows `(N, D)` of a gallery that lies in several arrays.

    Args:
        parts: `(n, D)` each, one after another.
        rows: `(N,)`.
    """
    starts = np.cumsum([0, *(len(part) for part in parts)])
    vectors = np.empty((len(rows), parts[0].shape[1]), np.float32)
    owner = np.searchsorted(starts, rows, side="right") - 1
    for number in np.unique(owner):
        own = owner == number
        vectors[own] = parts[number][rows[own] - starts[number]]
    return vectors
