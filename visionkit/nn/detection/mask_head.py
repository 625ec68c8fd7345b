"""The mask head of Mask R-CNN: pooled regions to one mask a class, and its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.nn.detection.object_head import ObjectHead, conv_blocks, draw_convs
from visionkit.nn.detection.roi_align import RoIPool, roi_align_kernel
from visionkit.nn.fpn import NormFactory

__all__ = ["MaskHead", "mask_loss"]


class MaskHead(ObjectHead):
    """Four convolutions, one upsampling, one mask for each class.

    Args:
        channels: Channels of the pooled regions.
        num_classes: Foreground classes; the background class 0 is added.
        pool: Pools the regions.
        norm: Makes the norm after each convolution; without it convolutions have a bias.
        width: Channels of the convolutions.

    He et al., Mask R-CNN, 2017. Reference: torchvision's `maskrcnn_resnet50_fpn`.
    """

    attribute, field, loss_name = "mask_head", "masks", "loss_mask"

    def __init__(
        self,
        channels: int,
        *,
        num_classes: int,
        pool: RoIPool,
        norm: NormFactory | None = None,
        width: int = 256,
    ) -> None:
        super().__init__(pool)
        self.convs = conv_blocks(channels, count=4, width=width, norm=norm)
        self.upsample = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.predict = nn.Conv2d(width, num_classes + 1, 1)
        draw_convs(self)

    def forward(self, regions: Tensor) -> Tensor:
        """Return logits `(R, num_classes + 1, 2 * S, 2 * S)` in 32-bit floats for regions `(R, C, S, S)`."""
        logits: Tensor = self.predict(F.relu(self.upsample(self.convs(regions))))
        return logits.float()

    def loss(
        self,
        logits: Tensor,
        *,
        boxes: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]],
        matched: Sequence[Tensor],
    ) -> Tensor:
        """Return `mask_loss` of the regions, with the masks and labels of the targets."""
        return mask_loss(
            logits,
            boxes=boxes,
            masks=[target["masks"] for target in targets],
            labels=[target["labels"] for target in targets],
            matched=matched,
        )

    def decode(self, logits: Tensor, *, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return `masks` `(D, 1, M, M)`, probabilities of each detection's class within its box."""
        index = torch.arange(len(labels), device=labels.device)
        of_class = logits[index, labels][:, None]  # (D, num_classes + 1, M, M) -> (D, 1, M, M)
        return {"masks": of_class.sigmoid()}

    def empty(self, like: Tensor) -> dict[str, Tensor]:
        """Return `masks` `(0, 1, M, M)`."""
        side = 2 * self.pool.output_size
        return {"masks": like.new_zeros((0, 1, side, side))}


def mask_loss(
    logits: Tensor,
    *,
    boxes: Sequence[Tensor],
    masks: Sequence[Tensor],
    labels: Sequence[Tensor],
    matched: Sequence[Tensor],
) -> Tensor:
    """Return the mean binary cross-entropy of each region's mask of its class against its object's mask.

    Args:
        logits: `(K, num_classes + 1, M, M)` over all images.
        boxes: For each image the regions `(K_i, 4)` xyxy.
        masks: For each image `(N_i, H, W)` 0/1, in the coordinates of the boxes.
        labels: For each image the classes of its objects `(N_i,)`, background 0.
        matched: For each image the object of each region, `(K_i,)`.
    """
    if not sum(len(b) for b in boxes):
        return logits.sum() * 0  # keeps every parameter in the graph, as DDP needs
    side = logits.shape[-1]
    targets, classes = [], []
    for box, mask, label, index in zip(boxes, masks, labels, matched, strict=True):
        if len(box):
            rois = torch.cat((index[:, None].to(box), box), dim=1)
            targets.append(roi_align_kernel(mask[:, None].to(box), rois, side, 1.0)[:, 0])
            classes.append(label[index])
    target_classes = torch.cat(classes)
    class_logits = logits[torch.arange(len(target_classes), device=logits.device), target_classes]
    return F.binary_cross_entropy_with_logits(class_logits, torch.cat(targets))
