"""Settings of keypoint regressors and of their data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from visionkit.config import limits

__all__ = ["KEYPOINT_HEADS", "DeepPoseConfig", "HeatmapConfig", "KeypointAugment", "PCKConfig"]


@dataclass(frozen=True)
class KeypointAugment:
    """How the crops of keypoints vary in training; the names are those of `keypoint_train`.

    Args:
        scale: Largest change of what is shown: its sides times 1 - scale .. 1 + scale.
        shift: Largest move of its centre, as a fraction of its sides.
        degrees: Largest turn to either side.
        flip: Probability of a mirror, which swaps left and right points by name.
        photometric: Strength of the changes of colour.
    """

    scale: float = field(default=0.25, metadata=limits(min=0, max=0.9))
    shift: float = field(default=0.05, metadata=limits(min=0, max=1))
    degrees: float = field(default=30.0, metadata=limits(min=0, max=180))
    flip: float = field(default=0.5, metadata=limits(min=0, max=1))
    photometric: float = field(default=0.4, metadata=limits(min=0, max=1))


@dataclass(frozen=True)
class PCKConfig:
    """Which points are right (PCK, the percentage of correct keypoints).

    Args:
        threshold: Distance of a right point, as a fraction of its object's size.
        size: Size of an object: torso | box | auto (the torso where there is one).
    """

    threshold: float = field(default=0.2, metadata=limits(above=0))
    size: Literal["auto", "torso", "box"] = "auto"


@dataclass(frozen=True)
class DeepPoseConfig:
    """Points by regression, in stages (DeepPose).

    Args:
        stages: Stages that refine the points on crops around them; 0: none.
        cells: Side of the grid that the coarsest map is pooled to; 1: one vector of the image.
        width: Width of the fully connected layer over it.
        crop: Side of a crop, as a fraction of the image's longer side.
        channels: Channels of the map that crops are cut from.
        stage_width: Width of the fully connected layer of a stage.
        loss: l1 | l2: of coordinates.
    """

    stages: int = field(default=2, metadata=limits(min=0))
    cells: int = field(default=4, metadata=limits(min=1))
    width: int = field(default=512, metadata=limits(min=1))
    crop: float = field(default=0.35, metadata=limits(above=0, max=1))
    channels: int = field(default=64, metadata=limits(min=1))
    stage_width: int = field(default=128, metadata=limits(min=1))
    loss: Literal["l1", "l2"] = "l1"


@dataclass(frozen=True)
class HeatmapConfig:
    """Points as the mean places of heat maps.

    Args:
        channels: Channels of the transposed convolutions (256 in Xiao et al. 2018).
        reduction: Input pixels per cell of a heat map; the nearest that doubling the coarsest map gives.
        sigma: Deviation of a true point's map, in cells.
        heatmap_weight: Weight of the maps in the loss; 0: the points alone (Sun et al. 2018).
        loss: l1 | l2: of coordinates.
    """

    channels: int = field(default=128, metadata=limits(min=1))
    reduction: int = field(default=4, metadata=limits(min=1))
    sigma: float = field(default=1.0, metadata=limits(above=0))
    heatmap_weight: float = field(default=0.1, metadata=limits(min=0))
    loss: Literal["l1", "l2"] = "l1"


KEYPOINT_HEADS: dict[str, type[DeepPoseConfig | HeatmapConfig]] = {
    "deeppose": DeepPoseConfig,
    "heatmap": HeatmapConfig,
}
"""The settings of each head of a keypoint regressor, which is the setting of the same name."""
