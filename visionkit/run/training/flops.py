"""Multiply-adds of a network, counted by kind of layer in one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["count_multiply_adds"]


def count_multiply_adds(net: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the multiply-adds of one image's forward pass by kind of layer.

    "dense": convolutions without groups, and linear layers; "grouped": convolutions with more than one
    channel a group; "depthwise": those with one.

    The network runs once in evaluation mode, without gradients; its modes and torch's generator are left as
    they were.

    Args:
        net: Takes `(B, C, H, W)` floats.
        shape: `(C, H, W)` of the image.
    """
    counts = {"dense": 0, "grouped": 0, "depthwise": 0}

    def conv(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight, groups = module.weight, int(module.groups)  # type: ignore[arg-type]
        per_value = weight[0].numel() if isinstance(weight, Tensor) else 0
        kind = "dense" if groups == 1 else "depthwise" if groups == inputs[0].shape[1] else "grouped"
        counts[kind] += output[0].numel() * per_value

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
    return counts
