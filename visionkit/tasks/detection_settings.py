"""The settings of a detector: plain dicts back to configs, and refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from visionkit.errors import InputError, expected, unknown_name
from visionkit.nn.faster_rcnn import RCNNConfig
from visionkit.tasks.labels import check_names

__all__ = ["check_detector", "rcnn_from"]


def rcnn_from(value: RCNNConfig | Mapping[str, Any]) -> RCNNConfig:
    """Return a config from itself or from its plain dict, as checkpoints hold it.

    Raises:
        InputError: A key is not known.
    """
    if isinstance(value, RCNNConfig):
        return value
    known = [field.name for field in dataclasses.fields(RCNNConfig)]
    for name in value:
        if name not in known:
            raise unknown_name("rcnn setting", name, known)
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    return RCNNConfig(**plain)


def check_detector(num_classes: int, class_names: Sequence[str] | None, rcnn: Any, views: bool) -> None:
    """Refuse settings of a detector that do not fit together.

    Raises:
        InputError: The text says which.
    """
    if num_classes < 1:
        raise InputError(expected("num_classes", "at least 1 (foreground classes)", num_classes))
    check_names(class_names, num_classes)
    if views and rcnn_from(rcnn).masks:
        raise InputError(
            "Several views of a picture are joined by their boxes; leave tta out with a mask head."
        )
