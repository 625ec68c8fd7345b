"""The top-down path that semantic FPN and UPerNet share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from visionkit.nn.segmentation.decoders.block import ConvBlock, Norm, resize_to

__all__ = ["TopDown"]


class TopDown(nn.Module):
    """Project every map to one width, add each coarser map to the next finer one, convolve the sums.

    Args:
        inputs: Channels of the maps, fine to coarse.
        channels: Channels of every output map.
        norm: Makes the norm layers.
    """

    def __init__(self, inputs: Sequence[int], channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(ConvBlock(width, channels, kernel=1, norm=norm) for width in inputs)
        self.smooth = nn.ModuleList(ConvBlock(channels, channels, norm=norm) for _ in inputs)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps `(B, channels, H_l, W_l)` for maps `(B, C_l, H_l, W_l)`, fine to coarse."""
        sums = [lateral(features) for lateral, features in zip(self.laterals, maps, strict=True)]
        for index in range(len(sums) - 1, 0, -1):
            sums[index - 1] = sums[index - 1] + resize_to(sums[index], sums[index - 1])
        return [smooth(features) for smooth, features in zip(self.smooth, sums, strict=True)]
