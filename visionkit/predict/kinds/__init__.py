"""The kinds of predictions, one module each. A new kind is one file and one row."""

from __future__ import annotations

from typing import Any

from visionkit.predict.kinds.captioning import CAPTIONING
from visionkit.predict.kinds.classification import CLASSIFICATION
from visionkit.predict.kinds.detection import DETECTION
from visionkit.predict.kinds.embedding import EMBEDDING
from visionkit.predict.kinds.keypoints import KEYPOINTS
from visionkit.predict.kinds.kind import Kind
from visionkit.predict.kinds.segmentation import SEGMENTATION
from visionkit.tasks.hooks import TaskHooks
from visionkit.tasks.saved_settings import task_name

__all__ = ["KINDS", "Kind", "default_preprocess", "kind_of"]

KINDS = {
    kind.name: kind for kind in (CLASSIFICATION, DETECTION, SEGMENTATION, CAPTIONING, EMBEDDING, KEYPOINTS)
}


def kind_of(task: type) -> Kind:
    """Return the kind of a task, by its class or a class derived from it."""
    by_task = {kind.task: kind for kind in KINDS.values()}
    return by_task[task_name(task)]


def default_preprocess(task: TaskHooks) -> dict[str, Any]:
    """Return how images are resized for a task that was trained on loaders of the user's own.

    Args:
        task: Its `image_size`, or else 224 pixels, is the side.
    """
    size = task.hparams.get("image_size")
    side = int(min(size) if isinstance(size, list | tuple) else size or 224)
    return kind_of(type(task)).preprocess(side)
