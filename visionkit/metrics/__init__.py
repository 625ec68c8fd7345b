"""Scores that mean what papers mean: functional cores, and shells that sum on the device."""

from __future__ import annotations

from visionkit.distributed import gather_rows
from visionkit.metrics.caption_scores import caption_scores
from visionkit.metrics.captioning import CaptionScores
from visionkit.metrics.cider import CiderD, DocumentFrequency
from visionkit.metrics.classification import MultiLabelScores, RegressionScores, SingleLabelScores
from visionkit.metrics.running_sums import RunningSums
from visionkit.metrics.scores import average_precision, calibration_error, f1_scores

__all__ = [
    "CaptionScores",
    "CiderD",
    "DocumentFrequency",
    "MultiLabelScores",
    "RegressionScores",
    "RunningSums",
    "SingleLabelScores",
    "average_precision",
    "calibration_error",
    "caption_scores",
    "f1_scores",
    "gather_rows",
]
