"""Use what was trained: predict on images, evaluate. Names are imported when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.predict.describe import describe_trained
    from visionkit.predict.evaluation.evaluate import evaluate
    from visionkit.predict.evaluation.result import Evaluation
    from visionkit.predict.loaded import Loaded, load_task
    from visionkit.predict.predictor import Predictor, load
    from visionkit.predict.result import Result
    from visionkit.predict.share import publish, timm_weights

__all__ = [
    "Evaluation",
    "Loaded",
    "Predictor",
    "Result",
    "describe_trained",
    "evaluate",
    "load",
    "load_task",
    "publish",
    "timm_weights",
]

_HOME = {
    "Evaluation": "evaluation.result",
    "Loaded": "loaded",
    "Predictor": "predictor",
    "Result": "result",
    "describe_trained": "describe",
    "evaluate": "evaluation.evaluate",
    "load": "predictor",
    "load_task": "loaded",
    "publish": "share",
    "timm_weights": "share",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
