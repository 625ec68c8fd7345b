"""Search images by their vectors, exactly. Names are imported when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.retrieval.baselines import (
        BASELINES,
        baseline_encoder,
        check_baselines,
        compared_runs,
        embedding_scores,
        run_encoder,
        trained_scores,
        write_scores,
    )
    from visionkit.retrieval.build import IndexReport, build_index
    from visionkit.retrieval.encoder import load_encoder
    from visionkit.retrieval.index import Index, load_index
    from visionkit.retrieval.neighbors import Neighbors, exact_neighbors
    from visionkit.retrieval.pairs import Pairs, read_pairs, score_pairs

__all__ = [
    "BASELINES",
    "Index",
    "IndexReport",
    "Neighbors",
    "Pairs",
    "baseline_encoder",
    "build_index",
    "check_baselines",
    "compared_runs",
    "embedding_scores",
    "exact_neighbors",
    "load_encoder",
    "load_index",
    "read_pairs",
    "run_encoder",
    "score_pairs",
    "trained_scores",
    "write_scores",
]

_HOME = {
    "BASELINES": "baselines",
    "Index": "index",
    "IndexReport": "build",
    "Neighbors": "neighbors",
    "Pairs": "pairs",
    "baseline_encoder": "baselines",
    "build_index": "build",
    "check_baselines": "baselines",
    "compared_runs": "baselines",
    "embedding_scores": "baselines",
    "exact_neighbors": "neighbors",
    "load_encoder": "encoder",
    "load_index": "index",
    "read_pairs": "pairs",
    "run_encoder": "baselines",
    "score_pairs": "pairs",
    "trained_scores": "baselines",
    "write_scores": "baselines",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
