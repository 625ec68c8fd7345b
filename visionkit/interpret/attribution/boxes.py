"""How far a heat map lies in the boxes of what it explains."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from visionkit.data.scenes.attention_accuracy import box_cover
from visionkit.errors import InputError, expected

__all__ = ["BoxScore", "pointing_game"]


class BoxScore(NamedTuple):
    """How far a heat map lies in boxes.

    Args:
        inside: Fraction of the map's positive values that is in the boxes (the energy-based pointing game of
            Wang et al., arXiv 1910.01279); NaN of a map without any.
        chance: The same of an even map: the boxes' fraction of the image.
        hit: Whether the highest value is in a box (the pointing game of Zhang et al., arXiv 1608.00507).
    """

    inside: float
    chance: float
    hit: bool


def pointing_game(heat: Tensor, boxes: Tensor) -> BoxScore:
    """Measure how far a heat map lies in boxes, which may overlap.

    Args:
        heat: `(H, W)`.
        boxes: `(N, 4)` xyxy in pixels of the map, at least one.

    Raises:
        InputError: The shapes are others.
    """
    if heat.ndim != 2 or boxes.ndim != 2 or boxes.shape[1:] != (4,) or not len(boxes):
        raise InputError(
            expected("heat and boxes", "(H, W) and (N, 4)", f"{tuple(heat.shape)} and {tuple(boxes.shape)}")
        )
    height, width = heat.shape
    cover = box_cover(boxes.cpu(), (height, width), size=(height, width)).amax(0)  # (N, H, W) -> (H, W)
    positive = heat.detach().cpu().double().clamp_min(0)
    total = float(positive.sum())
    inside = float((positive * cover).sum()) / total if total else math.nan
    highest = cover.flatten()[positive.flatten().argmax()]
    return BoxScore(inside, float(cover.mean()), bool(total) and bool(highest >= 0.5))
