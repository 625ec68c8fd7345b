"""The second stage of Faster R-CNN: pooled regions to classes and boxes, further heads, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import generalized_box_iou_loss

from visionkit.errors import unknown_name
from visionkit.nn.detection.object_head import ObjectHead
from visionkit.nn.detection.roi_align import RoIPool
from visionkit.nn.fpn import NormFactory

__all__ = ["BoxHead", "RegionHeads", "RegionLinear", "box_loss"]

_LOSSES = ("giou", "l1", "smooth_l1")
_GIOU_WEIGHT = 10.0  # brings it to the size of the other losses; the weight in public GIoU configurations


def box_loss(kind: str, predicted: Tensor, targets: Tensor, *, coder: Any) -> Tensor:
    """Return the summed loss of box offsets.

    Generalised IoU does not change when both boxes are moved or stretched along an axis together, so it is
    computed on offsets decoded against the unit box; the proposals are not needed.

    Args:
        kind: "smooth_l1" (beta 1/9), "l1" or "giou" (times 10).
        predicted: `(N, 4)` encoded offsets.
        targets: `(N, 4)` encoded offsets.
        coder: The coder that encoded them.

    Rezatofighi et al., Generalized Intersection over Union, 2019.
    """
    if kind == "smooth_l1":
        return F.smooth_l1_loss(predicted, targets, beta=1 / 9, reduction="sum")
    if kind == "l1":
        return F.l1_loss(predicted, targets, reduction="sum")
    if kind != "giou":
        raise unknown_name("box loss", kind, _LOSSES)
    unit = predicted.new_tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(predicted), 4)
    ours, theirs = coder.decode_single(predicted, unit), coder.decode_single(targets, unit)
    loss: Tensor = generalized_box_iou_loss(ours, theirs, reduction="sum")
    return loss * _GIOU_WEIGHT


class RegionLinear(nn.Module):
    """A fully connected layer over regions, whose weight has the shape and memory format of a region.

    Flattening channels-last regions in the order (C, H, W) would copy all of them in both passes; with a
    channels-last weight they are flattened in memory order, without a copy.

    Args:
        channels: Channels of the regions.
        size: Positions along a side of a region.
        width: Outputs.
    """

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        linear = nn.Linear(channels * size * size, width)
        self.weight = nn.Parameter(linear.weight.detach().view(width, channels, size, size))
        self.bias = nn.Parameter(linear.bias.detach())

    def forward(self, regions: Tensor) -> Tensor:
        """Return `(K, width)` of regions `(K, channels, size, size)`."""
        weight: Tensor = self.weight
        if weight.is_contiguous(memory_format=torch.channels_last):
            regions, weight = regions.permute(0, 2, 3, 1), weight.permute(0, 2, 3, 1)  # (K, size, size, C)
        return F.linear(regions.flatten(1), weight.flatten(1), self.bias)


class BoxHead(nn.Module):
    """Regions to class logits and box offsets.

    Args:
        channels: Channels of the pooled regions.
        num_classes: Foreground classes; background is class 0 of the logits.
        kind: "two_fc" is two fully connected layers; "four_conv" is four convolutions and one fully
            connected layer.
        norm: Makes the norm after each convolution of "four_conv"; without it convolutions have a bias.
        size: Positions along a side of a region.
        width: Width of the fully connected layers.
        class_agnostic: One box a region instead of one for each class.

    Ren et al., Faster R-CNN, 2015; Wu & He, Group Normalization, 2018 (the four-convolution head).
    """

    def __init__(
        self,
        channels: int,
        *,
        num_classes: int,
        kind: Literal["two_fc", "four_conv"] = "two_fc",
        norm: NormFactory | None = None,
        size: int = 7,
        width: int = 1024,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__()
        if kind not in ("two_fc", "four_conv"):
            raise unknown_name("box head", kind, ("two_fc", "four_conv"))
        convs: list[nn.Module] = []
        for _ in range(4 if kind == "four_conv" else 0):
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=norm is None)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            after = [] if norm is None else [norm(channels)]
            convs.append(nn.Sequential(conv, *after, nn.ReLU(inplace=True)))
        self.convs = nn.Sequential(*convs)
        self.layers = nn.ModuleList([RegionLinear(channels, size, width)])
        if kind == "two_fc":
            self.layers.append(nn.Linear(width, width))
        self.classify = nn.Linear(width, num_classes + 1)
        self.regress = nn.Linear(width, 4 if class_agnostic else 4 * (num_classes + 1))

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `(K, num_classes + 1)` and offsets `(K, 4 * (num_classes + 1))` (or 4), 32-bit."""
        x = self.convs(regions)
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.classify(x).float(), self.regress(x).float()


class RegionHeads(RoIHeads):
    """torchvision's `RoIHeads` (matching, sampling, suppression) with the pooling, heads and losses given.

    Args:
        pool: Pools the boxes of the box head.
        head: Regions to classes and boxes.
        object_heads: What objects have beside a class and a box, such as masks; none for Faster R-CNN.
        loss: The box loss: "smooth_l1", "l1" or "giou".
        foreground_iou: A proposal of at least this IoU with an object gets its class.
        samples: Proposals an image in the loss.
        positive_fraction: Largest fraction of them that are objects.
        score_threshold: Detections below it are dropped.
        nms_threshold: Overlap above which the lower of two detections of a class is dropped.
        detections_per_img: Maximum number of detections an image.
    """

    def __init__(
        self,
        pool: RoIPool,
        head: BoxHead,
        *,
        object_heads: Sequence[ObjectHead] = (),
        loss: Literal["smooth_l1", "l1", "giou"] = "smooth_l1",
        foreground_iou: float = 0.5,
        samples: int = 512,
        positive_fraction: float = 0.25,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        detections_per_img: int = 100,
    ) -> None:
        if loss not in _LOSSES:
            raise unknown_name("box loss", loss, _LOSSES)
        super().__init__(
            pool,
            head,
            None,
            foreground_iou,
            foreground_iou,
            samples,
            positive_fraction,
            None,
            score_threshold,
            nms_threshold,
            detections_per_img,
        )
        self.loss = loss
        for object_head in object_heads:
            setattr(self, object_head.attribute, object_head)
        self.attributes = tuple(object_head.attribute for object_head in object_heads)

    @property
    def object_heads(self) -> tuple[ObjectHead, ...]:
        """What objects have beside a class and a box."""
        heads: Any = [self.get_submodule(name) for name in self.attributes]
        return tuple(heads)

    def forward(
        self,
        features: Sequence[Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return detections (evaluation) and losses (training); the other of the two is empty.

        Args:
            features: One map a level.
            proposals: For each image `(P, 4)` xyxy.
            image_shapes: `(H, W)` of each image without padding.
            targets: Boxes, labels (background 0) and the fields of the further heads of each image; required
                in training.
        """
        if self.training:
            return [], self._losses(features, proposals, targets)
        logits, offsets = self.box_head(self.box_roi_pool(features, proposals))
        if offsets.shape[1] == 4:
            offsets = offsets.repeat(1, logits.shape[1])
        detections = self.postprocess_detections(logits, offsets, proposals, image_shapes)
        result = [{"boxes": b, "scores": s, "labels": n} for b, s, n in zip(*detections, strict=True)]
        for object_head in self.object_heads:
            _add_rows(object_head, features, result)
        return result, {}

    def _losses(
        self, features: Sequence[Tensor], proposals: list[Tensor], targets: list[dict[str, Tensor]] | None
    ) -> dict[str, Tensor]:
        proposals, matched, labels, encoded = self.select_training_samples(proposals, targets)
        logits, offsets = self.box_head(self.box_roi_pool(features, proposals))
        classes, box_targets = torch.cat(labels), torch.cat(tuple(encoded))  # (K,), (K, 4)
        objects = torch.where(classes > 0)[0]
        by_class = offsets.view(len(offsets), -1, 4)  # (K, num_classes + 1, 4), or (K, 1, 4) class-agnostic
        column = classes[objects] if by_class.shape[1] > 1 else torch.zeros_like(objects)
        class_offsets = by_class[objects, column]  # (objects, 4)
        losses = {
            "loss_class": F.cross_entropy(logits, classes),
            "loss_box": box_loss(self.loss, class_offsets, box_targets[objects], coder=self.box_coder)
            / classes.numel(),
        }
        if not self.attributes or targets is None:
            return losses
        keep = [torch.where(label > 0)[0] for label in labels]
        boxes = [p[k] for p, k in zip(proposals, keep, strict=True)]
        matched = [m[k] for m, k in zip(matched, keep, strict=True)]
        # Without any object a head runs on one proposal: sync norms and DDP need every process to run it.
        regions = boxes if sum(map(len, boxes)) else [proposals[0][:1]]
        for object_head in self.object_heads:
            output = object_head(object_head.pool(features, regions))
            losses[object_head.loss_name] = object_head.loss(
                output, boxes=boxes, targets=targets, matched=matched
            )
        return losses


def _add_rows(head: ObjectHead, features: Sequence[Tensor], result: Sequence[dict[str, Tensor]]) -> None:
    """Add what a head gives to the detections of each image."""
    boxes = [detections["boxes"] for detections in result]
    counts = [len(each) for each in boxes]
    if not sum(counts):
        for detections in result:
            detections |= head.empty(detections["boxes"])
        return
    labels = torch.cat([detections["labels"] for detections in result])
    rows = head.decode(head(head.pool(features, boxes)), boxes=torch.cat(boxes), labels=labels)
    for name, values in rows.items():
        for detections, part in zip(result, values.split(counts), strict=True):
            detections[name] = part
