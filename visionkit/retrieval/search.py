"""`search_images`: the nearest images of an index for each image of a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionkit.errors import DataError, InputError, expected
from visionkit.predict.predictor import Predictor
from visionkit.retrieval.encoder import check_encoder, encoder_from
from visionkit.retrieval.index import Index
from visionkit.retrieval.layout import Row
from visionkit.retrieval.neighbors import Neighbors
from visionkit.run.previews.to_pil import to_pil

__all__ = ["Match", "Search", "search_images"]

_Query = tuple[str, str | None, Image.Image, NDArray[np.float32]]
SIDE = 240  # pixels of a small copy
_BLOCK = 256  # queries that are searched at once


class Search(Protocol):
    """What finds neighbours: `Index.search`, or an approximate one."""

    def __call__(self, vectors: Any, *, k: int) -> Neighbors:  # pragma: no cover
        """Return the k nearest rows for vectors `(Q, D)`."""
        ...


@dataclass(frozen=True)
class Match:
    """The neighbours of one image.

    Args:
        id: The path of the image as given, or its position in the source.
        path: Its file; None for an image in memory.
        small: A small copy of it.
        neighbors: The nearest images of the index, the nearest first.
        distances: Theirs.
    """

    id: str
    path: str | None
    small: Image.Image
    neighbors: tuple[Row, ...]
    distances: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as values for JSON: "query", and "neighbors" with "rank", "distance", "name", ..."""
        ranked = zip(self.neighbors, self.distances, strict=True)
        return {
            "query": self.id,
            "neighbors": [
                {
                    "rank": rank,
                    "distance": distance,
                    "name": row.name,
                    "path": row.path,
                    "split": row.split,
                    "label": row.label,
                }
                for rank, (row, distance) in enumerate(ranked, 1)
            ],
        }


def search_images(
    index: Index,
    source: Any,
    *,
    k: int = 10,
    encoder: Predictor | None = None,
    search: Search | None = None,
    batch_size: int = 0,
    on_error: Callable[[str, DataError], object] | None = None,
) -> Iterator[Match]:
    """Yield the neighbours of each image of a source, in its order, in bounded memory.

    Args:
        index: The index.
        source: Images: a path, a folder, a glob, an array, a PIL image, a tensor, or a list of these.
        k: Neighbours of each.
        encoder: What gives the vectors; None: the encoder that made the index, loaded again.
        search: What finds the neighbours; None: the exact search of the index.
        batch_size: Images at once; 0: 32.
        on_error: Called with the name and the error of a file that cannot be read, which is then left out;
            without it the error is raised.

    Raises:
        InputError: The index has fewer than k images, the encoder is another one, or the source is empty.
        DataError: A file cannot be read, and there is no `on_error`.
    """
    if not 1 <= k <= len(index):
        fix = "Ask for fewer neighbours, or add images to the index."
        raise InputError(expected("k", f"1 to {len(index):,}, the images of the index", k, fix=fix))
    if encoder is None:
        encoder = encoder_from(index.encoder)
    else:
        check_encoder(encoder.facts, index.encoder)
    search = search or index.search
    block: list[_Query] = []
    for result in encoder.stream(source, batch_size=batch_size, on_error=on_error):
        small = to_pil(result.image, side=SIDE)
        block.append((result.id, result.path, small, result.prediction.vector.numpy()))
        if len(block) == _BLOCK:
            yield from _matches(index, search, block, k)
            block = []
    if block:
        yield from _matches(index, search, block, k)


def _matches(index: Index, search: Search, block: list[_Query], k: int) -> Iterator[Match]:
    neighbors = search(np.stack([vector for *_, vector in block]), k=k)
    for (name, path, small, _), distances, rows in zip(
        block, neighbors.distances, neighbors.rows, strict=True
    ):
        nearest = tuple(index.rows[row] for row in rows)
        yield Match(name, path, small, nearest, tuple(map(float, distances)))
