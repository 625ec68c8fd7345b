"""Semantic FPN: every map of a pyramid upsampled to the finest one's size in steps of two, and summed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.nn.segmentation.decoders.block import ConvBlock, Norm, check_levels, resize_to
from visionkit.nn.segmentation.decoders.top_down import TopDown

__all__ = ["SemanticFPNDecoder"]


class _Branch(nn.Module):
    """Upsampling of one map to the finest size: convolve, then resize, once for each finer level."""

    def __init__(self, inputs: int, outputs: int, depth: int, *, norm: Norm) -> None:
        super().__init__()
        self.depth = depth
        self.blocks = nn.ModuleList(
            ConvBlock(inputs if step == 0 else outputs, outputs, norm=norm) for step in range(max(1, depth))
        )

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        features = pyramid[self.depth]
        for step, block in enumerate(self.blocks):
            features = resize_to(block(features), pyramid[max(0, self.depth - 1 - step)])
        return features


class SemanticFPNDecoder(nn.Module):
    """The semantic branch of panoptic feature pyramid networks (Kirillov et al., 2019).

    Args:
        levels: Levels of the feature source, fine to coarse, at least two.
        num_classes: Channels of the logits.
        channels: Width of the pyramid; the branches have half of it.
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
        check_levels("semantic_fpn", levels, min_levels=self.min_levels, coarsest=self.coarsest)
        width = channels or 256
        half = max(1, width // 2)
        self.pyramid = TopDown([level.channels for level in levels], width, norm=norm)
        self.branches = nn.ModuleList(_Branch(width, half, depth, norm=norm) for depth in range(len(levels)))
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(half, num_classes, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Return logits `(B, num_classes, h, w)` at the size of the finest map."""
        pyramid = self.pyramid(maps)
        total = sum((branch(pyramid) for branch in self.branches[1:]), start=self.branches[0](pyramid))
        logits: Tensor = self.classifier(self.dropout(total))
        return logits
