"""The keypoint head of Keypoint R-CNN: pooled regions to one heatmap a point, and its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypointrcnn_loss

from visionkit.nn.detection.object_head import ObjectHead, conv_blocks, draw_convs
from visionkit.nn.detection.roi_align import RoIPool
from visionkit.nn.fpn import NormFactory

__all__ = ["KeypointHead"]


class KeypointHead(ObjectHead):
    """Convolutions and two upsamplings to one heatmap for each point, whatever the object's class.

    Each heatmap has one right position: the loss is a cross-entropy over all of them, at the labelled points
    that lie within the region.

    Args:
        channels: Channels of the pooled regions.
        num_keypoints: K points of an object.
        pool: Pools the regions.
        norm: Makes the norm after each convolution; without it convolutions have a bias.
        convs: How many convolutions.
        width: Channels of the convolutions.

    He et al., Mask R-CNN, 2017, section 5. Reference: torchvision's `keypointrcnn_resnet50_fpn`.
    """

    attribute, field, loss_name = "keypoint_head", "keypoints", "loss_keypoint"

    def __init__(
        self,
        channels: int,
        *,
        num_keypoints: int,
        pool: RoIPool,
        norm: NormFactory | None = None,
        convs: int = 8,
        width: int = 512,
    ) -> None:
        super().__init__(pool)
        self.convs = conv_blocks(channels, count=convs, width=width, norm=norm)
        inputs = width if convs else channels
        self.heatmaps = nn.ConvTranspose2d(inputs, num_keypoints, 4, stride=2, padding=1)
        draw_convs(self)

    def forward(self, regions: Tensor) -> Tensor:
        """Return logits `(R, K, 4 * S, 4 * S)` in 32-bit floats for regions `(R, C, S, S)`."""
        coarse = self.heatmaps(self.convs(regions)).float()  # (R, K, 2 * S, 2 * S)
        return F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)

    def loss(
        self,
        logits: Tensor,
        *,
        boxes: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]],
        matched: Sequence[Tensor],
    ) -> Tensor:
        """Return the mean cross-entropy of the heatmaps at the labelled points `(N_i, K, 3)`."""
        points = [target["keypoints"].to(logits) for target in targets]
        loss: Tensor = keypointrcnn_loss(logits.contiguous(), list(boxes), points, list(matched))
        return loss

    def decode(self, logits: Tensor, *, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return `keypoints` `(D, K, 2)` x, y at the peaks of the heatmaps, and their logits.

        The heatmaps are interpolated to the sizes of the boxes first.

        Returns:
            `keypoints` and `keypoint_scores` `(D, K)`.
        """
        points, scores = heatmaps_to_keypoints(logits, boxes)  # (D, K, 3), of which the last is always 1
        return {"keypoints": points[..., :2], "keypoint_scores": scores}

    def empty(self, like: Tensor) -> dict[str, Tensor]:
        """Return `keypoints` `(0, K, 2)` and `keypoint_scores` `(0, K)`."""
        count = self.heatmaps.out_channels
        return {"keypoints": like.new_zeros((0, count, 2)), "keypoint_scores": like.new_zeros((0, count))}
