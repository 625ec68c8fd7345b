"""The network of a detector: a feature pyramid over a backbone, and one of the detectors over that."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from visionkit.backbones.norms import make_norm
from visionkit.config import NormPolicy
from visionkit.nn.detection.faster_rcnn import FasterRCNN
from visionkit.nn.detection.fcos import FCOS
from visionkit.nn.detection.retinanet import RetinaNet
from visionkit.nn.fpn import ExtraLevels, PyramidSource
from visionkit.task_config import FCOSConfig, RCNNConfig
from visionkit.tasks.detection.settings import DetectorConfig

__all__ = ["detector_reductions", "loss_names", "make_model"]


def detector_reductions(detector: str) -> tuple[int, ...]:
    """Return the reductions of the maps that a detector's pyramid is built on by default."""
    return (4, 8, 16, 32) if detector == "faster_rcnn" else (8, 16, 32)


def loss_names(config: DetectorConfig, model: nn.Module) -> tuple[str, ...]:
    """Return the names of the losses of a detector.

    Args:
        config: Its settings.
        model: What `make_model` made of them.
    """
    if isinstance(model, FasterRCNN):
        further = [head.loss_name for head in model.heads.object_heads]
        return ("loss_objectness", "loss_proposal", "loss_class", "loss_box", *further)
    return ("loss_class", "loss_box", *(("loss_centerness",) if isinstance(config, FCOSConfig) else ()))


def make_model(
    backbone: Any,
    config: DetectorConfig,
    *,
    num_classes: int,
    channels: int,
    policy: NormPolicy,
    num_keypoints: int = 0,
) -> nn.Module:
    """Return pyramid and heads over a backbone.

    Args:
        backbone: A feature source.
        config: The detector's settings, whose type says which it is.
        num_classes: Foreground classes.
        channels: Of the pyramid's levels.
        policy: Norm of the pyramid and of Faster R-CNN's convolutional heads; none if "frozen".
        num_keypoints: Points of an object that a keypoint head of Faster R-CNN finds; 0: no such head.
    """
    norm = None if policy == "frozen" else partial(make_norm, policy)
    levels = len(backbone.levels)
    if isinstance(config, RCNNConfig):
        source = PyramidSource(backbone, channels=channels, norm=norm, extra="pool")
        return FasterRCNN(
            source,
            num_classes=num_classes,
            config=config,
            norm=norm,
            region_levels=levels,
            num_keypoints=num_keypoints,
        )
    extra: ExtraLevels = "p6p7_of_p5"
    if isinstance(config, FCOSConfig):
        source = PyramidSource(backbone, channels=channels, norm=norm, extra=extra)
        return FCOS(source, num_classes=num_classes, config=config)
    extra = "p6p7" if config.p6_from == "c5" else extra
    source = PyramidSource(backbone, channels=channels, norm=norm, extra=extra)
    return RetinaNet(source, num_classes=num_classes, config=config)
