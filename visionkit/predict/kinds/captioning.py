"""A sentence about an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from visionkit.drawing.panels import INK, add_below
from visionkit.predict.kinds.blocks import MUTED, block_width, legible, text_block, text_size
from visionkit.predict.kinds.kind import Kind, stacked
from visionkit.tasks.captioning.prediction import CaptionPrediction

__all__ = ["CAPTIONING"]

_LARGER = 1.25  # the caption, beside other text


def _to_dict(prediction: CaptionPrediction, names: Sequence[str]) -> dict[str, Any]:
    return {
        "caption": prediction.caption,
        "log_prob": prediction.log_prob,
        "n_best": [[caption, score] for caption, score in prediction.n_best],
    }


def _summary(prediction: CaptionPrediction, names: Sequence[str]) -> str:
    return prediction.caption or "no words"


def _draw(
    prediction: CaptionPrediction, names: Sequence[str], image: Tensor, min_score: float
) -> Image.Image:
    """Return the image with its caption below it."""
    canvas = legible(image)
    size, color = round(text_size(canvas) * _LARGER), INK if prediction.caption else MUTED
    text = _summary(prediction, names)
    return add_below(canvas, text_block(text, width=block_width(canvas), size=size, color=color))


CAPTIONING = Kind(
    name="captioning",
    task="Captioner",
    to_dict=_to_dict,
    summary=_summary,
    draw=_draw,
    collate=stacked,
    preprocess=lambda side: {"name": "CenterCrop", "size": side, "fraction": 1.0},
)
