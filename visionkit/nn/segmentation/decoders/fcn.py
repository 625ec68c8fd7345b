"""FCN: a convolution and a classifier over the coarsest map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.nn.segmentation.decoders.block import ConvBlock, Norm, check_levels

__all__ = ["FCNDecoder"]


class FCNDecoder(nn.Module):
    """One 3 x 3 convolution and a classifier over the coarsest map (Long et al., 2015).

    The head of torchvision's `fcn_resnet50`; also the auxiliary head of the other decoders.

    Args:
        levels: Levels of the feature source, fine to coarse; only the last is used.
        num_classes: Channels of the logits.
        channels: Width; a quarter of the map's channels if not given.
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
        check_levels("fcn", levels, min_levels=self.min_levels, coarsest=self.coarsest)
        inputs = levels[-1].channels
        width = channels or max(16, inputs // 4)
        self.block = ConvBlock(inputs, width, norm=norm)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Return logits `(B, num_classes, h, w)` at the size of the coarsest map."""
        logits: Tensor = self.classifier(self.dropout(self.block(maps[-1])))
        return logits
