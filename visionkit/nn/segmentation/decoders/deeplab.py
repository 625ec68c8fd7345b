"""DeepLabV3 and V3+: convolutions of several dilations and image pooling over the coarsest map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.nn.segmentation.decoders.block import ConvBlock, Norm, PooledBlock, check_levels, resize_to

__all__ = ["DeepLabV3Decoder", "DeepLabV3PlusDecoder"]


class _ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1 x 1, three dilated 3 x 3 and a pooled branch, joined.

    The dilations are 12, 24 and 36 at reduction 8, and half of that at reduction 16.
    """

    def __init__(self, level: Level, channels: int, *, norm: Norm, dropout: float) -> None:
        super().__init__()
        rates = [max(1, rate * 8 // max(8, level.reduction)) for rate in (12, 24, 36)]
        self.point = ConvBlock(level.channels, channels, kernel=1, norm=norm)
        self.dilated = nn.ModuleList(
            ConvBlock(level.channels, channels, dilation=rate, norm=norm) for rate in rates
        )
        self.pooled = PooledBlock(level.channels, channels, bins=1, norm=norm)
        self.project = ConvBlock(5 * channels, channels, kernel=1, norm=norm)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        branches = [self.point(features), *(block(features) for block in self.dilated), self.pooled(features)]
        joined: Tensor = self.dropout(self.project(torch.cat(branches, dim=1)))
        return joined


class DeepLabV3Decoder(nn.Module):
    """ASPP over the coarsest map, a 3 x 3 convolution, a classifier (Chen et al., 2017).

    The head of torchvision's `deeplabv3_resnet50`.

    Args:
        levels: Levels of the feature source, fine to coarse; the last has reduction 16 or less.
        num_classes: Channels of the logits.
        channels: Width of each branch.
        norm: Makes the norm layers.
        dropout: Fraction of activations dropped after the branches are joined.

    Raises:
        InputError: The coarsest level is coarser than 16.
    """

    reductions: ClassVar[tuple[int, ...]] = (16, 32)
    output_stride: ClassVar[int | None] = 8
    min_levels: ClassVar[int] = 1
    coarsest: ClassVar[int] = 16

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        num_classes: int,
        channels: int | None = None,
        norm: Norm = nn.BatchNorm2d,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_levels("deeplabv3", levels, min_levels=self.min_levels, coarsest=self.coarsest)
        width = channels or 256
        self.aspp = _ASPP(levels[-1], width, norm=norm, dropout=dropout)
        self.block = ConvBlock(width, width, norm=norm)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Return logits `(B, num_classes, h, w)` at the size of the coarsest map."""
        logits: Tensor = self.classifier(self.block(self.aspp(maps[-1])))
        return logits


class DeepLabV3PlusDecoder(nn.Module):
    """ASPP over the coarsest map, sharpened by the finest one (Chen et al., 2018).

    Args:
        levels: Levels of the feature source, fine to coarse: at least two, the last of reduction 16 or less.
        num_classes: Channels of the logits.
        channels: Width of each branch and of the fusion.
        norm: Makes the norm layers.
        dropout: Fraction of activations dropped after the branches are joined.

    Raises:
        InputError: There is one level only, or the coarsest is coarser than 16.
    """

    reductions: ClassVar[tuple[int, ...]] = (4, 16, 32)
    output_stride: ClassVar[int | None] = 16
    min_levels: ClassVar[int] = 2
    coarsest: ClassVar[int] = 16

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
        check_levels("deeplabv3plus", levels, min_levels=self.min_levels, coarsest=self.coarsest)
        width = channels or 256
        self.aspp = _ASPP(levels[-1], width, norm=norm, dropout=dropout)
        self.fine = ConvBlock(levels[0].channels, 48, kernel=1, norm=norm)
        self.fuse = nn.Sequential(
            ConvBlock(width + 48, width, norm=norm),
            ConvBlock(width, width, norm=norm),
        )
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Return logits `(B, num_classes, h, w)` at the size of the finest map."""
        fine = self.fine(maps[0])
        coarse = resize_to(self.aspp(maps[-1]), fine)
        logits: Tensor = self.classifier(self.fuse(torch.cat([coarse, fine], dim=1)))
        return logits
