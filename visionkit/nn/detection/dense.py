"""What one-stage detectors share: from the maps of a pyramid to losses, and to detections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image

from visionkit.backbones.level import FeatureSource
from visionkit.errors import InputError
from visionkit.nn.detection.anchors import LevelAnchors
from visionkit.nn.detection.dense_head import DenseHead, DenseOutputs
from visionkit.nn.detection.suppress import best_after_nms
from visionkit.task_config import FCOSConfig, RetinaNetConfig

__all__ = ["DenseDetector"]


class DenseDetector(nn.Module, ABC):
    """One-stage detector over a source whose levels have equal channels (a pyramid).

    Args:
        source: Normalised images to maps; all levels with the same channels.
        anchors: Generates the anchors.
        head: Maps to classes and boxes of the anchors.
        config: Thresholds and limits.
    """

    def __init__(
        self,
        source: FeatureSource,
        *,
        anchors: LevelAnchors,
        head: DenseHead,
        config: RetinaNetConfig | FCOSConfig,
    ) -> None:
        super().__init__()
        self.source = source
        self.anchors = anchors
        self.head = head
        self.config = config

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        targets: Sequence[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return detections (evaluation) and named losses (training); the other of the two is empty.

        Args:
            images: `(B, 3, H, W)` normalised, padded at the right and at the bottom.
            sizes: `(H, W)` of each image without padding.
            targets: For each image `boxes` `(N, 4)` and `labels` `(N,)` from 0, in the frame of `images`;
                required in training.

        Returns:
            For each image `boxes` `(D, 4)`, `scores` `(D,)`, `labels` `(D,)` from 0, best first; and the
            losses.
        """
        if self.training and targets is None:
            raise InputError("Expected targets in training, but got none.")
        shapes = [(int(h), int(w)) for h, w in sizes]
        maps = list(self.source(images))
        outputs = self.head(maps)
        anchors = self.anchors(ImageList(images, shapes), maps)[0]  # (A, 4), the same for all images
        counts = [int(level.logits.shape[1]) for level in outputs]
        if not self.training or targets is None:
            return self._detect(outputs, anchors.split(counts), shapes), {}
        joined = DenseOutputs(*(torch.cat(part, 1) for part in zip(*outputs, strict=True)))
        return [], self._losses(joined, anchors, counts, targets)

    def outputs(self, images: Tensor) -> tuple[DenseOutputs, Tensor]:
        """Return what the head gives for all anchors of all levels, and the anchors `(A, 4)` xyxy.

        Args:
            images: `(B, 3, H, W)` normalised, without padding.
        """
        maps = list(self.source(images))
        sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        anchors: Tensor = self.anchors(ImageList(images, sizes), maps)[0]
        return DenseOutputs(*(torch.cat(part, 1) for part in zip(*self.head(maps), strict=True))), anchors

    def top_boxes(
        self, outputs: DenseOutputs, anchors: Tensor, *, padded: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes `(B, P, 4)`, scores and labels `(B, P)` of the best of a level, best first.

        Args:
            outputs: Of the level.
            anchors: `(A, 4)` of the level.
            padded: Return `topk_candidates` of them in any case, those that there are not with score 0.
        """
        scores = self.scores(outputs).flatten(1)  # (B, A * num_classes)
        limit = self.config.topk_candidates
        if padded:
            scores = F.pad(scores, (0, limit))
        best = scores.topk(limit if padded else min(limit, scores.shape[1]), dim=1)
        index = best.indices * (best.values > 0) if padded else best.indices
        anchor, label = index // outputs.logits.shape[2], index % outputs.logits.shape[2]
        offsets = outputs.offsets.gather(1, anchor[..., None].expand(-1, -1, 4))  # (B, P, 4)
        boxes = self.decode(offsets.flatten(0, 1), anchors[anchor.flatten()])
        return boxes.unflatten(0, anchor.shape), best.values, label

    def _detect(
        self, outputs: Sequence[DenseOutputs], anchors: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        best = [self.top_boxes(*level) for level in zip(outputs, anchors, strict=True)]
        boxes, scores, labels = (torch.cat(part, 1) for part in zip(*best, strict=True))
        out = []
        for box, score, label, size in zip(boxes, scores, labels, sizes, strict=True):
            real = torch.where(score > self.config.score_threshold)[0]  # no NaN either
            clipped = clip_boxes_to_image(box[real], size)
            keep = best_after_nms(
                clipped, score[real], label[real], self.config.nms_threshold, self.config.detections_per_img
            )
            out.append({"boxes": clipped[keep], "scores": score[real][keep], "labels": label[real][keep]})
        return out

    @abstractmethod
    def _losses(
        self,
        outputs: DenseOutputs,
        anchors: Tensor,
        counts: Sequence[int],
        targets: Sequence[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Return the losses of all levels, of which `counts` gives the number of anchors."""

    @abstractmethod
    def scores(self, outputs: DenseOutputs) -> Tensor:
        """Return the score of each class of each anchor, `(B, A, num_classes)` in 0 .. 1."""

    @abstractmethod
    def decode(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        """Return the boxes of offsets `(N, 4)` from anchors `(N, 4)`, xyxy."""
