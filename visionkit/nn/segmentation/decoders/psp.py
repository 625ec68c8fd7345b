"""PSPNet: the coarsest map concatenated with averages of itself over 1, 2, 3 and 6 bins a side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.nn.segmentation.decoders.block import ConvBlock, Norm, PooledBlock, check_levels

__all__ = ["PSPDecoder", "PyramidPooling"]


class PyramidPooling(nn.Module):
    """Concatenate a map with average-pooled copies of itself, then convolve.

    Args:
        inputs: Input channels.
        outputs: Output channels; each pooled copy has a quarter of the input channels.
        norm: Makes the norm layers.
        bins: Sides of the pooled copies.
    """

    def __init__(self, inputs: int, outputs: int, *, norm: Norm, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        quarter = max(1, inputs // len(bins))
        self.views = nn.ModuleList(PooledBlock(inputs, quarter, bins=side, norm=norm) for side in bins)
        self.join = ConvBlock(inputs + quarter * len(bins), outputs, norm=norm)

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, outputs, H, W)` for `(B, inputs, H, W)`."""
        views = [view(features) for view in self.views]
        joined: Tensor = self.join(torch.cat([features, *views], dim=1))
        return joined


class PSPDecoder(nn.Module):
    """Pyramid pooling over the coarsest map and a classifier (Zhao et al., 2017).

    Args:
        levels: Levels of the feature source, fine to coarse; only the last is used.
        num_classes: Channels of the logits.
        channels: Width of the joined map; a quarter of the map's channels if not given.
        norm: Makes the norm layers.
        dropout: Fraction of channels dropped before the classifier.
    """

    reductions: ClassVar[tuple[int, ...]] = (16, 32)
    output_stride: ClassVar[int | None] = 8
    min_levels: ClassVar[int] = 1
    coarsest: ClassVar[int] = 0

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        num_classes: int,
        channels: int | None = None,
        norm: Norm = nn.BatchNorm2d,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_levels("psp", levels, min_levels=self.min_levels, coarsest=self.coarsest)
        inputs = levels[-1].channels
        width = channels or max(16, inputs // 4)
        self.pooling = PyramidPooling(inputs, width, norm=norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Return logits `(B, num_classes, h, w)` at the size of the coarsest map."""
        logits: Tensor = self.classifier(self.dropout(self.pooling(maps[-1])))
        return logits
