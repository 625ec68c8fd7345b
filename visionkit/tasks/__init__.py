"""Tasks: each one file that turns levels into a loss and a score."""

from __future__ import annotations

from visionkit.tasks.classification import Classifier
from visionkit.tasks.prediction import ClassPrediction, LabelsPrediction, ValuesPrediction

__all__ = ["ClassPrediction", "Classifier", "LabelsPrediction", "ValuesPrediction"]
