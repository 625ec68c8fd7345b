"""RetinaNet over the levels of any feature source."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from visionkit.backbones.level import FeatureSource
from visionkit.compat import anchor_box_coder
from visionkit.errors import unknown_name
from visionkit.nn.detection.anchors import LevelAnchors
from visionkit.nn.detection.dense import DenseDetector
from visionkit.nn.detection.dense_head import DenseHead, DenseOutputs
from visionkit.nn.detection.matching import anchor_sides, match_anchors
from visionkit.nn.fpn import source_channels
from visionkit.task_config import RetinaNetConfig

__all__ = ["RetinaNet"]

_CONFIG = RetinaNetConfig()
_LOSSES = ("l1", "smooth_l1", "giou")
_FOREGROUND, _BACKGROUND = 0.5, 0.4


class RetinaNet(DenseDetector):
    """One-stage detector with anchors: nine on a position by default, all of them in the focal loss.

    Args:
        source: Normalised images to maps; all levels with the same channels.
        num_classes: Foreground classes; there is no background class.
        config: See `RetinaNetConfig`.

    Raises:
        InputError: Levels differ in channels, `num_classes` is below 1, or a word of the config is unknown.

    Lin et al., Focal Loss for Dense Object Detection, 2017. Reference: `torchvision.models.detection`.
    """

    config: RetinaNetConfig

    def __init__(self, source: FeatureSource, *, num_classes: int, config: RetinaNetConfig = _CONFIG) -> None:
        channels = source_channels(source, num_classes=num_classes)
        if config.box_loss not in _LOSSES:
            raise unknown_name("box loss", config.box_loss, _LOSSES)
        anchors = LevelAnchors(
            source.levels,
            scales=config.anchor_scales,
            ratios=config.anchor_ratios,
            spacing=config.anchor_spacing,
            round_down=True,
        )
        head = DenseHead(
            channels,
            num_classes=num_classes,
            anchors=anchors.per_position,
            convs=config.convs,
            norm=config.norm,
        )
        super().__init__(source, anchors=anchors, head=head, config=config)
        self.box_coder = anchor_box_coder()

    def _losses(
        self,
        outputs: DenseOutputs,
        anchors: Tensor,
        counts: Sequence[int],
        targets: Sequence[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        sides = anchor_sides(anchors)
        class_losses, box_losses = [], []
        for logits, offsets, target in zip(outputs.logits, outputs.offsets, targets, strict=True):
            boxes = target["boxes"]
            label, match = match_anchors(boxes, sides, foreground=_FOREGROUND, background=_BACKGROUND)
            hits, counted = torch.where(label == 1)[0], label >= 0
            objects = match[hits]
            classes = torch.zeros_like(logits)  # (A, num_classes)
            classes[hits, target["labels"][objects]] = 1
            count = max(1, len(hits))
            focal = sigmoid_focal_loss(logits[counted], classes[counted], reduction="sum")
            class_losses.append(focal / count)
            box_losses.append(self._box_loss(offsets[hits], boxes[objects], anchors[hits]) / count)
        return {"loss_class": torch.stack(class_losses).mean(), "loss_box": torch.stack(box_losses).mean()}

    def _box_loss(self, offsets: Tensor, boxes: Tensor, anchors: Tensor) -> Tensor:
        if self.config.box_loss == "giou":
            loss: Tensor = generalized_box_iou_loss(self.decode(offsets, anchors), boxes, reduction="sum")
            return loss
        encoded = self.box_coder.encode_single(boxes, anchors)
        if self.config.box_loss == "l1":
            return F.l1_loss(offsets, encoded, reduction="sum")
        return F.smooth_l1_loss(offsets, encoded, reduction="sum")

    def scores(self, outputs: DenseOutputs) -> Tensor:
        """Return the score of each class of each anchor."""
        return outputs.logits.sigmoid()

    def decode(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        """Return the boxes of offsets from anchors."""
        boxes: Tensor = self.box_coder.decode_single(offsets, anchors)
        return boxes
