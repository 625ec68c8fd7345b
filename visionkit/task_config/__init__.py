"""Settings of tasks and data that a recipe's command line nests (`--rcnn.box_samples`), as plain dataclasses.

No torch: `--help` must not wait for it. The "Args" of a class are the help of its flags.
"""

from __future__ import annotations

from visionkit.task_config.keypoints import (
    KEYPOINT_HEADS,
    DeepPoseConfig,
    HeatmapConfig,
    KeypointAugment,
    PCKConfig,
)
from visionkit.task_config.tasks import (
    DETECTOR_SETTINGS,
    AttentionConfig,
    CheckConfig,
    Decoding,
    DetectorName,
    EmbeddingHead,
    FCOSConfig,
    RCNNConfig,
    RetinaNetConfig,
    RetrievalConfig,
    RNNConfig,
    SceneConfig,
    SegmentationAugment,
    SegmentationHead,
    SegmentationViews,
    SelfCritical,
    SentenceConfig,
    VectorFile,
)

__all__ = [
    "DETECTOR_SETTINGS",
    "KEYPOINT_HEADS",
    "AttentionConfig",
    "CheckConfig",
    "Decoding",
    "DeepPoseConfig",
    "DetectorName",
    "EmbeddingHead",
    "FCOSConfig",
    "HeatmapConfig",
    "KeypointAugment",
    "PCKConfig",
    "RCNNConfig",
    "RNNConfig",
    "RetinaNetConfig",
    "RetrievalConfig",
    "SceneConfig",
    "SegmentationAugment",
    "SegmentationHead",
    "SegmentationViews",
    "SelfCritical",
    "SentenceConfig",
    "VectorFile",
]
