"""Share what was trained: a published folder with its model card, and backbone weights in timm's format."""

from __future__ import annotations

from visionkit.predict.share.publish import Published, publish
from visionkit.predict.share.timm_weights import TimmWeights, timm_weights

__all__ = ["Published", "TimmWeights", "publish", "timm_weights"]
