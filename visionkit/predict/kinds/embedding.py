"""A vector of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from visionkit.drawing.panels import add_below
from visionkit.predict.kinds.blocks import block_width, legible, text_block, text_size
from visionkit.predict.kinds.kind import Kind, stacked
from visionkit.tasks.embedding.prediction import EmbeddingPrediction

__all__ = ["EMBEDDING"]

_SHOWN = 4  # numbers of the vector in a line


def _to_dict(prediction: EmbeddingPrediction, names: Sequence[str]) -> dict[str, Any]:
    return {"vector": prediction.vector.tolist()}


def _summary(prediction: EmbeddingPrediction, names: Sequence[str]) -> str:
    numbers = ", ".join(f"{value:.3f}" for value in prediction.vector[:_SHOWN].tolist())
    more = ", ..." if len(prediction.vector) > _SHOWN else ""
    return f"{len(prediction.vector)} numbers: {numbers}{more}"


def _draw(
    prediction: EmbeddingPrediction, names: Sequence[str], image: Tensor, min_score: float
) -> Image.Image:
    """Return the image with the first numbers of its vector below it."""
    canvas = legible(image)
    text = _summary(prediction, names)
    return add_below(canvas, text_block(text, width=block_width(canvas), size=text_size(canvas)))


EMBEDDING = Kind(
    name="embedding",
    task="Embedder",
    to_dict=_to_dict,
    summary=_summary,
    draw=_draw,
    collate=stacked,
    preprocess=lambda side: {"name": "CenterCrop", "size": side, "fraction": 1.0},
)
