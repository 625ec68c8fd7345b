"""The region proposal network (RPN) of Faster R-CNN, and its two losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)
from torchvision.ops import clip_boxes_to_image

from visionkit.compat import top_anchors
from visionkit.nn.detection.anchors import LevelAnchors
from visionkit.nn.detection.matching import anchor_sides, match_anchors
from visionkit.nn.detection.suppress import best_after_nms

__all__ = ["ProposalNetwork"]

_FOREGROUND, _BACKGROUND = 0.7, 0.3


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's `RegionProposalNetwork` with less work a step and the same results, bit for bit.

    Boxes are decoded after the top proposals are chosen, and targets encoded after anchors are sampled: both
    are about a thousandth of all anchors. Proposals of one score come in the order of their anchors.

    Args:
        anchors: Generates the anchors.
        channels: Channels of every level.
        convs: Convolutions of the head.
        proposals: Proposals an image before and after suppression, in (training, evaluation).
        samples: Anchors an image in the loss.
    """

    def __init__(
        self,
        anchors: LevelAnchors,
        channels: int,
        *,
        convs: int,
        proposals: tuple[int, int],
        samples: int,
    ) -> None:
        count = {"training": proposals[0], "testing": proposals[1]}
        super().__init__(
            anchors,
            _ProposalHead(channels, anchors.per_position, conv_depth=convs),
            fg_iou_thresh=_FOREGROUND,
            bg_iou_thresh=_BACKGROUND,
            batch_size_per_image=samples,
            positive_fraction=0.5,
            pre_nms_top_n=count,
            post_nms_top_n=dict(count),
            nms_thresh=0.7,
        )
        self.samples = samples

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return `(P, 4)` xyxy for each image; in training also `loss_objectness`, `loss_rpn_box_reg`."""
        maps = list(features.values())
        logits, offsets = self.head(maps)
        anchors = self.anchor_generator(images, maps)[0]  # (A, 4), the same for all images
        counts = [int(level[0].numel()) for level in logits]
        scores, moves = concat_box_prediction_layers(logits, offsets)
        scores = scores.view(len(images.image_sizes), -1)  # (B, A)
        moves = moves.view(len(scores), -1, 4)
        boxes = self._propose(scores.detach(), moves.detach(), anchors, counts, images.image_sizes)
        if not self.training or targets is None:
            return boxes, {}
        return boxes, self._losses(scores, moves, anchors, [target["boxes"] for target in targets])

    def _propose(
        self,
        scores: Tensor,
        moves: Tensor,
        anchors: Tensor,
        counts: list[int],
        sizes: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        best = top_anchors(self, scores, counts)  # (B, K)
        number = [min(self.pre_nms_top_n(), count) for count in counts]
        level = torch.repeat_interleave(torch.tensor(number, device=scores.device))
        chosen = torch.gather(moves, 1, best[..., None].expand(-1, -1, 4)).view(-1, 4)
        decoded = self.box_coder.decode_single(chosen, anchors[best].view(-1, 4)).view(*best.shape, 4)
        probabilities = torch.gather(scores, 1, best).sigmoid()
        out = []
        for boxes, probability, (height, width) in zip(decoded, probabilities, sizes, strict=True):
            boxes = clip_boxes_to_image(boxes, (height, width))
            sides = boxes[:, 2:] - boxes[:, :2]
            # NaN scores fail the comparison too.
            keep = torch.where((sides >= self.min_size).all(dim=1) & (probability >= self.score_thresh))[0]
            boxes, probability = boxes[keep], probability[keep]
            best = best_after_nms(boxes, probability, level[keep], self.nms_thresh, self.post_nms_top_n())
            out.append(boxes[best])
        return out

    def _losses(
        self, scores: Tensor, moves: Tensor, anchors: Tensor, objects: list[Tensor]
    ) -> dict[str, Tensor]:
        sides = anchor_sides(anchors)
        sampled, sampled_labels, positive, encoded = [], [], [], []
        for index, boxes in enumerate(objects):
            label, match = match_anchors(boxes, sides, foreground=_FOREGROUND, background=_BACKGROUND)
            hits, misses = self._sample(label)
            both = torch.cat((hits, misses)) + index * len(anchors)
            sampled.append(both)
            sampled_labels.append((torch.arange(len(both), device=both.device) < len(hits)).float())
            positive.append(both[: len(hits)])
            if len(boxes):
                encoded.append(self.box_coder.encode_single(boxes[match[hits]], anchors[hits]))
        # indices into (B * A) anchors: all sampled, and those with an object
        sampled_index, positive_index = torch.cat(sampled), torch.cat(positive)
        box_targets = torch.cat(encoded) if encoded else moves.new_zeros(0, 4)
        box_offsets = moves.reshape(-1, 4)[positive_index]  # (B, A, 4) -> (B * A, 4) -> (positive, 4)
        box = F.smooth_l1_loss(box_offsets, box_targets, beta=1 / 9, reduction="sum") / len(sampled_index)
        # torchvision sums the positives of all images first; the order decides the last bits.
        labels = torch.cat(sampled_labels)
        order = torch.argsort(labels, descending=True, stable=True)
        logits = scores.flatten()[sampled_index[order]]
        objectness = F.binary_cross_entropy_with_logits(logits, labels[order])
        return {"loss_objectness": objectness, "loss_rpn_box_reg": box}

    def _sample(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """Draw anchors with an object and without, with the draws of torchvision's sampler; sorted."""
        hits, misses = torch.where(label == 1)[0], torch.where(label == 0)[0]
        num_positive = min(len(hits), self.samples // 2)
        num_negative = min(len(misses), self.samples - num_positive)
        hits = hits[torch.randperm(len(hits), device=label.device)[:num_positive]]
        misses = misses[torch.randperm(len(misses), device=label.device)[:num_negative]]
        return hits.sort().values, misses.sort().values


class _ProposalHead(RPNHead):
    """torchvision's head with float32 outputs: boxes decoded in bfloat16 are off by pixels."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, offsets = super().forward(x)
        return [a.float() for a in logits], [a.float() for a in offsets]
