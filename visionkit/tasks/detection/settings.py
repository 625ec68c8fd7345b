"""The checks of a detector's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionkit.config import check_number, check_numbers, limits
from visionkit.errors import InputError
from visionkit.task_config import RCNNConfig
from visionkit.tasks.classification.targets import check_names

__all__ = ["check_detector"]


def check_detector(
    num_classes: int,
    class_names: Sequence[str] | None,
    rcnn: RCNNConfig,
    *,
    lr: float,
    resize: Any,
    tta_flip: bool,
    tta_sizes: Any,
    pyramid_channels: int,
) -> None:
    """Refuse settings of a detector that do not fit together.

    Raises:
        InputError: The text names them.
    """
    check_number("num_classes", num_classes, limits(min=1), whole=True)
    check_number("lr", lr, limits(min=0))
    check_number("pyramid_channels", pyramid_channels, limits(min=1), whole=True)
    if resize is not None:
        check_numbers("resize", resize, limits(min=1), count=2, whole=True)
    sizes = check_numbers("tta_sizes", tta_sizes, limits(min=1), whole=True)
    check_names(class_names, num_classes)
    if rcnn.masks and (tta_flip or sizes):
        raise InputError(
            "Multiple views of an image are joined by their boxes; leave tta_flip and tta_sizes out with a "
            "mask head."
        )
