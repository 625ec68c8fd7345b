"""One fine map of all levels of a feature source."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.nn.fpn import NormFactory

__all__ = ["FineMap"]


class FineMap(nn.Module):
    """The finest level of a feature pyramid, with the coarser levels added to it, and no other level.

    Args:
        levels: The levels of the input maps, fine to coarse.
        channels: Channels of the map.
        norm: Makes the norm after the last convolution.

    Lin et al., Feature Pyramid Networks, 2017.
    """

    def __init__(self, levels: Sequence[Level], channels: int, norm: NormFactory) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(level.channels, channels, 1) for level in levels)
        self.smooth = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels), nn.ReLU(inplace=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return `(B, channels, H, W)` at the size of the first of maps `(B, C_l, H_l, W_l)`."""
        top: Tensor = self.lateral[-1](maps[-1])
        for index in range(len(maps) - 2, -1, -1):
            side = self.lateral[index](maps[index])
            top = side + F.interpolate(top, size=side.shape[-2:], mode="nearest")
        out: Tensor = self.smooth(top)
        return out
