"""Anchor boxes whose sizes and spacing follow the reductions of the levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from visionkit.backbones.level import Level
from visionkit.errors import InputError

__all__ = ["LevelAnchors"]

_CACHED = 32  # image shapes; multi-scale training has about a dozen


class LevelAnchors(AnchorGenerator):
    """Anchors at every position of every level, in float32 and cached by shape and device.

    torchvision makes anchors in the dtype of the maps; bfloat16 would move them by up to a pixel at 256 and
    two at 512, so here they are always float32.

    Args:
        levels: The levels, fine to coarse.
        scales: Side of the anchors of a level, in positions of its map: 8 is 32 pixels at reduction 4.
        ratios: Height over width.
        spacing: Distance of anchors: "reduction" is exactly the reduction; "grid" is the side of the padded
            image divided by that of the map, rounded down, as in torchvision (for its pretrained weights).
        round_down: Sides of the anchors in pixels are cut to integers, as those of torchvision's RetinaNet.

    Ren et al., Faster R-CNN, 2015; Lin et al., Feature Pyramid Networks, 2017.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        scales: Sequence[float] = (8.0,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        spacing: Literal["reduction", "grid"] = "reduction",
        round_down: bool = False,
    ) -> None:
        if not scales or not ratios or min(*scales, *ratios) <= 0:
            raise InputError(
                f"Expected anchor scales and ratios above 0, but got {tuple(scales)} and {tuple(ratios)}."
            )
        cut = math.floor if round_down else float
        sizes = tuple(tuple(cut(scale * level.reduction) for scale in scales) for level in levels)
        super().__init__(sizes, (tuple(ratios),) * len(sizes))
        self.reductions = tuple(level.reduction for level in levels)
        self.spacing = spacing
        self._cache: dict[object, Tensor] = {}

    @property
    def per_position(self) -> int:
        """Anchors on one position."""
        return int(self.num_anchors_per_location()[0])

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return `(A, 4)` xyxy anchors for each image of the batch, the same tensor for all."""
        grids = [(int(m.shape[-2]), int(m.shape[-1])) for m in feature_maps]
        device, padded = feature_maps[0].device, tuple(image_list.tensors.shape[-2:])
        key = (str(device), padded, tuple(grids))
        if key not in self._cache:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            # No inference tensor, even when created under inference mode: training reuses the cache.
            with torch.inference_mode(False):
                self._cache[key] = self._make(grids, padded, device)
        return [self._cache[key]] * len(image_list.image_sizes)

    def _make(self, grids: list[tuple[int, int]], padded: tuple[int, ...], device: torch.device) -> Tensor:
        strides = [(r, r) for r in self.reductions]
        if self.spacing == "grid":
            strides = [(padded[0] // h, padded[1] // w) for h, w in grids]
        self.set_cell_anchors(torch.float32, device)
        steps = [[torch.tensor(s, device=device) for s in pair] for pair in strides]
        return torch.cat(self.grid_anchors([list(g) for g in grids], steps))
