"""Parameters grouped by level, found with autograd, and freezing by level.

For each level, fine to coarse, the sum of its map is back-propagated (over stand-ins without memory), and the
parameters that get a gradient for the first time belong to it. So freezing and layer-wise rates speak in
reductions for every network, ours or a user's, and no table of layer names is needed.

A plain transformer or mixer has all its blocks at one reduction, where levels say nothing about depth. There
the unit is the block, in the order of execution, and freezing speaks in shares of the blocks. Rates by block:
Bao et al., BEiT, arXiv 2106.08254; He et al., Masked Autoencoders, arXiv 2111.06377.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from visionkit.backbones.tracing import meta_parameters, record_calls
from visionkit.errors import InputError

__all__ = ["Block", "Freezer", "Stage", "Through", "find_blocks", "find_stages", "freeze"]

Through = int | float | Literal["all"]


class Stage(NamedTuple):
    """The parameters that a level needs and no finer level does."""

    reduction: int
    parameters: list[str]


class Block(NamedTuple):
    """The parameters of one block among blocks of one reduction.

    `share` is the share of the blocks that end with this one: 0 for what lies before the first (embeddings),
    1 for the last block, above 1 for what lies behind it (the final norm).
    """

    share: float
    parameters: list[str]


def find_stages(
    maps: nn.Module, reductions: Sequence[int], size: tuple[int, int], channels: int
) -> list[Stage]:
    """Group the parameters of a module that gives maps.

    Args:
        maps: `images -> sequence of maps`, fine to coarse.
        reductions: The reduction of each map.
        size: An image size the module takes.
        channels: Channels of the image.

    Returns:
        One stage per map, in order. Parameters that no map needs are in none of them.
    """
    stages: list[Stage] = []
    with torch.enable_grad(), meta_parameters(maps, grad=True) as stand_ins:
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


def find_blocks(net: nn.Module, needed: Iterable[str], size: tuple[int, int], channels: int) -> list[Block]:
    """Group the parameters of a network whose blocks all lie at one reduction.

    The blocks are the children of the innermost module that holds more than half of the parameters, where at
    least three of them, and half, are of one class.

    Args:
        net: The network.
        needed: The parameters that its map needs: those outside the blocks lie before them, others behind.
        size: An image size it takes.
        channels: Channels of the image.

    Returns:
        One group for what lies before, one a block, one for what lies behind; none without such blocks.
    """
    parent, children = _repeated(net)
    if len(children) < 3:
        return []
    begun: dict[str, int] = {}
    for call in record_calls(net, size, channels):
        begun.setdefault(call.name, call.begin)
    names = [f"{parent}{child}" for child in children]
    if all(name in begun for name in names):
        names.sort(key=lambda name: begun[name])
    count = len(names)
    groups = [
        Block((place + 1) / count, [f"{name}.{n}" for n, _ in net.get_submodule(name).named_parameters()])
        for place, name in enumerate(names)
    ]
    inside = {name for group in groups for name in group.parameters}
    last = max(begun.get(name, 0) for name in names) or float("inf")
    first = {name for name in needed if begun.get(name.rpartition(".")[0], 0) < last}
    rest = [name for name, _ in net.named_parameters() if name not in inside]
    before, behind = [n for n in rest if n in first], [n for n in rest if n not in first]
    return [Block(0.0, before), *groups, Block((count + 1) / count, behind)]


def _repeated(net: nn.Module) -> tuple[str, list[str]]:
    """Return the path of the module whose children are the blocks, with a dot, and the children's names."""
    path, module = "", net
    while True:
        sizes = {name: sum(p.numel() for p in child.parameters()) for name, child in module.named_children()}
        sizes = {name: size for name, size in sizes.items() if size}
        main = max(sizes, key=lambda name: sizes[name], default="")
        if not main or 2 * sizes[main] <= sum(p.numel() for p in module.parameters()):
            break
        path, module = f"{path}{main}.", module.get_submodule(main)
    kinds = Counter(type(module.get_submodule(name)) for name in sizes)
    alike = max(kinds.values(), default=0)
    return (path, list(sizes)) if alike >= 3 and 2 * alike >= len(sizes) else (path, [])


def freeze(owner: Any, freezer: Freezer, through: Through) -> None:
    """Freeze a backbone or encoder through a reduction, or a share of its blocks.

    Raises:
        InputError: The weights are random, there is no such stage, or the network has no such blocks.
    """
    if through != 0 and not owner.weights.trained:
        raise InputError(
            f"{owner.name!r} starts from random weights: freezing them would keep them random. "
            "Use freeze_through=0 from scratch, or start from pretrained weights."
        )
    stages: list[Stage] = []
    if through not in (0, "all"):
        blocks, stages = owner.blocks(), owner.stages()
        share = isinstance(through, float) and 0 < through < 1
        if blocks and not share:
            raise InputError(
                f"All {len(blocks) - 2} blocks of {owner.name!r} lie at reduction {stages[0].reduction}, so "
                f"freeze_through={through!r} cannot tell them apart. Give a share of the blocks (0.5: the "
                "embeddings and the first half), 0 or 'all'."
            )
        if share and not blocks:
            valid = ", ".join(str(stage.reduction) for stage in stages)
            raise InputError(
                f"freeze_through={through!r} is a share of blocks that lie at one reduction, but "
                f"{owner.name!r} has levels. Give the reduction of one ({valid}), 0 or 'all'."
            )
        if share:
            # one stage that is frozen, named as the freezer knows it
            frozen = [n for b in blocks if b.share <= float(through) + 1e-9 for n in b.parameters]
            stages = [Stage(through, frozen)]  # type: ignore[arg-type]
    freezer.freeze(
        through, [Stage(s.reduction, [n.removeprefix("net.") for n in s.parameters]) for s in stages]
    )
    owner.train(owner.training)


class Freezer:
    """Keeps stages frozen, whatever `.train()` says: no gradients, no moving statistics, no dropout.

    Args:
        net: The network.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._trainable = {name for name, p in net.named_parameters() if p.requires_grad}
        self.frozen: set[str] = set()
        self.through: Through = 0

    def freeze(self, through: Through, stages: Sequence[Stage]) -> None:
        """Freeze every stage up to a reduction, and unfreeze the others.

        Args:
            through: A reduction of `stages`; 0 unfreezes everything, "all" freezes everything.
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
        if isinstance(through, str):
            frozen = {name for name, _ in self._net.named_parameters()}
        else:
            frozen = {n for stage in stages if stage.reduction <= through for n in stage.parameters}
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
