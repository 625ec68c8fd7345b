"""Parameters grouped by level, found with autograd, and freezing by level.

For each level, fine to coarse, the sum of its map is back-propagated (over stand-ins without memory), and the
parameters that get a gradient for the first time belong to it. So freezing and layer-wise rates speak in
reductions for every network, ours or a user's, and no table of layer names is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from visionkit.backbones.tracing import emptied
from visionkit.errors import InputError

__all__ = ["Freezer", "Stage", "find_stages"]


class Stage(NamedTuple):
    """The parameters that a level needs and no finer level does."""

    reduction: int
    parameters: list[str]


def find_stages(
    maps: nn.Module, reductions: Sequence[int], size: tuple[int, int], channels: int
) -> list[Stage]:
    """Group the parameters of a module that gives maps.

    Args:
        maps: `images -> sequence of maps`, fine to coarse.
        reductions: The reduction of each map.
        size: A picture size the module takes.
        channels: Channels of the picture.

    Returns:
        One stage per map, in order. Parameters that no map needs are in none of them.
    """
    stages: list[Stage] = []
    with torch.enable_grad(), emptied(maps, grad=True) as stand_ins:
        outputs: Sequence[Tensor] = maps(torch.empty(1, channels, *size, device="meta"))
        left = list(stand_ins)
        for reduction, output in zip(reductions, outputs, strict=True):
            got = _reached(output, left, stand_ins)
            stages.append(Stage(reduction, got))
            taken = set(got)
            left = [name for name in left if name not in taken]
    return stages


def _reached(output: Tensor, names: list[str], tensors: dict[str, Tensor]) -> list[str]:
    if not names or not output.requires_grad:
        return []
    found = torch.autograd.grad(
        output.sum(), [tensors[n] for n in names], retain_graph=True, allow_unused=True
    )
    return [name for name, gradient in zip(names, found) if gradient is not None]


class Freezer:
    """Keeps stages frozen, whatever `.train()` says: no gradients, no moving statistics, no dropout.

    Args:
        net: The network.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._trainable = {name for name, p in net.named_parameters() if p.requires_grad}
        self.frozen: set[str] = set()
        self.through: int | Literal["all"] = 0

    def freeze(self, through: int | Literal["all"], stages: Sequence[Stage]) -> None:
        """Freeze every stage up to a reduction, and thaw the others.

        Args:
            through: A reduction of `stages`; 0 thaws everything, "all" freezes everything.
            stages: What `find_stages` found.

        Raises:
            InputError: There is no such stage.
        """
        valid = [stage.reduction for stage in stages]
        if through != "all" and through != 0 and through not in valid:
            raise InputError(
                f"Expected freeze_through to be 0, 'all' or one of {', '.join(map(str, valid))}, but got "
                f"{through!r}."
            )
        if through == "all":
            frozen = {name for name, _ in self._net.named_parameters()}
        else:
            frozen = {n for stage in stages if stage.reduction <= int(through) for n in stage.parameters}
        for name, parameter in self._net.named_parameters():
            parameter.requires_grad_(name in self._trainable and name not in frozen)
        self.frozen, self.through = frozen, through

    def hold(self) -> None:
        """Put every frozen module into evaluation mode; call after `.train()`."""
        if self.through == 0:
            return
        if self.through == "all":
            self._net.eval()
            return
        for module in _all_frozen(self._net, self.frozen):
            module.eval()


def _all_frozen(net: nn.Module, frozen: Iterable[str]) -> list[nn.Module]:
    """Return the modules whose parameters are all frozen.

    Modules without parameters follow their neighbours: an activation or dropout inside a frozen block is part
    of it.
    """
    names = set(frozen)
    found: list[nn.Module] = []

    def visit(module: nn.Module, prefix: str) -> None:
        own = [f"{prefix}{name}" for name, _ in module.named_parameters()]
        if own and all(name in names for name in own):
            found.append(module)
            return
        before_frozen = False
        for child_name, child in module.named_children():
            inner = f"{prefix}{child_name}."
            parameters = [f"{inner}{name}" for name, _ in child.named_parameters()]
            if parameters:
                visit(child, inner)
                before_frozen = all(name in names for name in parameters)
            elif before_frozen:
                found.append(child)

    visit(net, "")
    return found
