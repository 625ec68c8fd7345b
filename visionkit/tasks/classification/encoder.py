"""The encoder and the last layer of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from visionkit.backbones import create_encoder
from visionkit.config import TransferConfig
from visionkit.errors import InputError, expected
from visionkit.rng import seeded_from_run
from visionkit.tasks.image_spec import ImageSpec
from visionkit.tasks.own_module import OwnModule, wrap_own
from visionkit.types import Init

__all__ = ["build_encoder", "make_head"]


def build_encoder(
    backbone: str | nn.Module | Mapping[str, Any],
    *,
    init: Init,
    transfer: TransferConfig,
    images: ImageSpec,
    origin: Mapping[str, Any] | None,
) -> Any:
    """Return a module `(B, C, H, W) -> (B, dim)` with `dim`, `mean`, `std`, `weights`, `freeze_through`.

    Args:
        backbone: A name, or a user's module.
        init: Where its weights come from.
        transfer: Resolved: norm and probe level.
        images: What the images are.
        origin: What a checkpoint says of the weights that it will fill in; None when nothing is reloaded.

    Raises:
        InputError: The name stands for a module that only the user can build.
    """
    if not isinstance(backbone, str) or OwnModule.is_mark(backbone):
        trained = (origin["init"] if origin else init) != "scratch"
        own = wrap_own(
            backbone, trained=trained, channels=images.in_channels, pool=True,
            probe_level=transfer.probe_level,
        )  # fmt: skip
        return images.finish(own, transfer=transfer, origin=origin)
    encoder = create_encoder(
        backbone, init=init, norm=images.norm(transfer, origin), level=transfer.probe_level,
        in_channels=images.in_channels, image_size=images.built_for(backbone),
    )  # fmt: skip
    return images.finish(encoder, transfer=transfer, origin=origin)


def make_head(encoder: Any, num_classes: int, *, kind: str, init: Init) -> nn.Module:
    """Return the last layer: a new one, drawn from torch's seed alone, or that of the weights.

    A new one does not depend on how many numbers the backbone drew before it, so the arms of a comparison
    with one seed begin with the same head.

    Args:
        encoder: Has `dim`; for "pretrained" also `pretrained_head()`.
        num_classes: Outputs.
        kind: "new" or "pretrained".
        init: Where the weights come from.

    Raises:
        InputError: The weights have no head, or one with other classes.
    """
    if kind == "pretrained":
        return _trained_head(encoder, num_classes, init)
    head = nn.Linear(encoder.dim, num_classes)
    with torch.no_grad(), seeded_from_run():
        head.weight.normal_(0, 0.01)
        head.bias.zero_()
    return head


def _trained_head(encoder: Any, num_classes: int, init: Init) -> nn.Module:
    asked = getattr(encoder, "pretrained_head", None)
    head: nn.Linear | None = asked() if callable(asked) and init != "scratch" else None
    if head is None:
        raise InputError(
            f"head='pretrained' needs weights with a linear classifier, but {encoder.name!r} with "
            f"init={init!r} has none. Use head='new'."
        )
    if head.out_features != num_classes:
        fix = "Set num_classes to that, or use head='new'."
        raise InputError(
            expected(
                "num_classes for head='pretrained'",
                f"{head.out_features}, as the weights have",
                num_classes,
                fix=fix,
            )
        )
    return head
