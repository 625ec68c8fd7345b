"""Exact nearest neighbours: equal to brute force in float64, near-ties and ties included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import visionkit.retrieval.neighbors as module
from visionkit.errors import InputError
from visionkit.retrieval import exact_neighbors

METRICS = ("cosine", "l2")


def brute_force(queries, gallery, k, metric):
    """The definition, one pair at a time, without anything of the package."""
    distances = np.empty((len(queries), len(gallery)))
    for row, query in enumerate(queries.astype(np.float64)):
        for column, vector in enumerate(gallery.astype(np.float64)):
            if metric == "l2":
                distances[row, column] = np.sqrt(np.square(vector - query).sum())
                continue
            lengths = np.sqrt(np.square(query).sum()), np.sqrt(np.square(vector).sum())
            if min(lengths) == 0:
                distances[row, column] = 1
            else:
                distances[row, column] = np.square(vector / lengths[1] - query / lengths[0]).sum() / 2
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, dim = draw(st.integers(1, 300)), draw(st.sampled_from([1, 2, 3, 16, 100]))
    gallery = rng.standard_normal((count, dim)) * 10.0 ** draw(st.sampled_from([-30, -3, 0, 3]))
    queries = rng.standard_normal((draw(st.integers(1, 6)), dim))
    kind = draw(st.sampled_from(["spread", "grid", "near ties", "around a query", "zeros"]))
    if kind == "grid":  # many equal distances
        gallery, queries = np.round(gallery), np.round(queries)
    elif kind == "near ties":  # all rows within a few roundings of float32 of each other
        gallery = gallery[:1] * (1 + rng.integers(-3, 4, (count, dim)) * 2.0**-23)
    elif kind == "around a query":
        gallery = queries[:1] + 1e-6 * gallery
    elif kind == "zeros":
        gallery[:: draw(st.integers(1, 3))] = 0
    shift = draw(st.sampled_from([0, 100]))  # far from the origin float32 loses digits
    k = draw(st.integers(1, min(count, 60)))
    return (
        np.float32(queries + shift),
        np.float32(gallery + shift),
        k,
        draw(st.sampled_from(METRICS)),
        draw(st.sampled_from([16, 64, 8192])),
    )


@settings(max_examples=200)
@given(cases())
def test_equal_to_brute_force(case) -> None:
    queries, gallery, k, metric, rows = case
    cut = len(gallery) // 3
    distances, order = brute_force(queries, gallery, k, metric)
    before = module._ROWS
    module._ROWS = rows  # several blocks of few rows
    try:
        whole = exact_neighbors(queries, gallery, k=k, metric=metric)
        parts = exact_neighbors(queries, [gallery[:cut], gallery[cut:]], k=k, metric=metric)
    finally:
        module._ROWS = before
    for result in (whole, parts):
        np.testing.assert_array_equal(result.rows, order)
        np.testing.assert_array_equal(result.distances, distances)


def test_blocks_of_full_size_and_the_second_look(monkeypatch) -> None:
    """Queries with more near-ties than candidates are compared with every row that may be nearer."""
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((20_000, 32)).astype(np.float32)
    gallery[5000:5100] = gallery[0]  # one hundred ties with the first row
    gallery[9000:9050] = gallery[1] * (1 + 2.0**-23 * rng.integers(-1, 2, (50, 32)).astype(np.float32))
    queries = np.concatenate([gallery[:2], rng.standard_normal((600, 32)).astype(np.float32)])
    looked, within = [], module._within
    monkeypatch.setattr(module, "_within", lambda *given: looked.append(1) or within(*given))
    for metric in METRICS:
        looked.clear()
        result = exact_neighbors(torch.from_numpy(queries), torch.from_numpy(gallery), k=5, metric=metric)
        assert 1 <= len(looked) <= 3
        assert result.rows[0].tolist() == [0, 5000, 5001, 5002, 5003]
        some = [0, 1, 17, 300, 601]
        for row in some:
            query = queries[row].astype(np.float64)
            others = gallery.astype(np.float64)
            if metric == "cosine":
                query = query / np.sqrt(np.square(query).sum())
                others = others / np.sqrt(np.square(others).sum(1))[:, None]
            order = np.argsort(np.square(others - query).sum(1), kind="stable")[:5]
            np.testing.assert_array_equal(result.rows[row], order)


def test_scikit_learn_finds_the_same() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(1)
    gallery, queries = rng.random((3000, 40), np.float32), rng.random((50, 40), np.float32)
    for metric, name in (("l2", "euclidean"), ("cosine", "cosine")):
        theirs = neighbors.NearestNeighbors(n_neighbors=7, metric=name, algorithm="brute")
        distances, rows = theirs.fit(gallery.astype(np.float64)).kneighbors(queries.astype(np.float64))
        ours = exact_neighbors(queries, gallery, k=7, metric=metric)
        np.testing.assert_array_equal(ours.rows, rows)
        np.testing.assert_allclose(ours.distances, distances, rtol=1e-9)


def test_what_cannot_be_searched_is_named() -> None:
    vectors = np.eye(4, dtype=np.float32)
    for k in (0, 5):
        with pytest.raises(InputError, match=rf"k to be 1 to 4, the vectors of the gallery, but got {k}"):
            exact_neighbors(vectors, vectors, k=k)
    with pytest.raises(InputError, match=r"of one length, but got \[3, 4\]"):
        exact_neighbors(vectors[:, :3], vectors, k=1)
    spoilt = vectors.copy()
    spoilt[2, 1] = np.nan
    for queries, gallery, what in ((spoilt, vectors, "queries"), (vectors, spoilt, "gallery")):
        with pytest.raises(InputError, match=rf"the {what} of finite numbers, but 1 of 4 .* row 2"):
            exact_neighbors(queries, gallery, k=1)
    with pytest.raises(InputError, match=r"'cosinus'.*cosine"):
        exact_neighbors(vectors, vectors, k=1, metric="cosinus")
    with pytest.raises(InputError, match=r"the gallery to be \(N, D\) numbers"):
        exact_neighbors(vectors, vectors[0], k=1)
