"""Faster R-CNN, Mask R-CNN and Keypoint R-CNN over the levels of any feature source."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from visionkit.backbones.level import FeatureSource
from visionkit.errors import InputError
from visionkit.nn.detection.anchors import LevelAnchors
from visionkit.nn.detection.keypoint_head import KeypointHead
from visionkit.nn.detection.mask_head import MaskHead
from visionkit.nn.detection.object_head import ObjectHead
from visionkit.nn.detection.roi_align import RoIPool
from visionkit.nn.detection.roi_heads import BoxHead, RegionHeads
from visionkit.nn.detection.rpn import ProposalNetwork
from visionkit.nn.fpn import NormFactory, source_channels
from visionkit.task_config import RCNNConfig

__all__ = ["FasterRCNN"]

_CONFIG = RCNNConfig()


class FasterRCNN(nn.Module):
    """Two-stage detector over a source whose levels have equal channels (a pyramid).

    Proposals come from all levels; boxes are pooled from the first `region_levels` (a coarser level that only
    subsamples another, as "pool" does, is used for proposals only).

    Args:
        source: Normalised images to maps; all levels with the same channels.
        num_classes: Foreground classes; the background class is added.
        config: See `RCNNConfig`.
        norm: Makes the norm of the convolutional heads; without it they have biases.
        region_levels: How many of the finest levels boxes are pooled from.
        num_keypoints: Points of an object that a keypoint head finds; 0: no such head.

    Raises:
        InputError: Levels differ in channels, or `num_classes` is below 1.

    Ren et al., Faster R-CNN, 2015; He et al., Mask R-CNN, 2017.
    """

    def __init__(
        self,
        source: FeatureSource,
        *,
        num_classes: int,
        config: RCNNConfig = _CONFIG,
        norm: NormFactory | None = None,
        region_levels: int = 4,
        num_keypoints: int = 0,
    ) -> None:
        super().__init__()
        levels = list(source.levels)
        channels = source_channels(source, num_classes=num_classes)
        self.source = source
        self.num_classes = num_classes
        self.config = config
        self.divisor = max(level.reduction for level in levels)
        anchors = LevelAnchors(
            levels,
            scales=config.anchor_scales,
            ratios=config.anchor_ratios,
            spacing=config.anchor_spacing,
        )
        self.rpn = ProposalNetwork(
            anchors,
            channels,
            convs=config.rpn_convs,
            proposals=(config.proposals_train, config.proposals_eval),
            samples=config.proposal_samples,
        )
        reductions = [level.reduction for level in levels[:region_levels]]
        head = BoxHead(
            channels,
            num_classes=num_classes,
            kind=config.head,
            norm=norm,
            width=config.head_width,
            class_agnostic=config.class_agnostic,
        )
        further: list[ObjectHead] = []
        pool = RoIPool(reductions, output_size=14)
        if config.masks:
            further.append(MaskHead(channels, num_classes=num_classes, pool=pool, norm=norm))
        if num_keypoints:
            sizes = {"convs": config.keypoint_convs, "width": config.keypoint_width}
            further.append(KeypointHead(channels, num_keypoints=num_keypoints, pool=pool, norm=norm, **sizes))
        self.heads = RegionHeads(
            RoIPool(reductions, output_size=7),
            head,
            object_heads=further,
            loss=config.box_loss,
            samples=config.box_samples,
            score_threshold=config.score_threshold,
            nms_threshold=config.nms_threshold,
            detections_per_img=config.detections_per_img,
        )

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
            targets: For each image `boxes` `(N, 4)`, `labels` `(N,)` from 0, with a mask head `masks`
                `(N, H, W)`, with a keypoint head `keypoints` `(N, K, 3)` x, y, flag, all in the frame of
                `images`; required in training.

        Returns:
            For each image `boxes` `(D, 4)`, `scores` `(D,)`, `labels` `(D,)` from 0, best first, with a mask
            head `masks` `(D, 1, 28, 28)` probabilities within the box, with a keypoint head `keypoints`
            `(D, K, 2)` and `keypoint_scores` `(D, K)`; and the losses `loss_objectness`, `loss_proposal`,
            `loss_class`, `loss_box`, `loss_mask` and `loss_keypoint`.
        """
        shifted = None  # targets with labels from 1: the background is class 0
        if self.training:
            if targets is None:
                raise InputError("Expected targets in training, but got none.")
            shifted = [{**target, "labels": target["labels"] + 1} for target in targets]
        shapes = [(int(h), int(w)) for h, w in sizes]
        maps = self.source(images)
        named = {str(index): m for index, m in enumerate(maps)}
        proposals, rpn_losses = self.rpn(ImageList(images, shapes), named, shifted)
        detections, losses = self.heads(maps, proposals, shapes, shifted)
        for detection in detections:
            detection["labels"] = detection["labels"] - 1
        if rpn_losses:
            losses["loss_objectness"] = rpn_losses["loss_objectness"]
            losses["loss_proposal"] = rpn_losses["loss_rpn_box_reg"]
        return detections, losses
