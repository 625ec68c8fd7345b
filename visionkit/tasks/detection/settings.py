"""The checks of a detector's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from visionkit.config import check_number, check_numbers, limits
from visionkit.data.formats.keypoints.skeleton import Skeleton
from visionkit.errors import InputError, unknown_name
from visionkit.task_config import DETECTOR_SETTINGS, FCOSConfig, RCNNConfig, RetinaNetConfig
from visionkit.tasks.classification.targets import check_names
from visionkit.tasks.saved_settings import config_from

__all__ = ["DetectorConfig", "check_detector", "detector_config", "object_fields"]

DetectorConfig: TypeAlias = RCNNConfig | RetinaNetConfig | FCOSConfig

_KINDS: dict[str, type[DetectorConfig]] = {
    "rcnn": RCNNConfig,
    "retinanet": RetinaNetConfig,
    "fcos": FCOSConfig,
}


def detector_config(
    detector: str, given: Mapping[str, DetectorConfig | Mapping[str, Any] | None]
) -> tuple[str, DetectorConfig]:
    """Return the name of the setting that configures a detector, and its value.

    Args:
        detector: Name of the detector.
        given: The settings of all detectors by name, None where there is none.

    Raises:
        InputError: There is no such detector, or a setting of another was given.
    """
    if detector not in DETECTOR_SETTINGS:
        raise unknown_name("detector", detector, DETECTOR_SETTINGS)
    own = DETECTOR_SETTINGS[detector]
    for name, setting in DETECTOR_SETTINGS.items():
        if name != detector and given[setting] is not None:
            masks = " Masks need detector='faster_rcnn'." if setting == "rcnn" else ""
            raise InputError(
                f"{setting}= has the settings of detector={name!r}, but this is detector={detector!r}. Leave "
                f"it out, or give {own}= instead.{masks}"
            )
    value, kind = given[own], _KINDS[own]
    return own, kind() if value is None else config_from(kind, value, name=own)


def object_fields(config: DetectorConfig, skeleton: Skeleton | None) -> tuple[str, ...]:
    """Return what a detector learns of objects beside a class and a box: "masks", "keypoints".

    Args:
        config: Its settings.
        skeleton: The points of an object, where it finds them.

    Raises:
        InputError: It is of one stage, and has no heads for keypoints.
    """
    if not isinstance(config, RCNNConfig):
        if skeleton is not None:
            text = (
                "Expected no keypoints of a detector of one stage: Keypoint R-CNN is detector='faster_rcnn'."
            )
            raise InputError(text)
        return ()
    return (*(("masks",) if config.masks else ()), *(() if skeleton is None else ("keypoints",)))


def check_detector(
    num_classes: int,
    class_names: Sequence[str] | None,
    *,
    single_view: Sequence[str],
    lr: float,
    resize: Any,
    tta_flip: bool,
    tta_sizes: Any,
    pyramid_channels: int,
) -> None:
    """Refuse settings of a detector that do not fit together.

    Args:
        num_classes: Foreground classes.
        class_names: Their names.
        single_view: The heads whose results cannot be joined over views, in words.
        lr: Learning rate.
        resize: Short and longest side.
        tta_flip: Whether the mirrored image is seen too.
        tta_sizes: Short sides of the views.
        pyramid_channels: Channels.

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
    if single_view and (tta_flip or sizes):
        raise InputError(
            "Multiple views of an image are joined by their boxes; leave tta_flip and tta_sizes out with a "
            f"{' and a '.join(single_view)}."
        )
