"""visionkit: does pretrained init beat from-scratch here, by how much, for how long, with how little data?

One registry of pretrained backbones (`visionkit.backbones`) under Lightning tasks (`visionkit.tasks`),
recipes that train both arms under the same conditions, and a comparison that refuses unlike runs.
Importing this package imports nothing else: no torch, no Lightning. Its names are imported when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.backbones import (
        create_backbone,
        create_encoder,
        describe_backbone,
        list_backbones,
        register_backbone,
    )
    from visionkit.config import OptimConfig, TransferConfig
    from visionkit.data import DataModule, FolderData, Keyed, Skeleton, open_dataset
    from visionkit.task_config import DeepPoseConfig, FCOSConfig, HeatmapConfig, RCNNConfig, RetinaNetConfig
    from visionkit.tasks import Captioner, Classifier, Detector, Embedder, KeypointRegressor, Segmenter
    from visionkit.text import Vocabulary

__version__ = "0.1.0"

__all__ = [
    "Captioner",
    "Classifier",
    "DataModule",
    "DeepPoseConfig",
    "Detector",
    "Embedder",
    "FCOSConfig",
    "FolderData",
    "HeatmapConfig",
    "Keyed",
    "KeypointRegressor",
    "OptimConfig",
    "RCNNConfig",
    "RetinaNetConfig",
    "Segmenter",
    "Skeleton",
    "TransferConfig",
    "Vocabulary",
    "__version__",
    "create_backbone",
    "create_encoder",
    "describe_backbone",
    "list_backbones",
    "open_dataset",
    "register_backbone",
]

_HOME = {
    "Captioner": "tasks",
    "Classifier": "tasks",
    "DataModule": "data",
    "DeepPoseConfig": "task_config",
    "Detector": "tasks",
    "Embedder": "tasks",
    "FCOSConfig": "task_config",
    "FolderData": "data",
    "HeatmapConfig": "task_config",
    "Keyed": "data",
    "KeypointRegressor": "tasks",
    "OptimConfig": "config",
    "RCNNConfig": "task_config",
    "RetinaNetConfig": "task_config",
    "Segmenter": "tasks",
    "Skeleton": "data",
    "TransferConfig": "config",
    "Vocabulary": "text",
    "create_backbone": "backbones",
    "create_encoder": "backbones",
    "describe_backbone": "backbones",
    "list_backbones": "backbones",
    "open_dataset": "data",
    "register_backbone": "backbones",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
