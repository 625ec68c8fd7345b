"""Heads, decoders, losses and preprocessing of the models, on top of the backbones."""

from __future__ import annotations

from visionkit.nn.losses import label_losses, mixed_loss
from visionkit.nn.normalize import Normalize

__all__ = ["Normalize", "label_losses", "mixed_loss"]
