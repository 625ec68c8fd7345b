"""Tasks: each one file that turns levels into a loss and a score."""

from __future__ import annotations

from visionkit.tasks.captioning import Captioner
from visionkit.tasks.captioning_prediction import CaptionPrediction
from visionkit.tasks.captioning_settings import Decoding, SelfCritical
from visionkit.tasks.classification import Classifier
from visionkit.tasks.detection import Detector
from visionkit.tasks.frames import Detections
from visionkit.tasks.prediction import ClassPrediction, LabelsPrediction, ValuesPrediction
from visionkit.tasks.segmentation import Segmenter
from visionkit.tasks.segmentation_from_torchvision import segmenter_from_torchvision
from visionkit.tasks.segmentation_prediction import SegmentationPrediction

__all__ = [
    "CaptionPrediction",
    "Captioner",
    "ClassPrediction",
    "Classifier",
    "Decoding",
    "Detections",
    "Detector",
    "LabelsPrediction",
    "SegmentationPrediction",
    "Segmenter",
    "SelfCritical",
    "ValuesPrediction",
    "segmenter_from_torchvision",
]
