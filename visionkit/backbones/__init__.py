"""One registry of networks: maps (`Backbone`) or vectors (`Encoder`) from timm, torchvision, packages, and your own."""

from __future__ import annotations

from visionkit.backbones.backbone import Backbone
from visionkit.backbones.create import create_backbone, create_encoder
from visionkit.backbones.encoder import Encoder
from visionkit.backbones.level import FeatureSource, Level
from visionkit.backbones.norms import convert_norms, make_norm
from visionkit.backbones.registry import list_backbones, register_backbone
from visionkit.backbones.weights import WeightsInfo, read_state_dict

__all__ = [
    "Backbone",
    "Encoder",
    "FeatureSource",
    "Level",
    "WeightsInfo",
    "convert_norms",
    "create_backbone",
    "create_encoder",
    "list_backbones",
    "make_norm",
    "read_state_dict",
    "register_backbone",
]
