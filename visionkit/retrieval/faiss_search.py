"""faiss as an approximate search above a million vectors, with its recall against the exact answer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from visionkit.errors import InputError, install_extra
from visionkit.retrieval.index import Index
from visionkit.retrieval.neighbors import Neighbors, as_vectors, exact_distances
from visionkit.rng import keyed_seed

__all__ = ["FaissSearch", "Recall"]

MIN_VECTORS = 1_000_000  # it is trained and filled anew by each call, which the exact search is spared
_PROBES = 0.02  # fraction of the cells that are searched
_TRAINING = 64  # vectors a cell that the cells are learnt from


class Recall(NamedTuple):
    """How much of the exact answer an approximate search gives.

    Args:
        fraction: Of the exact neighbours of the queries.
        queries: How many there were.
    """

    fraction: float
    queries: int


class FaissSearch:
    """An inverted file of faiss over the vectors of an index, held in memory; its distances are exact.

    Args:
        index: The index.
        min_vectors: Vectors below which it is refused: it is trained and filled anew by each call.

    Raises:
        InputError: faiss is not installed, or the index is too small for it.
    """

    def __init__(self, index: Index, *, min_vectors: int = MIN_VECTORS) -> None:
        try:
            import faiss
        except ImportError as error:
            raise InputError(f"--backend faiss needs faiss: {install_extra('search')}.") from error
        if len(index) < min_vectors:
            raise InputError(
                f"Expected an index of at least {min_vectors:,} vectors for faiss, but it has "
                f"{len(index):,}: it is for larger ones, as each call builds it anew. Leave --backend out."
            )
        self.index = index
        cells = max(1, int(4 * np.sqrt(len(index))))
        flat = faiss.IndexFlatL2 if index.metric == "l2" else faiss.IndexFlatIP
        metric = faiss.METRIC_L2 if index.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self._coarse: Any = flat(index.dim)  # faiss does not own it
        self._cells: Any = faiss.IndexIVFFlat(self._coarse, index.dim, cells, metric)
        self._cells.train(self._scaled(self._vectors(self._sample(_TRAINING * cells))))
        for part in index.parts:
            self._cells.add(self._scaled(part))
        self._cells.nprobe = max(1, int(_PROBES * cells))
        self.about = f"{self._cells.nprobe:,} of {cells:,} cells are searched"

    def __call__(self, vectors: Any, *, k: int) -> Neighbors:
        """Return k near rows for vectors `(Q, D)`: not always the nearest, but the distances are exact."""
        queries = as_vectors(vectors, "the queries", dim=self.index.dim)
        _, rows = self._cells.search(self._scaled(queries), k)
        if (rows < 0).any():
            raise InputError(
                f"Expected {k} neighbours in the cells that are searched, but there are fewer. "
                "Take a smaller k."
            )
        rows = np.sort(rows, axis=1)
        distances = np.stack(
            [
                exact_distances(query, self._vectors(own), self.index.metric)
                for query, own in zip(queries, rows, strict=True)
            ]
        )
        order = np.argsort(distances, axis=1, kind="stable")
        return Neighbors(np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1))

    def recall(self, *, k: int, queries: int = 100) -> Recall:
        """Return how much of the exact answer it gives for some vectors of the index, themselves left out.

        Args:
            k: Neighbours of each.
            queries: How many vectors.
        """
        chosen = self._sample(queries)
        sample, k = self._vectors(chosen), min(k + 1, len(self.index))  # each is the nearest of itself
        exact, own = self.index.search(sample, k=k).rows, self(sample, k=k).rows
        others = [
            (set(one) - {query}, set(other) - {query})
            for query, one, other in zip(chosen.tolist(), exact.tolist(), own.tolist(), strict=True)
        ]
        hits, total = sum(len(one & other) for one, other in others), sum(len(one) for one, _ in others)
        return Recall(hits / total, len(sample))

    def _sample(self, count: int) -> Any:
        """Return some rows of the index, in order."""
        rng = np.random.default_rng(keyed_seed(len(self.index), count))
        return np.sort(rng.choice(len(self.index), min(count, len(self.index)), replace=False))

    def _vectors(self, rows: Any) -> Any:
        starts = np.cumsum([0, *(len(part) for part in self.index.parts)])
        owner = np.searchsorted(starts, rows, side="right") - 1
        return np.stack(
            [self.index.parts[part][row - starts[part]] for part, row in zip(owner, rows, strict=True)]
        )

    def _scaled(self, vectors: Any) -> Any:
        if self.index.metric == "l2":
            return np.ascontiguousarray(vectors)
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
        return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1)[:, None], dtype=np.float32)
