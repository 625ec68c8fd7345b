"""A backbone: images become maps, fine to coarse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.backbones.level import Level
from visionkit.backbones.sources.base import Plan, Size, Tap
from visionkit.backbones.stages import Block, Freezer, Stage, Through, find_blocks, find_stages, freeze
from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """A network that gives one map per level; made by `create_backbone`.

    Args:
        net: `images -> list of raw tensors`, one per tap.
        taps: What each raw tensor is.
        plan: What the network turned out to be.
        name: The name it was asked for by.
        mean: Mean per channel that images in [0, 1] are normalised by.
        std: Deviation per channel.
        weights: Where its weights came from.
        stage_maps: Makes, over `net`, a module that gives every map up to the coarsest of `taps`, and says
            their reductions: parameters are grouped by these. The maps of `taps` if not given.
    """

    def __init__(
        self,
        net: nn.Module,
        taps: Sequence[Tap],
        plan: Plan,
        *,
        name: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        weights: WeightsInfo,
        stage_maps: Callable[[nn.Module], tuple[nn.Module, Sequence[int]]] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.made_by: dict[str, Any] = {}
        self.levels: tuple[Level, ...] = tuple(tap.level for tap in taps)
        self.mean, self.std, self.weights = mean, std, weights
        self.fixed_size: Size | None = plan.fixed_size
        self._taps, self._plan = tuple(taps), plan
        self._stage_maps = stage_maps
        self._stages: list[Stage] | None = None
        self._blocks: list[Block] | None = None
        self._freezer = Freezer(net)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one map per level.

        Sides that the network cannot divide are padded at the bottom and the right (with zeros, the mean) and
        the maps cut back, so that every size gives the promised shapes.

        Args:
            images: `(B, C, H, W)`, normalised by `mean` and `std`.

        Returns:
            Maps `(B, level.channels, ceil(H / level.reduction), ceil(W / level.reduction))`, fine to coarse.

        Raises:
            InputError: The network takes one image size only, and this is another.
        """
        height, width = images.shape[-2:]
        check_size(self, height, width)
        padded = _padded(images, self._plan.multiple)
        raw = self.net(padded)
        grown = (padded.shape[-2], padded.shape[-1])
        return tuple(_as_map(x, tap, (height, width), grown) for x, tap in zip(raw, self._taps))

    def stages(self) -> list[Stage]:
        """Return the parameters by level, fine to coarse: pairs of reduction and names, found by autograd."""
        if self._stages is None:
            maps: nn.Module = self.net
            reductions: Sequence[int] = [level.reduction for level in self.levels]
            if self._stage_maps is not None:
                maps, reductions = self._stage_maps(self.net)
            found = find_stages(maps, reductions, self._plan.traced_size, len(self.mean))
            own = {id(p): f"net.{n}" for n, p in self.net.named_parameters()}
            inner = dict(maps.named_parameters())
            self._stages = [Stage(s.reduction, [own[id(inner[n])] for n in s.parameters]) for s in found]
        return self._stages

    def blocks(self) -> list[Block]:
        """Return the parameters by block, first to last, where all blocks share one reduction; else none."""
        if self._blocks is None:
            self._blocks = blocks_of(self)
        return self._blocks

    def freeze_unused(self) -> None:
        """Take parameters that no level needs out of training: data-parallel training wants none idle."""
        used = {name for stage in self.stages() for name in stage.parameters}
        for name, parameter in self.named_parameters():
            if name not in used:
                parameter.requires_grad_(False)
        self._freezer = Freezer(self.net)

    def freeze_through(self, reduction: Through) -> None:
        """Freeze parameters, running statistics and dropout up to a reduction, and unfreeze the others.

        It survives `.train()`.

        Args:
            reduction: The coarsest level to freeze, or where all blocks share one reduction the share of them
                (0.5: embeddings and the first half); 0 unfreezes everything, "all" freezes everything.

        Raises:
            InputError: There is no such level, or the weights are random.
        """
        freeze(self, self._freezer, reduction)

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training mode, except for what is frozen."""
        super().train(mode)
        self._freezer.hold()
        return self

    def set_gradient_checkpointing(self, enable: bool = True) -> None:
        """Trade arithmetic for memory in training, where the network can.

        Raises:
            InputError: The network has no such switch.
        """
        switch_checkpointing(self.net, self.name, enable)


def blocks_of(owner: Any) -> list[Block]:
    """Return the blocks of a backbone or encoder; none where its plan has several reductions."""
    if len(owner._plan.taps) > 1:
        return []
    stages = owner.stages()
    needed = [n.removeprefix("net.") for n in stages[0].parameters] if stages else []
    found = find_blocks(owner.net, needed, owner._plan.traced_size, len(owner.mean))
    return [Block(block.share, [f"net.{n}" for n in block.parameters]) for block in found]


def check_size(owner: Any, height: int, width: int) -> None:
    """Refuse an image size that the network does not take."""
    fixed, step = owner._plan.fixed_size, owner._plan.step
    if fixed is not None and (height, width) != fixed:
        raise InputError(
            f"{owner.name!r} takes images of {fixed[0]}x{fixed[1]} only, but got {height}x{width}. "
            f"Resize them, or build it for that size, where it can be: image_size=({height}, {width})."
        )
    if step > 1 and (height % step or width % step) and not isinstance(owner, Backbone):
        raise InputError(
            f"{owner.name!r} takes images whose sides are multiples of {step}, but got "
            f"{height}x{width}. Resize them."
        )


def switch_checkpointing(net: nn.Module, name: str, enable: bool) -> None:
    """Turn gradient checkpointing on or off, or refuse."""
    switch = getattr(getattr(net, "model", net), "set_grad_checkpointing", None)
    try:
        if switch is None:
            raise NotImplementedError
        switch(enable)
    except (NotImplementedError, AssertionError) as error:
        if enable:
            raise InputError(
                f"{name!r} has no gradient checkpointing. Lower the batch size, or take another backbone."
            ) from error


def _padded(images: Tensor, multiple: int) -> Tensor:
    height, width = images.shape[-2:]
    down, right = -height % multiple, -width % multiple
    return F.pad(images, (0, right, 0, down)) if down or right else images


def _as_map(x: Tensor, tap: Tap, size: Size, padded: Size) -> Tensor:
    r = tap.level.reduction
    if tap.prefix >= 0:
        # tokens (B, prefix + h * w, C) -> (B, C, h, w)
        h, w = math.ceil(padded[0] / r), math.ceil(padded[1] / r)
        x = x[:, tap.prefix :].transpose(1, 2).unflatten(2, (h, w))
    elif tap.channels_last:
        x = x.permute(0, 3, 1, 2)  # (B, h, w, C) -> (B, C, h, w)
    h, w = math.ceil(size[0] / r), math.ceil(size[1] / r)
    return x if x.shape[-2:] == (h, w) else x[..., :h, :w]
