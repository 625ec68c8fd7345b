"""The kinds of predictions, one module each. A new kind is one file and one row."""

from __future__ import annotations

from visionkit.predict.kinds.captioning import CAPTIONING
from visionkit.predict.kinds.classification import CLASSIFICATION
from visionkit.predict.kinds.detection import DETECTION
from visionkit.predict.kinds.kind import Kind
from visionkit.predict.kinds.segmentation import SEGMENTATION
from visionkit.tasks.saved_settings import task_name

__all__ = ["KINDS", "Kind", "kind_of"]

KINDS = {kind.name: kind for kind in (CLASSIFICATION, DETECTION, SEGMENTATION, CAPTIONING)}


def kind_of(task: type) -> Kind:
    """Return the kind of a task, by its class or a class derived from it."""
    by_task = {kind.task: kind for kind in KINDS.values()}
    return by_task[task_name(task)]
