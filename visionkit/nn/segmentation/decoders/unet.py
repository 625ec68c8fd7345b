"""U-Net: upsample from the coarsest map to the finest, concatenating each map on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.nn.segmentation.decoders.block import ConvBlock, Norm, check_levels, resize_to

__all__ = ["UNetDecoder"]


class UNetDecoder(nn.Module):
    """Upsample, concatenate the next finer map, convolve twice, for every level (Ronneberger et al., 2015).

    Args:
        levels: Levels of the feature source, fine to coarse, at least two.
        num_classes: Channels of the logits.
        channels: Width of the coarsest step; it halves at each finer one, down to an eighth.
        norm: Makes the norm layers.
        dropout: Fraction of channels dropped before the classifier.

    Raises:
        InputError: There is one level only.
    """

    reductions: ClassVar[tuple[int, ...]] = (2, 4, 8, 16, 32)
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
        check_levels("unet", levels, min_levels=self.min_levels, coarsest=self.coarsest)
        widest = channels or 256
        inputs = levels[-1].channels
        steps: list[nn.Module] = []
        for step, level in enumerate(reversed(levels[:-1])):
            width = max(1, widest // 2 ** min(step, 3))
            joined = inputs + level.channels
            steps.append(
                nn.Sequential(ConvBlock(joined, width, norm=norm), ConvBlock(width, width, norm=norm))
            )
            inputs = width
        self.steps = nn.ModuleList(steps)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(inputs, num_classes, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Return logits `(B, num_classes, h, w)` at the size of the finest map."""
        features = maps[-1]
        for step, finer in zip(self.steps, reversed(maps[:-1]), strict=True):
            features = step(torch.cat([resize_to(features, finer), finer], dim=1))
        logits: Tensor = self.classifier(self.dropout(features))
        return logits
