"""Classes of an image: one, any number of labels, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from visionkit.drawing.panels import add_below
from visionkit.predict.kinds.blocks import (
    Bar,
    bar_block,
    block_width,
    legible,
    text_block,
    text_size,
)
from visionkit.predict.kinds.kind import Kind, class_name, percent, stacked
from visionkit.tasks.classification.prediction import LabelsPrediction, Prediction, ValuesPrediction

__all__ = ["CLASSIFICATION", "TOP"]

TOP = 5  # classes that are named with their probabilities


def _to_dict(prediction: Prediction, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(prediction, ValuesPrediction):
        return {"values": prediction.values.tolist()}
    probabilities: list[float] = prediction.probabilities.tolist()
    if isinstance(prediction, LabelsPrediction):
        labels = [class_name(index, names) for index in prediction.indices]
        return {"labels": labels, "indices": list(prediction.indices), "probabilities": probabilities}
    order = prediction.probabilities.argsort(descending=True, stable=True)[:TOP].tolist()
    top = [{"name": class_name(i, names), "index": i, "probability": probabilities[i]} for i in order]
    return {
        "label": class_name(prediction.index, names),
        "index": prediction.index,
        "confidence": prediction.confidence,
        "top": top,
        "probabilities": probabilities,
    }


def _summary(prediction: Prediction, names: Sequence[str]) -> str:
    if isinstance(prediction, ValuesPrediction):
        return ", ".join(f"{value:.4g}" for value in prediction.values.tolist())
    if isinstance(prediction, LabelsPrediction):
        chosen = [(float(prediction.probabilities[i]), class_name(i, names)) for i in prediction.indices]
        return (
            ", ".join(f"{name} {percent(value)}" for value, name in sorted(chosen, reverse=True))
            or "no label"
        )
    return f"{class_name(prediction.index, names)} {percent(prediction.confidence)}"


def _draw(prediction: Prediction, names: Sequence[str], image: Tensor, min_score: float) -> Image.Image:
    """Return the image with bars of the likeliest classes below it, or with the values of regression."""
    canvas = legible(image)
    width, size = block_width(canvas), text_size(canvas)
    if isinstance(prediction, ValuesPrediction):
        values = prediction.values.tolist()
        named = [f"{names[i]} {value:.4g}" if names else f"{value:.4g}" for i, value in enumerate(values)]
        return add_below(canvas, text_block(", ".join(named), width=width, size=size))
    chosen = prediction.indices if isinstance(prediction, LabelsPrediction) else (prediction.index,)
    order = prediction.probabilities.argsort(descending=True, stable=True).tolist()
    probabilities = prediction.probabilities.tolist()
    bars = [
        Bar(class_name(i, names), probabilities[i], percent(probabilities[i]), i in chosen)
        for i in order[: max(TOP, len(chosen))]
    ]
    return add_below(canvas, bar_block(bars, width=width, size=size))


CLASSIFICATION = Kind(
    name="classification",
    task="Classifier",
    to_dict=_to_dict,
    summary=_summary,
    draw=_draw,
    collate=stacked,
    preprocess=lambda side: {"name": "CenterCrop", "size": side, "fraction": 1.0},
)
