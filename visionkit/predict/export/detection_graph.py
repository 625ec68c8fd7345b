"""A detector as a graph: suppression inside, a fixed number of results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from visionkit.nn.detection.anchors import LevelAnchors
from visionkit.nn.detection.object_head import ObjectHead
from visionkit.predict.export.pixels import Pixels
from visionkit.task_config import RCNNConfig
from visionkit.tasks import Detector

__all__ = ["DetectionGraph", "RCNNGraph", "Size", "best_of_classes", "clip", "suppress"]

Size: TypeAlias = Sequence[Any]  # height and width, symbols while exporting
_MIN_SIDE = 1e-2  # of a detection, as in torchvision's heads


@torch.library.custom_op("visionkit::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, threshold: float, limit: int) -> Tensor:
    """Return which boxes non-maximum suppression keeps, `(B, N)` bool; in ONNX it is `NonMaxSuppression`.

    Its result has one entry a box, so that no shape of the graph depends on what an image shows.

    Args:
        boxes: `(B, N, 4)` xyxy.
        scores: `(B, N)`; those of 0 and below are left out.
        threshold: Overlap above which the lower of two boxes is dropped.
        limit: Maximum number of boxes kept in each row of the batch, the best.
    """
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for row in range(len(boxes)):
        (real,) = torch.where(scores[row] > 0)
        keep[row, real[nms(boxes[row, real], scores[row, real], threshold)[:limit]]] = True
    return keep


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, threshold: float, limit: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


class DetectionGraph(nn.Module, ABC):
    """What the graphs of all detectors share: how images get in, and how detections get out.

    `(B, 3, H, W)` to `boxes` `(B, N, 4)` in the frame of the input, `scores` `(B, N)`, `labels` `(B, N)` and
    `count` `(B,)`: the first `count` of an image are its detections, best first, zeros follow. With a mask
    head also `masks` `(B, N, 28, 28)`, probabilities within the boxes, with a keypoint head `heatmaps`
    `(B, N, K, 56, 56)`, logits within the boxes.

    Args:
        task: The task.
        anchors: Generates the task's anchors.
        uint8: Whether images are uint8, and not float in [0, 1].
    """

    def __init__(self, task: Detector, anchors: LevelAnchors, *, uint8: bool) -> None:
        super().__init__()
        self.pixels = Pixels(task.normalize, uint8=uint8)
        self.source = task.model.get_submodule("source")
        self.resize = task.resize
        self.divisor, self.canvas = task.divisor, getattr(task.backbone, "fixed_size", None)
        self.reductions, self.spacing = anchors.reductions, anchors.spacing
        for index, cell in enumerate(anchors.cell_anchors):
            self.register_buffer(f"cell_{index}", cell.float(), persistent=False)
        further = (_OUTPUTS[name] for name in task.object_fields)
        self.outputs = ("boxes", "scores", "labels", "count", *further)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return `boxes`, `scores`, `labels`, `count` and what further heads give of `(B, 3, H, W)`."""
        resized = self._resize(self.pixels(images))
        size, padded = resized.shape[-2:], self._pad(resized)
        boxes, scores, labels, *further = self._detect(self.source(padded), size, padded.shape[-2:])
        if self.resize is not None:  # back to the frame of the input
            x, y = (
                boxes[..., 0::2] * (images.shape[-1] / size[1]),
                boxes[..., 1::2] * (images.shape[-2] / size[0]),
            )
            boxes = torch.stack((x, y), dim=-1).flatten(-2)
        return boxes, scores, labels, (scores > 0).sum(1), *further

    @abstractmethod
    def _detect(self, maps: Sequence[Tensor], size: Size, padded: Size) -> tuple[Tensor, ...]:
        """Return boxes `(B, N, 4)`, scores and labels `(B, N)`, best first, zeros behind them; perhaps more.

        Args:
            maps: Of the pyramid.
            size: Of the images.
            padded: Of the images with their padding.
        """

    def _resize(self, images: Tensor) -> Tensor:
        """Resize images as `resize_image` does, by a scale that is a symbol where the size is free."""
        if self.resize is None:
            return images
        height, width = images.shape[-2:]
        short, long = torch.sym_min(height, width), torch.sym_max(height, width)
        scale = torch.sym_min(self.resize[0] / short, self.resize[1] / long)
        size = torch.sym_int(height * scale), torch.sym_int(width * scale)
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)

    def _pad(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if self.canvas is not None:
            bottom, right = self.canvas
        else:  # products, so that a side is known to be divisible whatever its size
            bottom = (height + self.divisor - 1) // self.divisor * self.divisor
            right = (width + self.divisor - 1) // self.divisor * self.divisor
        return F.pad(images, (0, right - width, 0, bottom - height))

    def _anchors(self, index: int, grid: Size, padded: Size) -> Tensor:
        """Return the anchors of a level, `(h * w * A, 4)`, as `LevelAnchors` makes them."""
        cell: Tensor = getattr(self, f"cell_{index}")
        (height, width), down, right = grid, self.reductions[index], self.reductions[index]
        if self.spacing == "grid":
            down, right = padded[0] // height, padded[1] // width
        rows = torch.arange(height, device=cell.device)[:, None] * down
        columns = torch.arange(width, device=cell.device) * right
        y, x = rows.expand(height, width), columns.expand(height, width)
        shifts = torch.stack((x, y, x, y), dim=-1).flatten(0, 1).float()  # (h * w, 4)
        return (shifts[:, None] + cell).flatten(0, 1)


class RCNNGraph(DetectionGraph):
    """A Faster or Mask R-CNN with its proposals and suppression.

    Args:
        task: The task.
        uint8: Whether images are uint8, and not float in [0, 1].

    The steps are those of `FasterRCNN`; Ren et al., Faster R-CNN, 2015; He et al., Mask R-CNN, 2017.
    """

    def __init__(self, task: Detector, *, uint8: bool) -> None:
        model: Any = task.model
        super().__init__(task, model.rpn.anchor_generator, uint8=uint8)
        self.head, self.heads = model.rpn.head, model.heads
        self.rpn_coder, self.rpn_min_side = model.rpn.box_coder, float(model.rpn.min_size)
        self.rpn_threshold = float(model.rpn.nms_thresh)
        self.rcnn: RCNNConfig = model.config
        self.proposals = self.rcnn.proposals_eval

    def _detect(self, maps: Sequence[Tensor], size: Size, padded: Size) -> tuple[Tensor, ...]:
        proposals, valid = self._propose(maps, size, padded)
        boxes, scores, labels = self._classify(maps, proposals, valid, size)
        further = (self._rows(head, maps, boxes, scores > 0, labels) for head in self.heads.object_heads)
        return boxes, scores, labels, *further

    def _propose(self, maps: Sequence[Tensor], size: Size, padded: Size) -> tuple[Tensor, Tensor]:
        """Return proposals `(B, P, 4)`, best first, and which of them there are, `(B, P)`."""
        logits, offsets = self.head(list(maps))
        all_boxes, all_scores = [], []
        for index, (logit, offset) in enumerate(zip(logits, offsets, strict=True)):
            anchors = self._anchors(index, logit.shape[-2:], padded)
            boxes, scores = self._best_anchors(anchors, logit, offset, size)
            keep = suppress(boxes, scores, self.rpn_threshold, self.proposals)
            all_boxes.append(boxes)
            all_scores.append(scores * keep)
        best = torch.cat(all_scores, 1).topk(self.proposals, dim=1)  # of (B, levels * P)
        return _take(torch.cat(all_boxes, 1), best.indices), best.values > 0

    def _best_anchors(
        self, anchors: Tensor, logit: Tensor, offset: Tensor, size: Size
    ) -> tuple[Tensor, Tensor]:
        """Return the best boxes of a level, `(B, P, 4)`, and their probabilities; 0 where there is none."""
        flat = logit.permute(0, 2, 3, 1).flatten(1)  # (B, A, h, w) -> (B, h * w * A)
        moves = offset.unflatten(1, (logit.shape[1], 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        # With P empty ones behind them there are always enough, and no shape depends on the map.
        best = F.pad(flat, (0, self.proposals), value=float("-inf")).topk(self.proposals, dim=1)
        chosen = _take(F.pad(moves, (0, 0, 0, self.proposals)), best.indices).flatten(0, 1)
        anchors = F.pad(anchors, (0, 0, 0, self.proposals))[best.indices.flatten()]
        decoded = self.rpn_coder.decode_single(chosen, anchors)  # (B * P, 4)
        boxes = clip(decoded, size).unflatten(0, (-1, self.proposals))
        real = (boxes[..., 2:] - boxes[..., :2] >= self.rpn_min_side).all(-1)
        return boxes, best.values.sigmoid() * real

    def _classify(
        self, maps: Sequence[Tensor], proposals: Tensor, valid: Tensor, size: Size
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes `(B, N, 4)`, scores and labels `(B, N)`, best first, zeros behind them."""
        # Step 1: the classes of what there is of proposals, R of B * P.
        rois, index = _regions(proposals, valid)
        logits, offsets = (x[1:] for x in self.heads.box_head(self.heads.box_roi_pool.pool(maps, rois)))
        if offsets.shape[1] == 4:
            offsets = offsets.repeat(1, logits.shape[1])
        decoded = self.heads.box_coder.decode_single(offsets, rois[1:, 1:])
        boxes = clip(decoded.reshape(-1, logits.shape[1], 4), size)[:, 1:]  # (R, K, 4), no background
        scores = logits.softmax(-1)[:, 1:]
        large = (boxes[..., 2:] - boxes[..., :2] >= _MIN_SIDE).all(-1)
        scores = scores * (large & (scores > self.rcnn.score_threshold))
        # Step 2: back to P proposals an image, by class.
        batch, count = valid.shape
        shape = (batch * count, scores.shape[1])
        by_class = boxes.new_zeros((*shape, 4)).index_put((index,), boxes).unflatten(0, (batch, count))
        by_class = by_class.transpose(1, 2)  # (B, K, P, 4)
        ranked = scores.new_zeros(shape).index_put((index,), scores).unflatten(0, (batch, count))
        ranked = ranked.transpose(1, 2)  # (B, K, P)
        # Step 3: suppression within each class, and the best of all.
        return best_of_classes(
            by_class, ranked, threshold=self.rcnn.nms_threshold, limit=self.rcnn.detections_per_img
        )

    def _rows(
        self, head: ObjectHead, maps: Sequence[Tensor], boxes: Tensor, valid: Tensor, labels: Tensor
    ) -> Tensor:
        """Return what a head gives of detections, `(B, N, ...)`; zeros where there is none."""
        rois, index = _regions(boxes, valid)
        logits = head(head.pool.pool(maps, rois))[1:]  # (R, channels, M, M)
        chosen = _CHOOSE[head.field](logits, labels.flatten()[index] + 1)
        batch, count = valid.shape
        rows = logits.new_zeros((batch * count, *chosen.shape[1:])).index_put((index,), chosen)
        unpacked: Tensor = rows.unflatten(0, (batch, count))
        return unpacked


def _class_masks(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the masks of the regions' classes, `(R, M, M)`, of `(R, K + 1, M, M)`."""
    index = classes[:, None, None, None].expand(-1, 1, *logits.shape[2:])
    return logits.gather(1, index)[:, 0].sigmoid()


# Of each further head: the name of its output, and what of its logits is put out.
_OUTPUTS = {"masks": "masks", "keypoints": "heatmaps"}
_CHOOSE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "masks": _class_masks,
    "keypoints": lambda logits, classes: logits,
}


def best_of_classes(
    boxes: Tensor, scores: Tensor, *, threshold: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes `(B, N, 4)`, scores and labels `(B, N)` after suppression, best first, zeros behind them.

    Args:
        boxes: `(B, K, P, 4)`, of each class.
        scores: `(B, K, P)`, 0 where there is none.
        threshold: Overlap above which the lower of two boxes of a class is dropped.
        limit: N, the maximum number of detections.
    """
    classes, count = scores.shape[1:]
    keep = suppress(boxes.flatten(0, 1), scores.flatten(0, 1), threshold, limit)
    ranked = (scores.flatten(0, 1) * keep).unflatten(0, (-1, classes)).flatten(1)  # (B, K * P)
    best = F.pad(ranked, (0, max(0, limit - classes * count))).topk(limit, dim=1)
    real = best.values > 0
    labels = (best.indices // count) * real
    return _take(boxes.flatten(1, 2), best.indices * real) * real[..., None], best.values, labels


def _regions(boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the valid ones of `(B, N, 4)` with their images, `(1 + R, 5)`, and their positions in B * N.

    The first row is none of them: norms cannot be traced for what may be an empty batch.
    """
    (index,) = torch.where(valid.flatten())
    image = index.div(valid.shape[1], rounding_mode="floor").to(boxes.dtype)
    rois = torch.cat((image[:, None], boxes.flatten(0, 1)[index]), dim=1)
    return F.pad(rois, (0, 0, 1, 0)), index


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Return the rows of `(B, N, 4)` at `(B, P)`: `(B, P, 4)`."""
    return values.gather(1, index[..., None].expand(-1, -1, 4))


def clip(boxes: Tensor, size: Size) -> Tensor:
    """Return boxes `(..., 4)` within an image of `(H, W)`."""
    height, width = size
    x = boxes[..., 0::2].clamp(min=0, max=width)
    y = boxes[..., 1::2].clamp(min=0, max=height)
    return torch.stack((x, y), dim=-1).flatten(-2)
