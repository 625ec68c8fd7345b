"""Depthwise convolutions in 32 bits under mixed precision on a CPU, where their 16-bit kernels are slower."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["widen_depthwise"]


class _Wide:
    """Runs the convolution it is mixed into in 32 bits, whatever autocast asks for."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = super().forward(x.float())  # type: ignore[misc]
        return out


def widen_depthwise(module: nn.Module) -> int:
    """Let the depthwise convolutions of a module compute in 32 bits, and return how many there are.

    In bfloat16 their backward pass is several times slower than in 32 bits on CPUs (oneDNN has no fast kernel
    for it), while dense convolutions and linear layers are twice as fast in bfloat16. Parameters, their names
    and `isinstance` stay as they are.

    Args:
        module: Changed in place.
    """
    count = 0
    for child in module.modules():
        dense = not isinstance(child, nn.Conv2d) or child.groups == 1 or child.groups != child.in_channels
        if dense or isinstance(child, _Wide):
            continue
        kind: Any = type(child)
        child.__class__ = type(f"Wide{kind.__name__}", (_Wide, kind), {})
        count += 1
    return count
