"""FCOS over the levels of any feature source."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from visionkit.backbones.level import FeatureSource
from visionkit.compat import point_box_coder
from visionkit.nn.detection.anchors import LevelAnchors
from visionkit.nn.detection.dense import DenseDetector
from visionkit.nn.detection.dense_head import DenseHead, DenseOutputs
from visionkit.nn.detection.matching import match_points
from visionkit.nn.fpn import source_channels
from visionkit.task_config import FCOSConfig

__all__ = ["FCOS"]

_CONFIG = FCOSConfig()


class FCOS(DenseDetector):
    """One-stage detector without anchors: each position gives one box around itself, and its centre-ness.

    Args:
        source: Normalised images to maps; all levels with the same channels.
        num_classes: Foreground classes; there is no background class.
        config: See `FCOSConfig`.

    Raises:
        InputError: Levels differ in channels, `num_classes` is below 1, or a word of the config is unknown.

    Tian et al., FCOS: A simple and strong anchor-free object detector, 2020. Reference:
    `torchvision.models.detection.FCOS`.
    """

    config: FCOSConfig

    def __init__(self, source: FeatureSource, *, num_classes: int, config: FCOSConfig = _CONFIG) -> None:
        channels = source_channels(source, num_classes=num_classes)
        # A square around each position, as large as the reduction: offsets are in these.
        anchors = LevelAnchors(source.levels, scales=(1.0,), ratios=(1.0,), spacing=config.anchor_spacing)
        head = DenseHead(
            channels,
            num_classes=num_classes,
            convs=config.convs,
            norm=config.norm,
            bias=True,
            centerness=True,
        )
        super().__init__(source, anchors=anchors, head=head, config=config)
        self.box_coder = point_box_coder()

    def _losses(
        self,
        outputs: DenseOutputs,
        anchors: Tensor,
        counts: Sequence[int],
        targets: Sequence[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        # Step 1: the object of each position of each image, (B, A), and those positions, P in all.
        radius = self.config.center_radius
        match = torch.stack([match_points(t["boxes"], anchors, counts, radius=radius) for t in targets])
        image, position = torch.where(match >= 0)
        matched = [(match[row][match[row] >= 0], target) for row, target in enumerate(targets)]
        labels = torch.cat([target["labels"][objects] for objects, target in matched])  # (P,)
        boxes = torch.cat([target["boxes"][objects] for objects, target in matched])  # (P, 4)
        count = max(1, len(image))
        # Step 2: classes at all positions.
        classes = torch.zeros_like(outputs.logits)
        classes[image, position, labels] = 1
        loss_class = sigmoid_focal_loss(outputs.logits, classes, reduction="sum")
        # Step 3: boxes and centre-ness at those of objects.
        points = anchors[position]
        loss_box = generalized_box_iou_loss(
            self.decode(outputs.offsets[image, position], points), boxes, reduction="sum"
        )
        left, top, right, bottom = self.box_coder.encode(points, boxes).unbind(1)
        across = torch.minimum(left, right) / torch.maximum(left, right)
        down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
        loss_centerness = F.binary_cross_entropy_with_logits(
            outputs.centerness[image, position], (across * down).sqrt(), reduction="sum"
        )
        losses = {"loss_class": loss_class, "loss_box": loss_box, "loss_centerness": loss_centerness}
        return {name: loss / count for name, loss in losses.items()}

    def scores(self, outputs: DenseOutputs) -> Tensor:
        """Return the score of each class of each anchor."""
        return (outputs.logits.sigmoid() * outputs.centerness.sigmoid()[..., None]).sqrt()

    def decode(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        """Return the boxes of offsets from anchors."""
        boxes: Tensor = self.box_coder.decode(offsets, anchors)
        return boxes
