"""The backbone of a task that needs maps: by name, or a user's own module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from visionkit.backbones import create_backbone
from visionkit.config import TransferConfig
from visionkit.tasks.image_spec import ImageSpec
from visionkit.tasks.own_module import OwnModule, wrap_own
from visionkit.types import Init

__all__ = ["build_maps"]


def build_maps(
    backbone: str | nn.Module | Mapping[str, Any],
    *,
    init: Init,
    transfer: TransferConfig,
    reductions: Sequence[int],
    images: ImageSpec,
    origin: Mapping[str, Any] | None,
    output_stride: int | None = None,
) -> Any:
    """Return a feature source with `levels`, `mean`, `std`, `weights` and `freeze_through`.

    Args:
        backbone: A name, or a user's module with `levels`.
        init: Where its weights come from.
        transfer: Resolved: its norm is the backbone's.
        reductions: Which maps.
        images: What the images are.
        origin: What a checkpoint says of the weights that it will fill in; None when nothing is reloaded.
        output_stride: Coarsest reduction, by dilation; the network's own if not given.

    Raises:
        InputError: The module has no levels, or the name stands for a module that only the user can build.
    """
    if not isinstance(backbone, str) or OwnModule.is_mark(backbone):
        trained = (origin["init"] if origin else init) != "scratch"
        own = wrap_own(backbone, trained=trained, channels=images.in_channels)
        return images.finish(own, transfer=transfer, origin=origin)
    made = create_backbone(
        backbone, init=init, norm=images.norm(transfer, origin), reductions=tuple(reductions),
        in_channels=images.in_channels, image_size=images.built_for(backbone), output_stride=output_stride,
    )  # fmt: skip
    return images.finish(made, transfer=transfer, origin=origin)
