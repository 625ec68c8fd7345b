"""Non-maximum suppression for the few best boxes: the rest is not compared when enough are kept."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

__all__ = ["best_after_nms"]

_WHOLE = 1000  # boxes up to which torchvision shifts groups apart in place of looking at each, on a CPU


def best_after_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, count: int) -> Tensor:
    """Return what `torchvision.ops.batched_nms` keeps first, `count` of them at most.

    Whether a box is kept depends on those of higher score alone. So the best are looked at first, then more
    of them, until `count` are kept: on a CPU the work grows with the square of those that were looked at.
    Of boxes of one score the first come first, where torchvision's order depends on the processor.

    Args:
        boxes: `(N, 4)` xyxy.
        scores: `(N,)`, without NaN.
        groups: `(N,)`, level or class: only boxes of one group suppress each other.
        iou_threshold: Overlap above which the lower of two boxes is dropped.
        count: How many are needed.

    Returns:
        Indices of at most `count` boxes, highest score first.
    """
    total = len(boxes)
    if boxes.device.type != "cpu" or total <= _WHOLE:
        everything: Tensor = batched_nms(boxes, scores, groups, iou_threshold)
        return everything[:count]
    order = scores.sort(descending=True, stable=True).indices
    looked = min(total, count + count // 4)
    while True:
        best = order[:looked]
        remaining = best[_survivors(boxes[best], scores[best], groups[best], iou_threshold)]
        if len(remaining) >= count or looked == total:
            return remaining[:count]
        # As many as would do if the next ones were kept as often, and a tenth more.
        looked = max(int(1.1 * looked * count / max(1, len(remaining))), looked + looked // 2)
        looked = looked if looked < 0.8 * total else total


def _survivors(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Return which boxes, sorted by score, no better one of their group suppresses."""
    survives = torch.zeros(len(boxes), dtype=torch.bool)
    for group in groups.unique():
        inside = torch.where(groups == group)[0]
        survives[inside[nms(boxes[inside], scores[inside], iou_threshold)]] = True
    return survives
