"""The head of a one-stage detector: classes and boxes at every position of every level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.errors import unknown_name

__all__ = ["DenseHead", "DenseOutputs"]

_NORMS = ("group", "none")
_PRIOR = 0.01  # probability of every class at the beginning, so that the background does not swamp the loss
_STD = 0.01  # of all new weights


class DenseOutputs(NamedTuple):
    """What the head gives for A anchors of B images, of one level or of all, in 32-bit floats.

    Args:
        logits: `(B, A, num_classes)`.
        offsets: `(B, A, 4)`.
        centerness: `(B, A)` logits; `(B, 0)` of a head without.
    """

    logits: Tensor
    offsets: Tensor
    centerness: Tensor


class DenseHead(nn.Module):
    """Two stacks of convolutions, the same over every level: one to classes, one to boxes.

    One batch norm over levels would mix their statistics, so the norm is a group norm, of 32 groups as in the
    papers or fewer with at least four channels each, or none.

    Args:
        channels: Channels of every level.
        num_classes: Foreground classes; there is no background class.
        anchors: Anchors on a position.
        convs: Convolutions of each stack.
        norm: "group" or "none".
        bias: Whether convolutions before a norm have a bias too.
        centerness: Add the centre-ness of each position, beside its box; offsets are then positive.

    Lin et al., Focal Loss for Dense Object Detection, 2017; Tian et al., FCOS, 2020.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_classes: int,
        anchors: int = 1,
        convs: int = 4,
        norm: Literal["group", "none"] = "none",
        bias: bool = False,
        centerness: bool = False,
    ) -> None:
        super().__init__()
        if norm not in _NORMS:
            raise unknown_name("norm of the head", norm, _NORMS)
        self.num_classes = num_classes
        biased = bias or norm == "none"
        self.class_convs = _stack(channels, convs, norm=norm, bias=biased)
        self.box_convs = _stack(channels, convs, norm=norm, bias=biased)
        self.class_logits = nn.Conv2d(channels, anchors * num_classes, 3, padding=1)
        self.box_offsets = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        self.centerness = nn.Conv2d(channels, anchors, 3, padding=1) if centerness else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(self.class_logits.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[DenseOutputs]:
        """Return what each level gives; anchors in the order of rows, columns and anchors of a position."""
        return [self._level(level) for level in maps]

    def _level(self, maps: Tensor) -> DenseOutputs:
        logits = _by_anchor(self.class_logits(self.class_convs(maps)), self.num_classes)
        boxes = self.box_convs(maps)
        offsets = _by_anchor(self.box_offsets(boxes), 4)
        if self.centerness is None:
            return DenseOutputs(logits, offsets, offsets[:, :0, 0])
        return DenseOutputs(logits, F.relu(offsets), _by_anchor(self.centerness(boxes), 1)[..., 0])


def _stack(channels: int, convs: int, *, norm: str, bias: bool) -> nn.Sequential:
    blocks = []
    for _ in range(convs):
        after = [nn.GroupNorm(_groups(channels), channels)] if norm == "group" else []
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        blocks.append(nn.Sequential(conv, *after, nn.ReLU(inplace=True)))
    return nn.Sequential(*blocks)


def _groups(channels: int) -> int:
    return next(n for n in (32, 16, 8, 4, 2, 1) if n == 1 or (channels % n == 0 and channels >= 4 * n))


def _by_anchor(maps: Tensor, width: int) -> Tensor:
    """`(B, A * width, H, W) -> (B, H * W * A, width)`, in 32-bit floats: bfloat16 moves boxes by pixels."""
    per_anchor: Tensor = maps.float().unflatten(1, (-1, width))  # (B, A, width, H, W)
    return per_anchor.permute(0, 3, 4, 1, 2).flatten(1, 3)
