"""Boundary pixels of class maps and how many of them match within a tolerance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["boundary_counts"]


def boundary_counts(
    preds: Tensor,
    target: Tensor,
    *,
    num_classes: int,
    ignore_index: int | None = None,
    tolerance: float = 0.0075,
) -> Tensor:
    """Count the boundary pixels of every class, and those that have a partner nearby.

    A boundary pixel of a class has one of its four neighbours in another class; the image's edge and the
    edge of an ignored region are no boundary. A partner is a boundary pixel of the same class in the other
    map, at most `tolerance` times the image's diagonal away along either axis (at least one pixel).

    Args:
        preds: `(H, W)` class map.
        target: `(H, W)` class map.
        num_classes: Number of classes C.
        ignore_index: Pixels with this target count in neither map.
        tolerance: Largest distance, as a fraction of the diagonal (Csurka et al., "What is a good evaluation
            measure for semantic segmentation?", 2013, use 0.0075).

    Returns:
        `(C, 4)` int64: predicted boundary pixels, those with a partner, true boundary pixels, those with one.
    """
    height, width = target.shape
    reach = max(1, round(tolerance * (height**2 + width**2) ** 0.5))
    ignored = torch.zeros_like(target, dtype=torch.bool) if ignore_index is None else target == ignore_index
    pred_edges, target_edges = _edges(preds, ignored), _edges(target, ignored)
    counts = torch.zeros(num_classes, 4, dtype=torch.int64, device=target.device)
    for index in range(num_classes):  # one class at a time: memory does not grow with the classes
        pred_edge = pred_edges & (preds == index)  # (H, W)
        target_edge = target_edges & (target == index)
        row = (
            pred_edge.sum(),
            (pred_edge & _dilate(target_edge, reach)).sum(),
            target_edge.sum(),
            (target_edge & _dilate(pred_edge, reach)).sum(),
        )
        counts[index] = torch.stack(row)
    return counts


def _edges(classes: Tensor, ignored: Tensor) -> Tensor:
    """Return where a class map (H, W) changes between neighbours that both count."""
    edges = torch.zeros_like(ignored)
    counted = ~ignored
    across = (classes[:, 1:] != classes[:, :-1]) & counted[:, 1:] & counted[:, :-1]
    down = (classes[1:] != classes[:-1]) & counted[1:] & counted[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def _dilate(mask: Tensor, reach: int) -> Tensor:
    """Return which pixels of (H, W) have a set pixel within `reach` along both axes."""
    dilated = mask[None].float()
    dilated = F.max_pool2d(dilated, (1, 2 * reach + 1), stride=1, padding=(0, reach))
    dilated = F.max_pool2d(dilated, (2 * reach + 1, 1), stride=1, padding=(reach, 0))
    return dilated[0] > 0
