"""A sentence about an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionkit.predict.kinds.kind import Kind, stacked
from visionkit.tasks.captioning.prediction import CaptionPrediction

__all__ = ["CAPTIONING"]


def _to_dict(prediction: CaptionPrediction, names: Sequence[str]) -> dict[str, Any]:
    return {
        "caption": prediction.caption,
        "log_prob": prediction.log_prob,
        "n_best": [[caption, score] for caption, score in prediction.n_best],
    }


def _summary(prediction: CaptionPrediction, names: Sequence[str]) -> str:
    return prediction.caption or "no words"


CAPTIONING = Kind(
    name="captioning",
    task="Captioner",
    to_dict=_to_dict,
    summary=_summary,
    collate=stacked,
    preprocess=lambda side: {"name": "CenterCrop", "size": side, "fraction": 1.0},
)
