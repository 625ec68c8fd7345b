"""`load_index`: the vectors of many images, mapped from the disk, and their nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.errors import DataError
from visionkit.retrieval.layout import Row, read_manifest, read_shard
from visionkit.retrieval.neighbors import METRICS, Metric, Neighbors, as_vectors, search_parts

__all__ = ["Index", "load_index"]


class Index:
    """The vectors of many images with their names; made by `load_index`.

    Args:
        folder: Where it is.
        parts: `(n, D)` float32 each, the vectors of all images one part after another.
        rows: The images.
        metric: "cosine" or "l2".
        encoder: What made the vectors: "source", "init", "digest", "preprocess", "precision" and more.
    """

    def __init__(
        self,
        folder: str | Path,
        parts: Sequence[NDArray[np.float32]],
        rows: Sequence[Row],
        *,
        metric: Metric,
        encoder: dict[str, Any],
    ) -> None:
        self.folder = Path(folder)
        self.rows = list(rows)
        self.metric: Metric = metric
        self.encoder = encoder
        self._parts = list(parts)
        self.dim = int(self._parts[0].shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def parts(self) -> tuple[NDArray[np.float32], ...]:
        """Return the vectors `(n, D)` of each file, as they lie on the disk."""
        return tuple(self._parts)

    def search(self, vectors: Any, *, k: int = 10) -> Neighbors:
        """Return the k nearest images of each vector, exactly: see `exact_neighbors`.

        Args:
            vectors: `(Q, D)`, an array or a tensor, of the encoder that made the index.
            k: Neighbours of each.

        Raises:
            InputError: There are fewer than k images, the length differs, or a number is not finite.
        """
        queries = as_vectors(vectors, "the queries", dim=self.dim)
        return search_parts(queries, self._parts, k=k, metric=self.metric)


def load_index(folder: str | Path, *, check: bool = True) -> Index:
    """Return an index that `build_index` or `visionkit index` wrote; its vectors stay on the disk.

    Args:
        folder: The index.
        check: Read all files once and compare their SHA-256.

    Raises:
        InputError: There is no such folder.
        DataError: The index is unfinished, of another version, or a file of it is missing or was altered.
    """
    manifest = read_manifest(folder)
    path = Path(folder)
    try:
        shards = [
            read_shard(path / Path(str(each["name"])).name, known=each, check=check)
            for each in manifest["shards"]
        ]
        count, dim, metric = manifest["count"], manifest["dim"], manifest["metric"]
        encoder = dict(manifest["encoder"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the description is damaged: {error!r}.", path=path / "index.json") from error
    parts = [shard.vectors for shard in shards]
    rows = [row for shard in shards for row in shard.rows]
    if not rows or len(rows) != count or metric not in METRICS or {part.shape[1] for part in parts} != {dim}:
        raise DataError(
            f"Expected {count} vectors of length {dim} and a metric of {', '.join(METRICS)}, but the files "
            f"have {len(rows)} of {sorted({part.shape[1] for part in parts})}, and the metric is {metric!r}.",
            path=path / "index.json",
        )
    return Index(path, parts, rows, metric=metric, encoder=encoder)
