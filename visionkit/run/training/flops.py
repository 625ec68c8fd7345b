"""How a network's arithmetic is made up: asked of the network itself, by one forward."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Arithmetic", "count_arithmetic"]


@dataclass(frozen=True)
class Arithmetic:
    """Multiply-adds of one image's forward, by the kind of layer.

    Args:
        dense: In convolutions without groups and in linear layers.
        grouped: In convolutions with more than one channel a group.
        depthwise: In convolutions with one channel a group.
        moved: Values that convolutions with groups read and write: what bounds them.
    """

    dense: int
    grouped: int
    depthwise: int
    moved: int

    @property
    def total(self) -> int:
        """Multiply-adds in all."""
        return self.dense + self.grouped + self.depthwise

    def as_dict(self) -> dict[str, int]:
        """Return the counts as plain values."""
        return asdict(self)


def count_arithmetic(net: nn.Module, shape: tuple[int, int, int]) -> Arithmetic:
    """Return the arithmetic of `net` for one image.

    The network runs once in evaluation mode, without gradients; its modes and torch's generator are left as
    they were.

    Args:
        net: Takes `(B, C, H, W)` floats.
        shape: `(C, H, W)` of the image.
    """
    counts = dict.fromkeys(("dense", "grouped", "depthwise", "moved"), 0)

    def conv(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight, groups = module.weight, int(module.groups)  # type: ignore[arg-type]
        per_value = weight[0].numel() if isinstance(weight, Tensor) else 0
        kind = "dense" if groups == 1 else "depthwise" if groups == inputs[0].shape[1] else "grouped"
        counts[kind] += output[0].numel() * per_value
        if groups > 1:
            counts["moved"] += output[0].numel() + inputs[0][0].numel()

    def linear(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts["dense"] += output[0].numel() * inputs[0].shape[-1]

    handles = []
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            handles.append(part.register_forward_hook(conv))
        elif isinstance(part, nn.Linear):
            handles.append(part.register_forward_hook(linear))
    modes = {part: part.training for part in net.modules()}
    first: Any = next(iter(net.parameters()), torch.zeros(1))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            net.eval()(torch.zeros(1, *shape, dtype=first.dtype, device=first.device))
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in modes.items():
            part.training = mode
    return Arithmetic(**counts)
