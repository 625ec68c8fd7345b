"""Search images by their vectors, exactly. Names are imported when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.retrieval.build import IndexReport, build_index
    from visionkit.retrieval.encoder import load_encoder
    from visionkit.retrieval.index import Index, load_index
    from visionkit.retrieval.neighbors import Neighbors, exact_neighbors

__all__ = [
    "Index",
    "IndexReport",
    "Neighbors",
    "build_index",
    "exact_neighbors",
    "load_encoder",
    "load_index",
]

_HOME = {
    "Index": "index",
    "IndexReport": "build",
    "Neighbors": "neighbors",
    "build_index": "build",
    "exact_neighbors": "neighbors",
    "load_encoder": "encoder",
    "load_index": "index",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
