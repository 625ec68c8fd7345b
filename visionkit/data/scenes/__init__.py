"""The embedded data set, composed from OpenMoji drawings, and the metrics that only it can have."""

from __future__ import annotations

from visionkit.data.scenes.attention_accuracy import attention_in_boxes
from visionkit.data.scenes.relations import relation_scores

__all__ = ["attention_in_boxes", "relation_scores"]
