"""Use what was trained: predict on images, evaluate. Names are imported when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.predict.evaluation.evaluate import evaluate
    from visionkit.predict.evaluation.result import Evaluation
    from visionkit.predict.load import Loaded, load_task
    from visionkit.predict.predictor import ImagePrediction, Predictor, load

__all__ = ["Evaluation", "ImagePrediction", "Loaded", "Predictor", "evaluate", "load", "load_task"]

_HOME = {
    "Evaluation": "evaluation.result",
    "ImagePrediction": "predictor",
    "Loaded": "load",
    "Predictor": "predictor",
    "evaluate": "evaluation.evaluate",
    "load": "predictor",
    "load_task": "load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
