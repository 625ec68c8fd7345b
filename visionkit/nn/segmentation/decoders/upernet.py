"""UPerNet: pyramid pooling of the coarsest map, a feature pyramid, all maps fused at the finest size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.nn.segmentation.decoders.block import ConvBlock, Norm, check_levels, resize_to
from visionkit.nn.segmentation.decoders.psp import PyramidPooling
from visionkit.nn.segmentation.decoders.top_down import TopDown

__all__ = ["UPerNetDecoder"]


class UPerNetDecoder(nn.Module):
    """The semantic head of unified perceptual parsing (Xiao et al., 2018).

    Args:
        levels: Levels of the feature source, fine to coarse, at least two.
        num_classes: Channels of the logits.
        channels: Width of the pyramid and of the fusion.
        norm: Makes the norm layers.
        dropout: Fraction of channels dropped before the classifier.

    Raises:
        InputError: There is one level only.
    """

    reductions: ClassVar[tuple[int, ...]] = (4, 8, 16, 32)
    output_stride: ClassVar[int | None] = None
    min_levels: ClassVar[int] = 2
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
        check_levels("upernet", levels, min_levels=self.min_levels, coarsest=self.coarsest)
        width = channels or 256
        self.pooling = PyramidPooling(levels[-1].channels, width, norm=norm)
        self.pyramid = TopDown([*(level.channels for level in levels[:-1]), width], width, norm=norm)
        self.fuse = ConvBlock(len(levels) * width, width, norm=norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Return logits `(B, num_classes, h, w)` at the size of the finest map."""
        pyramid = self.pyramid([*maps[:-1], self.pooling(maps[-1])])
        aligned = [resize_to(features, pyramid[0]) for features in pyramid]
        logits: Tensor = self.classifier(self.dropout(self.fuse(torch.cat(aligned, dim=1))))
        return logits
