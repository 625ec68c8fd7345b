"""The backbone of a task that needs maps: by name, or a user's own module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from visionkit.config import TransferConfig
from visionkit.errors import InputError
from visionkit.tasks.own_module import OwnModule
from visionkit.types import Init

__all__ = ["build_maps"]


def build_maps(
    backbone: str | nn.Module,
    *,
    init: Init,
    transfer: TransferConfig,
    reductions: Sequence[int],
    reloading: bool,
) -> Any:
    """Return a feature source with `levels`, `mean`, `std`, `weights` and `freeze_through`.

    Args:
        backbone: A name, or a user's module with `levels`.
        init: Where its weights come from.
        transfer: Resolved: its norm is the backbone's.
        reductions: Which maps.
        reloading: A checkpoint will fill weights that were trained, so frozen norms are in order.

    Raises:
        InputError: The module has no levels, or the name stands for a module that only the user can build.
    """
    if OwnModule.is_mark(backbone):
        name = str(backbone).partition(":")[2]
        raise InputError(
            f"This checkpoint was trained with your own module {name}, which only you can build. "
            f"Pass it again: load_from_checkpoint(path, backbone={name}(...))."
        )
    if not isinstance(backbone, str):
        own = OwnModule(backbone, trained=init != "scratch")
        if own.levels is None:
            raise InputError(
                f"Expected your backbone {type(backbone).__name__} to have 'levels', one map each, "
                "but it gives a vector. Set self.levels = (Level(channels, reduction), ...) in it."
            )
        return own
    from visionkit.backbones import create_backbone
    from visionkit.backbones.norms import convert_norms

    late = reloading and transfer.norm == "frozen"
    norm = "batch" if late else transfer.norm or "batch"
    made = create_backbone(backbone, init=init, norm=norm, reductions=tuple(reductions))
    if late:
        convert_norms(made, "frozen", trained=True)
    return made
