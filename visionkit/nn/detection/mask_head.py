"""The mask head of Mask R-CNN: pooled regions to one mask a class, and its loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.nn.detection.roi_align import roi_align_kernel
from visionkit.nn.fpn import NormFactory

__all__ = ["MaskHead", "mask_loss"]


class MaskHead(nn.Module):
    """Four convolutions, one upsampling, one mask for each class.

    Args:
        channels: Channels of the pooled regions.
        num_classes: Foreground classes; the background class 0 is added.
        norm: Makes the norm after each convolution; without it convolutions have a bias.
        width: Channels of the convolutions.

    He et al., Mask R-CNN, 2017. Reference: torchvision's `maskrcnn_resnet50_fpn`.
    """

    def __init__(
        self, channels: int, *, num_classes: int, norm: NormFactory | None = None, width: int = 256
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs in (channels, width, width, width):
            conv = nn.Conv2d(inputs, width, 3, padding=1, bias=norm is None)
            blocks.append(
                nn.Sequential(conv, *([] if norm is None else [norm(width)]), nn.ReLU(inplace=True))
            )
        self.convs = nn.Sequential(*blocks)
        self.upsample = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.predict = nn.Conv2d(width, num_classes + 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, regions: Tensor) -> Tensor:
        """Return logits `(K, num_classes + 1, 2 * S, 2 * S)` in 32-bit floats for regions `(K, C, S, S)`."""
        logits: Tensor = self.predict(F.relu(self.upsample(self.convs(regions))))
        return logits.float()


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
