"""Losses of points, of which those that are not labelled teach nothing."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.errors import unknown_name

__all__ = ["PointLoss", "heatmap_loss", "point_loss"]

PointLoss = Literal["l1", "l2"]
_ELEMENTS = {"l1": F.l1_loss, "l2": F.mse_loss}


def point_loss(preds: Tensor, target: Tensor, known: Tensor, *, kind: PointLoss = "l1") -> Tensor:
    """Return the mean error of the coordinates of the points that are known, or 0 where none is.

    Args:
        preds: `(B, K, 2)`.
        target: `(B, K, 2)`, in the same unit.
        known: `(B, K)` bool.
        kind: "l1": distances along each axis (Sun et al., Integral Human Pose Regression, 2018); "l2": their
            squares (Toshev and Szegedy, DeepPose, 2014, eq. 4).

    Raises:
        InputError: There is no such loss.
    """
    if kind not in _ELEMENTS:
        raise unknown_name("loss", str(kind), _ELEMENTS)
    # What is not known may be anything, NaN too: it is replaced before a difference is taken.
    given = target.to(preds.dtype).where(known[..., None], preds.detach())
    return _ELEMENTS[kind](preds, given, reduction="sum") / (2 * known.sum()).clamp(min=1)


def heatmap_loss(logits: Tensor, target: Tensor, known: Tensor, *, sigma: float) -> Tensor:
    """Return the mean divergence of heat maps from normal distributions around the known points, or 0.

    Args:
        logits: `(B, K, H, W)`; the map of a point is the softmax over its cells.
        target: `(B, K, 2)` x, y in cells: the first cell reaches from 0 to 1.
        known: `(B, K)` bool.
        sigma: Deviation of the distributions, in cells.

    Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018, regularise so.
    """
    centers = target.to(logits.dtype).where(known[..., None], logits.new_zeros(()))
    across, down = (
        torch.arange(logits.shape[axis], device=logits.device, dtype=logits.dtype) + 0.5 for axis in (-1, -2)
    )
    exponents = [
        -0.5 * ((cells - centers[..., axis, None]) / sigma) ** 2 for axis, cells in enumerate((across, down))
    ]  # (B, K, W), (B, K, H)
    goal = (exponents[1][..., :, None] + exponents[0][..., None, :]).flatten(2).log_softmax(-1)
    apart = F.kl_div(logits.flatten(2).log_softmax(-1), goal, reduction="none", log_target=True).sum(-1)
    return apart.where(known, apart.new_zeros(())).sum() / known.sum().clamp(min=1)
