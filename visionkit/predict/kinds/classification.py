"""Classes of an image: one, any number of labels, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionkit.predict.kinds.kind import Kind, class_name, stacked
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
        return ", ".join(f"{name} {value:.1%}" for value, name in sorted(chosen, reverse=True)) or "no label"
    return f"{class_name(prediction.index, names)} {prediction.confidence:.1%}"


CLASSIFICATION = Kind(
    name="classification",
    task="Classifier",
    to_dict=_to_dict,
    summary=_summary,
    collate=stacked,
    preprocess=lambda side: {"name": "CenterCrop", "size": side, "fraction": 1.0},
)
