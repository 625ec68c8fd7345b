"""Tasks: each one file that turns levels into a loss and a score."""

from __future__ import annotations

from visionkit.tasks.classification import Classifier
from visionkit.tasks.detection import Detector
from visionkit.tasks.frames import Detections
from visionkit.tasks.prediction import ClassPrediction, LabelsPrediction, ValuesPrediction

__all__ = ["ClassPrediction", "Classifier", "Detections", "Detector", "LabelsPrediction", "ValuesPrediction"]
