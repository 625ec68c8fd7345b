"""Tasks: each turns the levels of a backbone into a loss and a score."""

from __future__ import annotations

from visionkit.task_config import (
    Decoding,
    DeepPoseConfig,
    FCOSConfig,
    HeatmapConfig,
    RCNNConfig,
    RetinaNetConfig,
    SelfCritical,
)
from visionkit.tasks.captioning.prediction import CaptionPrediction
from visionkit.tasks.captioning.self_critical import training_frequency
from visionkit.tasks.captioning.task import Captioner
from visionkit.tasks.classification.prediction import ClassPrediction, LabelsPrediction, ValuesPrediction
from visionkit.tasks.classification.task import Classifier
from visionkit.tasks.detection.image_batch import Detections
from visionkit.tasks.detection.task import Detector
from visionkit.tasks.embedding.prediction import EmbeddingPrediction
from visionkit.tasks.embedding.task import Embedder
from visionkit.tasks.keypoints.prediction import KeypointPrediction
from visionkit.tasks.keypoints.task import KeypointRegressor
from visionkit.tasks.segmentation.prediction import SegmentationPrediction
from visionkit.tasks.segmentation.task import Segmenter

__all__ = [
    "CaptionPrediction",
    "Captioner",
    "ClassPrediction",
    "Classifier",
    "Decoding",
    "DeepPoseConfig",
    "Detections",
    "Detector",
    "Embedder",
    "EmbeddingPrediction",
    "FCOSConfig",
    "HeatmapConfig",
    "KeypointPrediction",
    "KeypointRegressor",
    "LabelsPrediction",
    "RCNNConfig",
    "RetinaNetConfig",
    "SegmentationPrediction",
    "Segmenter",
    "SelfCritical",
    "ValuesPrediction",
    "training_frequency",
]
