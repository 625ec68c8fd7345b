"""Evaluation transforms as plain values, which travel with a model, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from visionkit.data.transforms.classification import CenterCrop, Compose, Resize, Transform
from visionkit.data.transforms.detection import DetectionEval
from visionkit.data.transforms.keypoints import KeypointCrop
from visionkit.errors import InputError, expected, unknown_name

__all__ = ["describe_transform", "transform_from"]

NATIVE = "Native"  # the image as it is: Compose(())


def describe_transform(transform: Transform) -> dict[str, Any] | None:
    """Return an evaluation transform as plain values: its name and its settings.

    Args:
        transform: A `CenterCrop`, `Resize`, `DetectionEval`, `KeypointCrop`, or `Compose(())` (native size).

    Returns:
        None for any other, such as a function of your own.
    """
    if type(transform) is DetectionEval:
        inner = describe_transform(transform.resize)
        return None if inner is None else {"name": "DetectionEval", "resize": inner}
    if type(transform) is KeypointCrop:
        return {"name": "KeypointCrop", **asdict(transform), "size": list(transform.size)}
    if type(transform) is Compose and not transform.steps:
        return {"name": NATIVE}
    if type(transform) is CenterCrop:
        return {
            "name": "CenterCrop",
            "size": transform.size,
            "fraction": transform.fraction,
            **_reads(transform),
        }
    if type(transform) is Resize:
        size = list(transform.size) if isinstance(transform.size, tuple) else transform.size
        return {"name": "Resize", "size": size, "max_size": transform.max_size, **_reads(transform)}
    return None


def transform_from(described: Any) -> Transform:
    """Return the transform that `describe_transform` described.

    Args:
        described: Its name and settings, a mapping.

    Raises:
        InputError: The name is not known, or a setting does not fit.
    """
    if not isinstance(described, Mapping):
        raise InputError(expected("how images are resized", "a name and its settings", described))
    name = str(described.get("name"))
    settings = {key: value for key, value in described.items() if key != "name"}
    try:
        if name == "DetectionEval":
            resize = transform_from(settings.pop("resize"))
            if not isinstance(resize, Resize) or settings:
                raise TypeError(f"its resize is {resize}")
            return DetectionEval(resize)
        if name == NATIVE:
            return Compose(())
        if name == "CenterCrop":
            return CenterCrop(**settings)
        if name == "KeypointCrop":
            return KeypointCrop(tuple(settings.pop("size")), **settings)
        if name == "Resize":
            size = settings.pop("size")
            return Resize(tuple(size) if isinstance(size, list | tuple) else size, **settings)
    except (KeyError, TypeError) as error:
        raise InputError(f"Expected the settings of {name}, but got {dict(described)}: {error}.") from error
    raise unknown_name("transform", name, ("CenterCrop", "DetectionEval", "KeypointCrop", NATIVE, "Resize"))


def _reads(transform: CenterCrop | Resize) -> dict[str, bool]:
    """Return how images are decoded, where it is not in full."""
    return {"reduced_jpegs": True} if transform.reduced_jpegs else {}
