"""The encoder and the last layer of a classifier."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from visionkit.config import TransferConfig
from visionkit.errors import InputError, expected
from visionkit.tasks.own_module import OwnModule
from visionkit.types import Init

__all__ = ["PooledMaps", "build_encoder", "make_head"]


class PooledMaps(nn.Module):
    """A feature source seen as an encoder: the mean of one level's map.

    Args:
        source: Gives one map a level.
        reduction: Which level; the coarsest if not given.

    Raises:
        InputError: There is no such level.
    """

    def __init__(self, source: Any, *, reduction: int | None = None) -> None:
        super().__init__()
        reductions = [level.reduction for level in source.levels]
        wanted = reductions[-1] if reduction is None else reduction
        if wanted not in reductions:
            raise InputError(
                expected("probe_level", f"one of the backbone's reductions {reductions}", reduction)
            )
        self.source = source
        self.place = reductions.index(wanted)
        self.dim = int(source.levels[self.place].channels)
        self.mean, self.std, self.name, self.weights = source.mean, source.std, source.name, source.weights

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, dim)` for normalised pictures `(B, 3, H, W)`."""
        maps: tuple[Tensor, ...] = self.source(images)
        return maps[self.place].mean(dim=(2, 3))

    def freeze_through(self, reduction: int | Literal["all"]) -> None:
        """Freeze the source."""
        self.source.freeze_through(reduction)


def build_encoder(backbone: str | nn.Module, *, init: Init, transfer: TransferConfig, reloading: bool) -> Any:
    """Return a module `(B, 3, H, W) -> (B, dim)` with `dim`, `mean`, `std`, `weights`, `freeze_through`.

    Args:
        backbone: A name, or a user's module.
        init: Where its weights come from.
        transfer: Resolved: norm and probe level.
        reloading: A checkpoint will fill weights that were trained, so frozen norms are in order.

    Raises:
        InputError: The name stands for a module that only the user can build.
    """
    if OwnModule.is_mark(backbone):
        name = str(backbone).partition(":")[2]
        raise InputError(
            f"This checkpoint was trained with your own module {name}, which only you can build. "
            f"Pass it again: load_from_checkpoint(path, backbone={name}(...))."
        )
    if not isinstance(backbone, str):
        own = OwnModule(backbone, trained=init != "scratch")
        if own.dim is None:
            return PooledMaps(own, reduction=transfer.probe_level)
        if transfer.probe_level is not None:
            raise InputError(
                "probe_level needs a backbone with levels, but yours gives a vector. Leave it out."
            )
        return own
    from visionkit.backbones import create_encoder
    from visionkit.backbones.norms import convert_norms

    late = reloading and transfer.norm == "frozen"
    norm = "batch" if late else transfer.norm
    encoder = create_encoder(backbone, init=init, norm=norm or "batch", level=transfer.probe_level)
    if late:
        convert_norms(encoder, "frozen", trained=True)
    return encoder


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
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
    with torch.no_grad():
        head.weight.normal_(0, 0.01, generator=generator)
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
