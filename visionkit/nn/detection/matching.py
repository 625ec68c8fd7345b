"""Which object an anchor or a point of a map learns, if any."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["anchor_sides", "match_anchors", "match_points"]

_RANGE = (4.0, 8.0)  # of the distances that a level answers for, in its reductions


def anchor_sides(anchors: Tensor) -> Tensor:
    """Return `(A, 4)` xyxy as rows x1, y1, x2, y2 and area, `(5, A)`, which `match_anchors` reads faster."""
    x1, y1, x2, y2 = anchors.t().contiguous()
    return torch.stack((x1, y1, x2, y2, (x2 - x1) * (y2 - y1)))


def match_anchors(
    boxes: Tensor, anchors: Tensor, *, foreground: float, background: float
) -> tuple[Tensor, Tensor]:
    """Return for each anchor 1 (an object), 0 (none) or -1 (neither), and the index of its object.

    Every object gets the anchors of its highest overlap, however low that is.

    Args:
        boxes: `(N, 4)` objects, xyxy.
        anchors: `(5, A)`, see `anchor_sides`.
        foreground: Overlap (IoU) from which on an anchor has an object.
        background: Overlap below which it has none.

    Ren et al., Faster R-CNN, 2015. Reference: the `Matcher` of `torchvision.models.detection`.
    """
    if not len(boxes):
        none = torch.zeros(anchors.shape[1], dtype=torch.int8, device=anchors.device)
        return none, none.long()
    left, top, right, bottom = boxes[:, :, None].unbind(1)  # (N, 1) each
    x1, y1, x2, y2, area = anchors
    wide = (torch.minimum(right, x2) - torch.maximum(left, x1)).clamp_(min=0)
    high = (torch.minimum(bottom, y2) - torch.maximum(top, y1)).clamp_(min=0)
    inside = wide.mul_(high)
    union = (right - left) * (bottom - top) + area - inside
    overlap = inside.div_(union)  # (N, A)
    best, match = overlap.max(dim=0)
    between = (best >= background) & (best < foreground)
    label = (best >= foreground).to(torch.int8) - between.to(torch.int8)
    nearest = torch.nonzero(overlap == overlap.max(dim=1, keepdim=True).values)[:, 1]
    label[nearest] = 1
    return label, match


def match_points(boxes: Tensor, anchors: Tensor, counts: Sequence[int], *, radius: float) -> Tensor:
    """Return the index of each point's object, -1 where it has none, `(A,)` int64.

    A point learns the smallest object that it lies in, if it is near the centre of it, and if the farthest
    side is as far as its level answers for: 4 to 8 reductions; below on the finest level, above on the
    coarsest.

    Args:
        boxes: `(N, 4)` objects, xyxy.
        anchors: `(A, 4)` squares around the points, as large as the reduction of their level.
        counts: Points of each level, fine to coarse.
        radius: Largest distance from the centre along an axis, in reductions.

    Tian et al., FCOS, 2020. Reference: `torchvision.models.detection.FCOS`.
    """
    if not len(boxes):
        return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    size = anchors[:, 2] - anchors[:, 0]  # (A,)
    points = (anchors[:, :2] + anchors[:, 2:]) / 2  # (A, 2)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # (N, 2)
    near = (points[:, None] - centres).abs().amax(dim=2) < radius * size[:, None]  # (A, N)
    sides = torch.cat((points[:, None] - boxes[:, :2], boxes[:, 2:] - points[:, None]), dim=2)  # (A, N, 4)
    low, high = size * _RANGE[0], size * _RANGE[1]
    low[: counts[0]] = 0
    high[len(high) - counts[-1] :] = float("inf")
    farthest = sides.amax(dim=2)
    fits = near & (sides.amin(dim=2) > 0) & (farthest > low[:, None]) & (farthest < high[:, None])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])  # (N,)
    smallest, match = torch.where(fits, area, float("inf")).min(dim=1)
    return torch.where(smallest < float("inf"), match, -1)
