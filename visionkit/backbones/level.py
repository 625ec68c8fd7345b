"""`Level` (channels, reduction) of a feature map; `FeatureSource`, the protocol of networks with maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["FeatureSource", "Level"]


@dataclass(frozen=True)
class Level:
    """One feature map of a source.

    Args:
        channels: Channels of the map.
        reduction: Input pixels per map pixel along a side (4 means a quarter of the height and width).
    """

    channels: int
    reduction: int

    def __post_init__(self) -> None:
        if self.channels < 1 or self.reduction < 1:
            raise ValueError(
                f"Expected channels and reduction to be at least 1, but got {self.channels} and "
                f"{self.reduction}."
            )


@runtime_checkable
class FeatureSource(Protocol):
    """Anything that turns images into feature maps: a backbone, a pyramid, or a user's own network.

    `levels` runs fine to coarse, and `forward` gives one map for each level, in the same order:
    `(B, 3, H, W) -> (B, level.channels, ceil(H / level.reduction), ceil(W / level.reduction))`.
    """

    levels: Sequence[Level]

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one map per level for normalised images `(B, 3, H, W)`."""
        ...
