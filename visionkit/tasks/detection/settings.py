"""The settings of a detector: plain dicts back to configs, and refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from visionkit.config import check_number, check_numbers, limits
from visionkit.errors import InputError, unknown_name
from visionkit.task_config import RCNNConfig
from visionkit.tasks.classification.targets import check_names

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


def check_detector(
    num_classes: int,
    class_names: Sequence[str] | None,
    rcnn: Any,
    views: bool,
    *,
    lr: float,
    resize: Any,
    tta_sizes: Any,
    pyramid_channels: int,
) -> None:
    """Refuse settings of a detector that do not fit together.

    Raises:
        InputError: The text says which.
    """
    check_number("num_classes", num_classes, limits(min=1), whole=True)
    check_number("lr", lr, limits(min=0))
    check_number("pyramid_channels", pyramid_channels, limits(min=1), whole=True)
    if resize is not None:
        check_numbers("resize", resize, limits(min=1), count=2, whole=True)
    check_numbers("tta_sizes", tta_sizes, limits(min=1), whole=True)
    check_names(class_names, num_classes)
    if views and rcnn_from(rcnn).masks:
        raise InputError(
            "Several views of an image are joined by their boxes; leave tta out with a mask head."
        )
