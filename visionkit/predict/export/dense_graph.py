"""A RetinaNet or an FCOS as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visionkit.nn.detection.dense import DenseDetector
from visionkit.predict.export.detection_graph import DetectionGraph, Size, best_of_classes, clip
from visionkit.tasks import Detector

__all__ = ["DenseGraph"]


class DenseGraph(DetectionGraph):
    """A one-stage detector with its suppression.

    Args:
        task: The task.
        uint8: Whether images are uint8, and not float in [0, 1].

    The steps are those of `DenseDetector`; Lin et al., Focal Loss for Dense Object Detection, 2017; Tian et
    al., FCOS, 2020.
    """

    classes: Tensor

    def __init__(self, task: Detector, *, uint8: bool) -> None:
        model: Any = task.model
        super().__init__(task, model.anchors, uint8=uint8)
        self.model: DenseDetector = model
        self.register_buffer("classes", torch.arange(task.num_classes)[:, None], persistent=False)  # (K, 1)

    def _detect(self, maps: Sequence[Tensor], size: Size, padded: Size) -> tuple[Tensor, ...]:
        config = self.model.config
        # Step 1: the best of each level, P in all.
        best = []
        for index, (level, outputs) in enumerate(zip(maps, self.model.head(maps), strict=True)):
            anchors = self._anchors(index, level.shape[-2:], padded)
            best.append(self.model.top_boxes(outputs, anchors, padded=True))
        boxes, scores, labels = (torch.cat(part, 1) for part in zip(*best, strict=True))
        boxes, scores = clip(boxes, size), scores * (scores > config.score_threshold)
        # Step 2: all of them under each class, those of others with score 0.
        of_class = labels[:, None] == self.classes  # (B, K, P)
        by_class = boxes[:, None].expand(-1, len(self.classes), -1, -1)
        return best_of_classes(
            by_class,
            scores[:, None] * of_class,
            threshold=config.nms_threshold,
            limit=config.detections_per_img,
        )
