"""Norm layers of backbones and heads under one policy: batch, frozen, sync or group.

Trained weights may be converted only where this is exact: batch to frozen (the same function as in
evaluation) and batch to sync (the same parameters, statistics over all processes). Group norm has other
statistics, so trained batch norms cannot become group norms. Both arms of a comparison have the same norm, as
in He et al., "Rethinking ImageNet Pre-training" (2019).

Statistics of few values remove the information in them. Where a map has one position (after image pooling):

- batch, sync: over the images, B values a channel (sync: of all processes). Normalising two values leaves a
  sign. With one value in training the running statistics are used.
- frozen: the stored statistics, as everywhere.
- group: within an image, over at least 16 channels; where the map of a head always has one position, a bias
  takes the place of the norm.
- layer (in some backbones): over all channels of each position, as everywhere.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.compat import BatchNormBase
from visionkit.config import NormPolicy
from visionkit.distributed import world_size
from visionkit.errors import InputError, unknown_name

__all__ = [
    "FrozenBatchNorm",
    "convert_norms",
    "group_count",
    "make_norm",
    "norm_kinds",
]

_GROUP_CHANNELS = 16  # Wu & He, "Group Normalization" (2018), table 4: the best of 2 to 64 channels a group


class FrozenBatchNorm(nn.Module):
    """Batch norm in evaluation mode always: weight, bias and statistics are buffers.

    The names in the state dict are those of the batch norm it replaces.

    Args:
        norm: The batch norm whose values (and fused dropout and activation, if any) it takes over.
    """

    def __init__(self, norm: BatchNormBase) -> None:
        super().__init__()
        self.eps = norm.eps
        self.num_features = norm.num_features
        self.weight: Tensor | None
        self.bias: Tensor | None
        self.running_mean: Tensor | None
        self.running_var: Tensor | None
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            value = getattr(norm, name, None)
            self.register_buffer(name, None if value is None else value.detach().clone())
        _carry_fused(norm, self)
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(B, C, ...)` by the stored statistics."""
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return _finish(self, y)

    def extra_repr(self) -> str:
        """Return the arguments shown in the module's repr."""
        return f"{self.num_features}, eps={self.eps}"


class _SyncBatchNorm(nn.SyncBatchNorm):
    """Batch norm over all processes; unlike torch's own it also runs on CPUs (gloo)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return _finish(self, super().forward(x))
        synced = self.training and world_size() > 1
        # torch's raises on CPUs whenever a process group exists, even one of a single process
        y = self._across_processes(x) if synced else super(nn.SyncBatchNorm, self).forward(x)
        return _finish(self, y)

    def _across_processes(self, x: Tensor) -> Tensor:
        from torch.distributed.nn.functional import all_reduce

        dims = [0, *range(2, x.dim())]
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        # One message: sums, sums of squares and the count, (2C + 1,). Variances are small differences of
        # large sums, and sixteen bits could not even hold the count.
        count = torch.full((1,), float(x.numel() // x.shape[1]), dtype=torch.float64, device=x.device)
        sums = [part.sum(dims, dtype=torch.float64) for part in (wide, wide.square())]
        total = all_reduce(torch.cat([*sums, count]))
        mean, square = (total[:-1] / total[-1]).chunk(2)
        var = (square - mean.square()).clamp(min=0)
        self._update(mean.detach(), var.detach(), total[-1].detach())
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = torch.rsqrt(var + self.eps)
        y = (wide - mean.to(wide.dtype).view(shape)) * scale.to(wide.dtype).view(shape)
        if self.weight is not None:
            y = torch.addcmul(self.bias.view(shape), y, self.weight.view(shape))
        return y.to(x.dtype)

    def _update(self, mean: Tensor, var: Tensor, total: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked or 1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        unbiased = var * (total / (total - 1).clamp(min=1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


class _GroupNorm(nn.GroupNorm):
    """Group norm with the dropout and the activation that were fused into the batch norm it replaces."""

    def forward(self, input: Tensor) -> Tensor:
        if self.num_channels == self.num_groups and input.shape[2:].numel() == 1:
            # One value less its mean is 0, so only gain and bias are applied.
            shape = [1, -1] + [1] * (input.dim() - 2)
            y = input if self.weight is None else input * self.weight.view(shape) + self.bias.view(shape)
            return _finish(self, y)
        return _finish(self, super().forward(input))


def group_count(channels: int) -> int:
    """Return how many groups a group norm of so many channels has.

    Each has at least 16 channels: the most groups that divide the channels evenly and keep that. Layers of
    fewer than 32 channels, and widths that nothing divides, have one group.
    """
    return next(n for n in range(max(1, channels // _GROUP_CHANNELS), 0, -1) if channels % n == 0)


def _carry_fused(old: nn.Module, new: nn.Module) -> None:
    # timm fuses dropout, activation and an anti-aliasing pool into its batch norms, under these names
    for name in ("drop", "act", "aa"):
        part = getattr(old, name, None)
        if isinstance(part, nn.Module):
            new.add_module(name, part)


def _finish(norm: nn.Module, y: Tensor) -> Tensor:
    for part in norm.children():  # those that `_carry_fused` added, in its order
        y = part(y)
    return y


def make_norm(policy: NormPolicy, channels: int) -> nn.Module:
    """Return a new norm layer for maps `(B, channels, H, W)`.

    A group norm has `group_count(channels)` groups. A new layer has no trained statistics to freeze: under
    "frozen" it is `nn.Identity`, as pyramid and heads of the reference Faster R-CNN with frozen norms have
    no norms.

    Args:
        policy: "batch", "frozen", "sync" or "group".
        channels: Channels of the map.

    Raises:
        InputError: The policy is not one of the four.
    """
    _check(policy)
    if policy == "frozen":
        return nn.Identity()
    if policy == "group":
        return _GroupNorm(group_count(channels), channels)
    return _SyncBatchNorm(channels) if policy == "sync" else nn.BatchNorm2d(channels)


def norm_kinds(module: nn.Module) -> tuple[str, ...]:
    """Return the kinds of norms in a network, sorted, of batch, frozen, group, layer, other and sync."""
    kinds = {_kind(child) for child in module.modules()}
    return tuple(sorted(kind for kind in kinds if kind))


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.SyncBatchNorm):
        return "sync"
    if isinstance(module, BatchNormBase):
        return "batch"
    if isinstance(module, FrozenBatchNorm) or type(module).__name__.startswith("FrozenBatchNorm"):
        return "frozen"
    if isinstance(module, _GroupNorm):
        return "group"  # also where a narrow layer has one group
    if isinstance(module, nn.GroupNorm):
        # one group over channels is what channels-first "layer norms" are often built from
        return "group" if module.num_groups > 1 else "layer"
    name = type(module).__name__
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) or "LayerNorm" in name or "RmsNorm" in name:
        return "layer"
    return "other" if "Norm" in name and not list(module.children()) else ""


def convert_norms(module: nn.Module, policy: NormPolicy, *, trained: bool) -> nn.Module:
    """Put every batch norm of a network under a policy; other norms stay as they are.

    Args:
        module: The network; changed in place.
        policy: "batch", "frozen", "sync" or "group".
        trained: Whether its weights are trained: then only exact conversions are allowed.

    Returns:
        The same network (a new module only when the network itself is a batch norm).

    Raises:
        InputError: Group norm for trained batch norms, or frozen norms on random weights.
    """
    _check(policy)
    if not any(isinstance(child, BatchNormBase) for child in module.modules()):
        return module
    if policy == "group" and trained:
        raise InputError(
            "Trained batch norms cannot become group norms: their statistics would be lost. With trained "
            "weights the norms are 'batch', 'frozen' or 'sync'. For 'group' start from scratch, or take a "
            "backbone trained with group norms."
        )
    if policy == "frozen" and not trained:
        raise InputError(
            "Frozen batch norms on random weights do not normalise at all. From scratch the norms are "
            "'batch', 'sync' or 'group'. For 'frozen' start from pretrained weights or a weights file."
        )
    return module if policy == "batch" else _convert(module, policy)


def _convert(module: nn.Module, policy: NormPolicy) -> nn.Module:
    if isinstance(module, BatchNormBase):
        return _replacement(module, policy)
    for name, child in list(module.named_children()):
        new = _convert(child, policy)
        if new is not child:
            setattr(module, name, new)
    return module


def _replacement(norm: BatchNormBase, policy: NormPolicy) -> nn.Module:
    if policy == "sync" and isinstance(norm, nn.SyncBatchNorm):
        return norm
    if policy == "frozen":
        return FrozenBatchNorm(norm)
    affine = norm.weight is not None
    device = next((t.device for t in (norm.weight, norm.running_mean) if t is not None), torch.device("cpu"))
    new: nn.Module
    if policy == "group":
        groups = group_count(norm.num_features)
        new = _GroupNorm(groups, norm.num_features, norm.eps, affine, device=device)
        if affine:  # a zero-initialised last gain of a residual block stays zero
            new.weight, new.bias = norm.weight, norm.bias
    else:
        sync = _SyncBatchNorm(
            norm.num_features, norm.eps, norm.momentum, affine, norm.track_running_stats, device=device
        )
        sync.weight, sync.bias = norm.weight, norm.bias
        sync.running_mean, sync.running_var = norm.running_mean, norm.running_var
        sync.num_batches_tracked = norm.num_batches_tracked
        new = sync
    _carry_fused(norm, new)
    new.train(norm.training)
    return new


def _check(policy: str) -> None:
    if policy not in get_args(NormPolicy):
        raise unknown_name("norm policy", policy, get_args(NormPolicy))
