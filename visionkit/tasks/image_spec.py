"""Channels, size and statistics of a task's images, and what else its backbone is built with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from visionkit.backbones.probe import probe_model
from visionkit.backbones.registry import resolve
from visionkit.backbones.sources.base import ModelInfo, ModelSpec, Size, sorted_options
from visionkit.config import check_number, check_numbers, limits
from visionkit.errors import InputError

__all__ = ["ImageSpec", "warn_other_size"]


@dataclass(frozen=True)
class ImageSpec:
    """Channels, size and statistics of a task's images, and what else its backbone is built with.

    Args:
        in_channels: Channels of an image.
        image_size: Side, or `(H, W)`, of the images that reach the network; None if not given. A network
            of fixed size is built for it; others only remember it.
        mean: Mean per channel of images in [0, 1], in place of the backbone's.
        std: Deviation per channel.
        backbone_options: Further arguments of timm's or torchvision's function.

    Raises:
        InputError: A number is not positive, there is not one mean and deviation a channel, or an option is
            no plain value.
    """

    in_channels: int = 3
    image_size: int | Sequence[int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    backbone_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the numbers before anything is built."""
        check_number("in_channels", self.in_channels, limits(min=1), whole=True)
        sorted_options(self.backbone_options)
        size = self.image_size
        if isinstance(size, Sequence):
            check_numbers("image_size", size, limits(min=1), count=2, whole=True)
        elif size is not None:
            check_number("image_size (a side in pixels, or (height, width))", size, limits(min=1), whole=True)
        if (self.mean is None) != (self.std is None):
            raise InputError("Expected mean and std together, but got one of them. Give both or neither.")
        if self.mean is None or self.std is None:
            return
        for name, values, limit in (("mean", self.mean, limits()), ("std", self.std, limits(above=0))):
            plain = check_numbers(name, values, limit, count=self.in_channels)
            object.__setattr__(self, name, tuple(plain))

    @property
    def size(self) -> Size | None:
        """`(H, W)` of the images, where it is given."""
        size = self.image_size
        if isinstance(size, Sequence):
            return (int(size[0]), int(size[1]))
        return None if size is None else (int(size), int(size))

    def settings(self) -> dict[str, Any]:
        """Return these settings as a checkpoint holds them."""
        return {
            "in_channels": self.in_channels,
            "image_size": None if self.size is None else list(self.size),
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "backbone_options": dict(self.backbone_options or {}),
        }

    def model_info(self, backbone: str, output_stride: int | None = None) -> ModelInfo:
        """Return what is known of a named network for these images, before it is built."""
        fixed = self._model_info(backbone, output_stride, None).fixed_size is not None
        return self._model_info(backbone, output_stride, self.size if fixed else None)

    def size_to_build(self, backbone: str) -> Size | None:
        """Return the size to build a network for: None where it takes images of any size anyway."""
        if self.size is None or self._model_info(backbone, None, None).fixed_size is None:
            return None
        return self.size

    def _model_info(self, backbone: str, output_stride: int | None, size: Size | None) -> ModelInfo:
        options = sorted_options(self.backbone_options)
        source, spec = resolve(backbone, ModelSpec("", "", self.in_channels, output_stride, size, options))
        return probe_model(cast(Any, source), spec)


def warn_other_size(task: Any, images: Any) -> None:
    """Warn once if images differ in size from those that a task was trained on: its scores would fall.

    Args:
        task: Has `image_size`, `(H, W)` or None.
        images: `(B, C, H, W)`.
    """
    given = tuple(images.shape[-2:])
    if task.image_size is None or given == task.image_size or task.__dict__.get("_warned_size"):
        return
    task.__dict__["_warned_size"] = True
    height, width = task.image_size
    warnings.warn(
        f"These images are {given[0]} x {given[1]} (height x width), but {type(task).__name__} was trained "
        f"on {height} x {width}: its predictions may be near to chance. Resize them as for training.",
        stacklevel=3,
    )
