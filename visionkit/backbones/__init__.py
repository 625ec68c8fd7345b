"""Backbones of timm, torchvision, packages and users: feature maps (`Backbone`) or vectors (`Encoder`)."""

from __future__ import annotations

from visionkit.backbones.backbone import Backbone
from visionkit.backbones.contract import ContractReport, check_backbone
from visionkit.backbones.create import create_backbone, create_encoder
from visionkit.backbones.describe import Description, describe_backbone
from visionkit.backbones.encoder import Encoder
from visionkit.backbones.fuse_bn import fuse_norms
from visionkit.backbones.level import FeatureSource, Level
from visionkit.backbones.norms import convert_norms, make_norm
from visionkit.backbones.registry import list_backbones, register_backbone
from visionkit.backbones.weights import WeightsInfo, read_state_dict

__all__ = [
    "Backbone",
    "ContractReport",
    "Description",
    "Encoder",
    "FeatureSource",
    "Level",
    "WeightsInfo",
    "check_backbone",
    "convert_norms",
    "create_backbone",
    "create_encoder",
    "describe_backbone",
    "fuse_norms",
    "list_backbones",
    "make_norm",
    "read_state_dict",
    "register_backbone",
]
