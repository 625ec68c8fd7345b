"""A user's own network as a task's backbone, without registering it."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError, expected

__all__ = ["OwnModule", "own_module_name"]

_MARK = "module:"


class OwnModule(nn.Module):
    """Gives a user's network what tasks ask of a backbone: statistics, a record, and whole-network freezing.

    Freezing by level needs its stages: register it (`visionkit.backbones.register_backbone`).

    Args:
        net: Gives `(B, dim)` and has `dim`, or gives maps and has `levels`. Its `mean` and `std`, if it has
            them, are for pictures in [0, 1]; without them it gets the pictures in [0, 1] as they are.
        trained: Whether its weights are trained.

    Raises:
        InputError: It has neither `dim` nor `levels`.
    """

    def __init__(self, net: nn.Module, *, trained: bool) -> None:
        super().__init__()
        dim, levels = getattr(net, "dim", None), getattr(net, "levels", None)
        if not isinstance(dim, int) and not levels:
            raise InputError(
                f"Expected your backbone {type(net).__name__} to have 'dim' (it gives (B, dim)) or 'levels' "
                "(it gives one map a level), but it has neither. Set self.dim = ... in it."
            )
        self.net = net
        self.dim = dim if isinstance(dim, int) else None
        self.levels = tuple(levels) if levels else None
        self.mean = tuple(getattr(net, "mean", (0.0, 0.0, 0.0)))
        self.std = tuple(getattr(net, "std", (1.0, 1.0, 1.0)))
        self.name = own_module_name(net)
        self.weights = WeightsInfo(source="user" if trained else "none", name=type(net).__name__)
        self._frozen = False

    def forward(self, images: Any) -> Any:
        """Return what the network gives."""
        return self.net(images)

    def freeze_through(self, reduction: int | Literal["all"]) -> None:
        """Freeze all of the network's parameters and statistics ("all"), or nothing (0)."""
        if reduction not in (0, "all"):
            fix = "To freeze it by level, register it with visionkit.backbones.register_backbone."
            raise InputError(expected("freeze_through of your own module", "0 or 'all'", reduction, fix=fix))
        self._frozen = reduction == "all"
        self.net.requires_grad_(not self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> OwnModule:
        """Switch to training, but leave a frozen network in evaluation: its statistics must not move."""
        super().train(mode)
        if self._frozen:
            self.net.eval()
        return self

    @staticmethod
    def is_mark(name: object) -> bool:
        """Return whether a saved backbone name stands for a user's module, which only the user can build."""
        return isinstance(name, str) and name.startswith(_MARK)


def own_module_name(net: nn.Module) -> str:
    """Return the name under which a checkpoint remembers a user's module."""
    return f"{_MARK}{type(net).__name__}"
