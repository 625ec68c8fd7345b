"""Metrics as papers define them: functional cores, and a `torchmetrics.Metric` over each."""

from __future__ import annotations

from visionkit.distributed import gather_rows
from visionkit.metrics.base import ScoreMetric
from visionkit.metrics.captioning import CaptionScores, caption_scores
from visionkit.metrics.cider import CiderD, DocumentFrequency
from visionkit.metrics.classification import MultiLabelScores, RegressionScores, SingleLabelScores
from visionkit.metrics.detection import CocoAP, DetectionScores
from visionkit.metrics.embedding.identification import (
    UNKNOWN,
    Ranking,
    best_threshold,
    identification_scores,
    rank_classes,
)
from visionkit.metrics.embedding.images import EmbeddingScores
from visionkit.metrics.embedding.retrieval import RetrievalScores, retrieval_scores
from visionkit.metrics.embedding.verification import VerificationScores, verification_scores
from visionkit.metrics.keypoints.average_precision import KeypointAP
from visionkit.metrics.keypoints.distances import KeypointScores, limb_ratios, point_distances
from visionkit.metrics.keypoints.similarity import COCO_SIGMAS, keypoint_sigmas, keypoint_similarity
from visionkit.metrics.running_sums import RunningSums
from visionkit.metrics.scores import average_precision, calibration_error, f1_scores
from visionkit.metrics.segmentation import (
    SegmentationMetric,
    SegmentationScores,
    confusion_counts,
    segmentation_scores,
)

__all__ = [
    "COCO_SIGMAS",
    "UNKNOWN",
    "CaptionScores",
    "CiderD",
    "CocoAP",
    "DetectionScores",
    "DocumentFrequency",
    "EmbeddingScores",
    "KeypointAP",
    "KeypointScores",
    "MultiLabelScores",
    "Ranking",
    "RegressionScores",
    "RetrievalScores",
    "RunningSums",
    "ScoreMetric",
    "SegmentationMetric",
    "SegmentationScores",
    "SingleLabelScores",
    "VerificationScores",
    "average_precision",
    "best_threshold",
    "calibration_error",
    "caption_scores",
    "confusion_counts",
    "f1_scores",
    "gather_rows",
    "identification_scores",
    "keypoint_sigmas",
    "keypoint_similarity",
    "limb_ratios",
    "point_distances",
    "rank_classes",
    "retrieval_scores",
    "segmentation_scores",
    "verification_scores",
]
