"""Use what was trained: predict on images. Names are imported when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.predict.loaded import Loaded, load_task
    from visionkit.predict.predictor import ImagePrediction, Predictor, load
    from visionkit.predict.share import publish, timm_weights

__all__ = ["ImagePrediction", "Loaded", "Predictor", "load", "load_task", "publish", "timm_weights"]

_HOME = {
    "ImagePrediction": "predictor",
    "Loaded": "loaded",
    "Predictor": "predictor",
    "load": "predictor",
    "load_task": "loaded",
    "publish": "share",
    "timm_weights": "share",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
