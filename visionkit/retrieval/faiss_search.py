"""faiss as an approximate search above a million vectors, with its recall against the exact answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visionkit.errors import InputError, RunError, install_extra
from visionkit.files import file_digest, write_text
from visionkit.retrieval.index import Index
from visionkit.retrieval.layout import MANIFEST
from visionkit.retrieval.neighbors import Neighbors, as_vectors, nearest_of, take_rows
from visionkit.rng import keyed_seed
from visionkit.run.storage.disk import write_file

__all__ = ["FaissSearch", "Recall"]

MIN_VECTORS = 1_000_000  # below it the exact search is fast enough, and needs no second copy of the vectors
CELLS, ABOUT_CELLS = "faiss.ivf", "faiss.json"
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
    """An inverted file of faiss over the vectors of an index; its distances are exact.

    It is made once and written into the index's folder (`faiss.ivf`, as large as the vectors); a later search
    maps it from there as long as neither it nor the index has changed.

    Args:
        index: The index.
        min_vectors: Vectors below which it is refused: the exact search needs neither time nor disk for it.

    Attributes:
        about: What is searched, and where the cells are, in words.

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
                f"{len(index):,}: it is for larger ones, where the exact search is slow. Leave --backend out."
            )
        self.index = index
        self._faiss: Any = faiss
        cells = max(1, int(4 * np.sqrt(len(index))))
        stored, where = self._stored(), f"read from {index.folder / CELLS}"
        self._cells: Any = stored
        if stored is None:
            self._cells = self._made(cells)
            where = self._store()
        self._cells.nprobe = max(1, int(_PROBES * cells))
        self.about = f"{self._cells.nprobe:,} of {cells:,} cells are searched, {where}"

    def __call__(self, vectors: Any, *, k: int) -> Neighbors:
        """Return k near rows for vectors `(Q, D)`: not always the nearest, but the distances are exact."""
        queries = as_vectors(vectors, "the queries", dim=self.index.dim)
        _, near = self._cells.search(self._scaled(queries), k)
        if (near < 0).any():
            raise InputError(
                f"Expected {k} neighbours in the cells that are searched, but there are fewer. "
                "Take a smaller k."
            )
        distances, rows = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
        for number, query in enumerate(queries):
            chosen = np.sort(near[number])
            nearest = nearest_of(query, self.index.parts, chosen, k=k, metric=self.index.metric)
            distances[number], rows[number] = nearest
        return Neighbors(distances, rows)

    def recall(self, *, k: int, queries: int = 100) -> Recall:
        """Return how much of the exact answer it gives for some vectors of the index, themselves left out.

        Args:
            k: Neighbours of each.
            queries: How many vectors.
        """
        chosen = self._sample(queries)
        sample = take_rows(self.index.parts, chosen)
        k = min(k + 1, len(self.index))  # each is the nearest of itself
        exact, own = self.index.search(sample, k=k).rows, self(sample, k=k).rows
        others = [
            (set(one) - {query}, set(other) - {query})
            for query, one, other in zip(chosen.tolist(), exact.tolist(), own.tolist(), strict=True)
        ]
        hits, total = sum(len(one & other) for one, other in others), sum(len(one) for one, _ in others)
        return Recall(hits / total, len(sample))

    def _made(self, cells: int) -> Any:
        """Return an inverted file of all vectors, whose cells are learnt from a sample of them."""
        index, faiss = self.index, self._faiss
        l2 = index.metric == "l2"
        coarse = faiss.IndexFlatL2(index.dim) if l2 else faiss.IndexFlatIP(index.dim)
        metric = faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT
        made = faiss.IndexIVFFlat(coarse, index.dim, cells, metric)
        self._coarse = coarse  # faiss does not own it
        made.train(self._scaled(take_rows(index.parts, self._sample(_TRAINING * cells))))
        for part in index.parts:
            made.add(self._scaled(part))
        return made

    def _known(self) -> dict[str, str]:
        """Return what the stored cells must be of; empty for an index that is on no disk."""
        manifest = self.index.folder / MANIFEST
        if not manifest.is_file():
            return {}
        return {"index_sha256": file_digest(manifest), "faiss": str(self._faiss.__version__)}

    def _stored(self) -> Any | None:
        """Return the cells in the index's folder, mapped; None where there are none of this very index."""
        folder, known = self.index.folder, self._known()
        try:
            about = json.loads((folder / ABOUT_CELLS).read_text(encoding="utf-8"))
            if not known or about != known | {"sha256": file_digest(folder / CELLS)}:
                return None
            return self._faiss.read_index(str(folder / CELLS), self._faiss.IO_FLAG_MMAP)
        except (OSError, ValueError, RuntimeError):  # none yet, or one that cannot be read: it is made again
            return None

    def _store(self) -> str:
        """Write the cells into the index's folder, and return where they are, in words."""
        folder, known = self.index.folder, self._known()
        if not known:
            return "in memory"

        def write(part: Path) -> None:
            self._faiss.write_index(self._cells, str(part))

        try:
            (folder / ABOUT_CELLS).unlink(missing_ok=True)
            write_file(folder / CELLS, write, needed=sum(part.nbytes for part in self.index.parts))
            about = known | {"sha256": file_digest(folder / CELLS)}
            write_text(folder / ABOUT_CELLS, json.dumps(about))
        except (OSError, RunError) as error:
            return f"in memory, as they could not be kept: {error}"
        return f"kept in {folder / CELLS}"

    def _sample(self, count: int) -> Any:
        """Return some rows of the index, in order."""
        rng = np.random.default_rng(keyed_seed(len(self.index), count))
        return np.sort(rng.choice(len(self.index), min(count, len(self.index)), replace=False))

    def _scaled(self, vectors: Any) -> Any:
        if self.index.metric == "l2":
            return np.ascontiguousarray(vectors)
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
        return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1)[:, None], dtype=np.float32)
