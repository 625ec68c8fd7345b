"""Metrics as papers define them: functional cores, and a `torchmetrics.Metric` over each."""

from __future__ import annotations

from visionkit.distributed import gather_rows
from visionkit.metrics.base import ScoreMetric
from visionkit.metrics.captioning import CaptionScores, caption_scores
from visionkit.metrics.cider import CiderD, DocumentFrequency
from visionkit.metrics.classification import MultiLabelScores, RegressionScores, SingleLabelScores
from visionkit.metrics.detection import CocoAP, DetectionScores
from visionkit.metrics.running_sums import RunningSums
from visionkit.metrics.scores import average_precision, calibration_error, f1_scores
from visionkit.metrics.segmentation import (
    SegmentationMetric,
    SegmentationScores,
    confusion_counts,
    segmentation_scores,
)

__all__ = [
    "CaptionScores",
    "CiderD",
    "CocoAP",
    "DetectionScores",
    "DocumentFrequency",
    "MultiLabelScores",
    "RegressionScores",
    "RunningSums",
    "ScoreMetric",
    "SegmentationMetric",
    "SegmentationScores",
    "SingleLabelScores",
    "average_precision",
    "calibration_error",
    "caption_scores",
    "confusion_counts",
    "f1_scores",
    "gather_rows",
    "segmentation_scores",
]
