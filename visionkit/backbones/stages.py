"""Parameters grouped by feature level or block; freezing of these groups.

The sum of each map, fine to coarse, is back-propagated on the meta device. The parameters that get a gradient
for the first time form the stage of that level. So freezing and layer-wise learning rates are given as
reductions, for any network, without a table of layer names.

The blocks of a plain transformer or mixer all have one reduction, which does not tell them apart. There the
unit is the block, in the order of execution, and freezing is given as a fraction of the blocks. Learning
rates by block: Bao et al., BEiT, arXiv 2106.08254; He et al., Masked Autoencoders, arXiv 2111.06377.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from visionkit.backbones.sources.base import ModelInfo, Size
from visionkit.backbones.tracing import meta_parameters, record_calls
from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError

__all__ = ["Block", "Freezer", "Stage", "StageMaps", "StagedNetwork", "Through", "find_blocks", "find_stages"]

Through = int | float | Literal["all"]
"""How much is frozen: a reduction, a fraction of the blocks, 0 (nothing) or "all"."""
StageMaps = Callable[[nn.Module], tuple[nn.Module, Sequence[int]]]
"""Network to a module `images -> maps`, fine to coarse, and the reductions of these maps."""


class Stage(NamedTuple):
    """The parameters that a level needs and no finer level does."""

    reduction: int
    parameters: list[str]


class Block(NamedTuple):
    """The parameters of one block of a network whose blocks all have one reduction.

    `fraction` is the fraction of the blocks up to and including this one: 0 for the parameters before the
    first block (embeddings), 1 for the last block, above 1 for the parameters after it (the final norm).
    """

    fraction: float
    parameters: list[str]


class StagedNetwork(nn.Module):
    """Base of `Backbone` and `Encoder`: stages and blocks of parameters, freezing, gradient checkpointing.

    Args:
        net: The network.
        model_info: Its feature maps, image sizes and parameters.
        name: The registered name it was created by.
        mean: Mean per channel that images in [0, 1] are normalised by.
        std: Standard deviation per channel.
        weights: Provenance of its weights.
        stage_maps: Gives the maps of `net` by which parameters are grouped.
    """

    def __init__(
        self,
        net: nn.Module,
        model_info: ModelInfo,
        *,
        name: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        weights: WeightsInfo,
        stage_maps: StageMaps,
    ) -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.made_by: dict[str, Any] = {}
        self.mean, self.std, self.weights = mean, std, weights
        self.fixed_size: Size | None = model_info.fixed_size
        self.size_divisor: int = model_info.size_divisor
        self._model_info = model_info
        self._stage_maps = stage_maps
        self._stages: list[Stage] | None = None
        self._blocks: list[Block] | None = None
        self._freezer = Freezer(net)

    def stages(self) -> list[Stage]:
        """Return the parameters by level, fine to coarse: pairs of reduction and parameter names."""
        if self._stages is None:
            self._stages = self._find_stages()
        return self._stages

    def blocks(self) -> list[Block]:
        """Return the parameters by block, first to last, where all blocks have one reduction; else none."""
        if self._blocks is None:
            self._blocks = self._find_blocks()
        return self._blocks

    def freeze_through(self, reduction: Through) -> None:
        """Freeze parameters, running statistics and dropout up to a reduction, and unfreeze the others.

        They stay frozen after `.train()`.

        Args:
            reduction: The coarsest stage to freeze; where all blocks have one reduction, the fraction of them
                to freeze (0.5: embeddings and the first half); 0 unfreezes everything, "all" freezes
                everything.

        Raises:
            InputError: There is no such stage, the network has no such blocks, or the weights are random.
        """
        if reduction != 0 and not self.weights.trained:
            raise InputError(
                f"{self.name!r} starts from random weights: freezing them would keep them random. "
                "Use freeze_through=0 from scratch, or start from pretrained weights."
            )
        stages = [] if reduction in (0, "all") else self._frozen_stages(reduction)
        self._freezer.freeze(
            reduction, [Stage(s.reduction, [n.removeprefix("net.") for n in s.parameters]) for s in stages]
        )
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode, except for what is frozen."""
        super().train(mode)
        self._freezer.eval_frozen()
        return self

    def set_gradient_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass to save memory, where the network supports it.

        Raises:
            InputError: The network does not support it.
        """
        switch = getattr(getattr(self.net, "model", self.net), "set_grad_checkpointing", None)
        try:
            if switch is None:
                raise NotImplementedError
            switch(enable)
        except (NotImplementedError, AssertionError) as error:
            if enable:
                raise InputError(
                    f"{self.name!r} has no gradient checkpointing. Lower the batch size, or take another "
                    "backbone."
                ) from error

    def _find_stages(self) -> list[Stage]:
        maps, reductions = self._stage_maps(self.net)
        size = self._model_info.traced_size
        stages = find_stages(maps, reductions, size, len(self.mean)) if reductions else []
        return self._rename(maps, stages)

    def _rename(self, maps: nn.Module, stages: Sequence[Stage]) -> list[Stage]:
        """Return stages with the parameter names of this module in place of those of `maps`."""
        names = {id(p): name for name, p in self.named_parameters()}
        inner = dict(maps.named_parameters())
        return [Stage(s.reduction, [names[id(inner[n])] for n in s.parameters]) for s in stages]

    def _find_blocks(self) -> list[Block]:
        if len(self._model_info.nodes) > 1:
            return []
        stages = self.stages()
        needed = [n.removeprefix("net.") for n in stages[0].parameters] if stages else []
        blocks = find_blocks(self.net, needed, self._model_info.traced_size, len(self.mean))
        return [Block(block.fraction, [f"net.{n}" for n in block.parameters]) for block in blocks]

    def _frozen_stages(self, through: int | float | str) -> list[Stage]:
        """Return the stages for a reduction, or one stage of the first blocks for a fraction."""
        blocks, stages = self.blocks(), self.stages()
        is_fraction = isinstance(through, float) and 0 < through < 1
        if blocks and not is_fraction:
            raise InputError(
                f"All {len(blocks) - 2} blocks of {self.name!r} lie at reduction {stages[0].reduction}, so "
                f"freeze_through={through!r} cannot tell them apart. Give a fraction of the blocks (0.5: the "
                "embeddings and the first half), 0 or 'all'."
            )
        if is_fraction and not blocks:
            valid = ", ".join(str(stage.reduction) for stage in stages)
            raise InputError(
                f"freeze_through={through!r} is a fraction of blocks that lie at one reduction, but "
                f"{self.name!r} has levels. Give the reduction of one ({valid}), 0 or 'all'."
            )
        if not is_fraction:
            return stages
        frozen = [n for b in blocks if b.fraction <= float(through) + 1e-9 for n in b.parameters]
        return [Stage(through, frozen)]  # type: ignore[arg-type]

    def _check_size(self, height: int, width: int) -> None:
        """Refuse images of another size than the only one that the network takes."""
        fixed = self.fixed_size
        if fixed is not None and (height, width) != fixed:
            raise InputError(
                f"{self.name!r} takes images of {fixed[0]}x{fixed[1]} only, but got {height}x{width}. "
                f"Resize them, or build it for that size, where it can be: image_size=({height}, {width})."
            )


def find_stages(
    maps: nn.Module, reductions: Sequence[int], size: tuple[int, int], channels: int
) -> list[Stage]:
    """Group the parameters of a module that returns feature maps.

    Args:
        maps: `images -> sequence of maps`, fine to coarse.
        reductions: The reduction of each map.
        size: `(height, width)` of images that the module takes.
        channels: Channels of the images.

    Returns:
        One stage per map, in order. Parameters that no map needs are in none of them.
    """
    stages: list[Stage] = []
    with torch.enable_grad(), meta_parameters(maps, grad=True) as parameters:
        # each map (1, C, ceil(H / r), ceil(W / r)), without memory
        outputs: Sequence[Tensor] = maps(torch.empty(1, channels, *size, device="meta"))
        remaining = list(parameters)
        for reduction, output in zip(reductions, outputs, strict=True):
            reached = _reached(output, remaining, parameters)
            stages.append(Stage(reduction, reached))
            taken = set(reached)
            remaining = [name for name in remaining if name not in taken]
    return stages


def _reached(output: Tensor, names: list[str], tensors: dict[str, Tensor]) -> list[str]:
    """Return those of the parameters that get a gradient from the sum of a map."""
    if not names or not output.requires_grad:
        return []
    gradients = torch.autograd.grad(
        output.sum(), [tensors[n] for n in names], retain_graph=True, allow_unused=True
    )
    return [name for name, gradient in zip(names, gradients) if gradient is not None]


def find_blocks(net: nn.Module, needed: Iterable[str], size: tuple[int, int], channels: int) -> list[Block]:
    """Group the parameters of a network whose blocks all have one reduction.

    The blocks are the children of the innermost module that holds more than half of the parameters, if at
    least three of them, and at least half, are of one class.

    Args:
        net: The network.
        needed: The parameters that its map depends on: those outside the blocks come before them, others
            after.
        size: `(height, width)` of images that it takes.
        channels: Channels of the images.

    Returns:
        One group of the parameters before the blocks, one for each block, one of those after; none without
        such blocks.
    """
    # Step 1: the blocks, in the order in which they run.
    parent, children = _repeated(net)
    if len(children) < 3:
        return []
    begun: dict[str, int] = {}  # module: clock at its first call
    for call in record_calls(net, size, channels):
        begun.setdefault(call.name, call.begin)
    names = [f"{parent}{child}" for child in children]
    if all(name in begun for name in names):
        names.sort(key=lambda name: begun[name])
    # Step 2: one group a block.
    count = len(names)
    groups = [
        Block((i + 1) / count, [f"{name}.{n}" for n, _ in net.get_submodule(name).named_parameters()])
        for i, name in enumerate(names)
    ]
    # Step 3: the other parameters, before the blocks if the map needs them and they run before the last
    # block.
    inside = {name for group in groups for name in group.parameters}
    last = max(begun.get(name, 0) for name in names) or float("inf")
    first = {name for name in needed if begun.get(name.rpartition(".")[0], 0) < last}
    rest = [name for name, _ in net.named_parameters() if name not in inside]
    before, after = [n for n in rest if n in first], [n for n in rest if n not in first]
    return [Block(0.0, before), *groups, Block((count + 1) / count, after)]


def _repeated(net: nn.Module) -> tuple[str, list[str]]:
    """Return the path of the module whose children are the blocks, with a dot, and the children's names."""
    path, module = "", net
    # Descend into the child that holds more than half of the parameters, as long as there is one.
    while True:
        sizes = {name: sum(p.numel() for p in child.parameters()) for name, child in module.named_children()}
        sizes = {name: size for name, size in sizes.items() if size}
        main = max(sizes, key=lambda name: sizes[name], default="")
        if not main or 2 * sizes[main] <= sum(p.numel() for p in module.parameters()):
            break
        path, module = f"{path}{main}.", module.get_submodule(main)
    kinds = Counter(type(module.get_submodule(name)) for name in sizes)
    largest_kind = max(kinds.values(), default=0)
    return (path, list(sizes)) if largest_kind >= 3 and 2 * largest_kind >= len(sizes) else (path, [])


class Freezer:
    """Keeps stages frozen, also after `.train()`: no gradients, no moving statistics, no dropout.

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
            stages: The stages, as `find_stages` returns them.

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

    def eval_frozen(self) -> None:
        """Put every frozen module into evaluation mode; to be called after `.train()`."""
        if self.through == 0:
            return
        if self.through == "all":
            self._net.eval()
            return
        for module in _all_frozen(self._net, self.frozen):
            module.eval()


def _all_frozen(net: nn.Module, frozen: Iterable[str]) -> list[nn.Module]:
    """Return the modules whose parameters are all frozen.

    A module without parameters follows the module before it: an activation or dropout inside a frozen block
    is part of it.
    """
    names = set(frozen)
    modules: list[nn.Module] = []

    def visit(module: nn.Module, prefix: str) -> None:
        parameters = [f"{prefix}{name}" for name, _ in module.named_parameters()]
        if parameters and all(name in names for name in parameters):
            modules.append(module)
            return
        previous_frozen = False
        for child_name, child in module.named_children():
            inner = f"{prefix}{child_name}."
            child_parameters = [f"{inner}{name}" for name, _ in child.named_parameters()]
            if child_parameters:
                visit(child, inner)
                previous_frozen = all(name in names for name in child_parameters)
            elif previous_frozen:
                modules.append(child)

    visit(net, "")
    return modules
