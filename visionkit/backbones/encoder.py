"""An encoder: an image becomes one vector."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from visionkit.backbones.backbone import Backbone, blocks_of, check_size, switch_checkpointing
from visionkit.backbones.sources.base import Plan, Size
from visionkit.backbones.stages import Block, Freezer, Stage, Through, find_stages, freeze
from visionkit.backbones.weights import WeightsInfo

__all__ = ["Encoder", "PooledLevel"]


class PooledLevel(nn.Module):
    """The average over the map of one level: what a probe from a chosen level reads.

    Args:
        backbone: A backbone with that level alone.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model: Backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, channels)` for normalised images `(B, C, H, W)`."""
        maps = self.model(images)
        return cast(Tensor, maps[-1].mean((2, 3)))  # (B, C, h, w) -> (B, C)


class Encoder(nn.Module):
    """A network that gives one vector per image; made by `create_encoder`.

    It keeps every trained parameter before the classifier, conv heads and final norms included: a network cut
    for maps lacks them, and would handicap the pretrained arm of a comparison.

    Args:
        net: `images -> (B, dim)`.
        plan: What the network turned out to be.
        dim: Length of the vector.
        name: The name it was asked for by.
        mean: Mean per channel that images in [0, 1] are normalised by.
        std: Deviation per channel.
        weights: Where its weights came from.
        head: The classifier that was taken off.
        stage_maps: Makes, over `net`, a module that gives every map, and says their reductions.
    """

    def __init__(
        self,
        net: nn.Module,
        plan: Plan,
        *,
        dim: int,
        name: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        weights: WeightsInfo,
        head: nn.Module | None,
        stage_maps: Callable[[nn.Module], tuple[nn.Module, Sequence[int]]],
    ) -> None:
        super().__init__()
        self.net = net
        self.dim = dim
        self.name = name
        self.made_by: dict[str, Any] = {}
        self.mean, self.std, self.weights = mean, std, weights
        self.fixed_size: Size | None = plan.fixed_size
        self._plan = plan
        self._stage_maps = stage_maps
        self._stages: list[Stage] | None = None
        self._blocks: list[Block] | None = None
        self._freezer = Freezer(net)
        # in a tuple, so that an unused classifier is no parameter of the encoder
        self._head = (_as_linear(head, dim),)

    def forward(self, images: Tensor) -> Tensor:
        """Return vectors `(B, dim)` for normalised images `(B, C, H, W)`.

        Raises:
            InputError: The network does not take this image size.
        """
        check_size(self, images.shape[-2], images.shape[-1])
        return cast(Tensor, self.net(images))

    def pretrained_head(self) -> nn.Linear | None:
        """Return a copy of the weights' own classifier `dim -> classes`; None when it is not linear.

        From scratch it has the same shape and random weights (a checkpoint fills them).
        """
        return copy.deepcopy(self._head[0])

    def stages(self) -> list[Stage]:
        """Return the parameters by level, fine to coarse: pairs of reduction and names, found by autograd.

        What lies behind the last level (conv head, final norm) is one more stage, listed with twice its
        reduction.
        """
        if self._stages is None:
            own = {id(p): f"net.{n}" for n, p in self.net.named_parameters()}
            maps: nn.Module
            if isinstance(self.net, PooledLevel):
                maps, found = self.net.model, self.net.model.stages()
            else:
                maps, reductions = self._stage_maps(self.net)
                size = self._plan.traced_size
                found = find_stages(maps, reductions, size, len(self.mean)) if reductions else []
            inner = dict(maps.named_parameters())
            stages = [Stage(s.reduction, [own[id(inner[n])] for n in s.parameters]) for s in found]
            taken = {name for stage in stages for name in stage.parameters}
            rest = [name for name in own.values() if name not in taken]
            if rest:
                stages.append(Stage(2 * max((s.reduction for s in stages), default=16), rest))
            self._stages = stages
        return self._stages

    def blocks(self) -> list[Block]:
        """Return the parameters by block, first to last, where all blocks share one reduction; else none."""
        if self._blocks is None:
            self._blocks = blocks_of(self)
        return self._blocks

    def freeze_through(self, reduction: Through) -> None:
        """Freeze parameters, running statistics and dropout up to a reduction, and unfreeze the others.

        It survives `.train()`.

        Args:
            reduction: The coarsest stage to freeze, or where all blocks share one reduction the share of them
                (0.5: embeddings and the first half); 0 unfreezes everything, "all" freezes everything.

        Raises:
            InputError: There is no such stage, or the weights are random.
        """
        freeze(self, self._freezer, reduction)

    def train(self, mode: bool = True) -> Encoder:
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


def _as_linear(head: nn.Module | None, dim: int) -> nn.Linear | None:
    if isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1):
        linear = nn.Linear(
            head.in_channels, head.out_channels, bias=head.bias is not None, device=head.weight.device
        )
        linear.weight.data = head.weight.data.flatten(1)  # (K, C, 1, 1) -> (K, C)
        if head.bias is not None:
            linear.bias.data = head.bias.data
        head = linear
    if not isinstance(head, nn.Linear) or list(head.children()) or head.in_features != dim:
        return None
    wide, device = head.out_features, head.weight.device
    linear = nn.Linear(dim, wide, bias=head.bias is not None, device=device)
    linear.load_state_dict(head.state_dict())
    return linear
