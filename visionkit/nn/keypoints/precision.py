"""Layers whose outputs are coordinates, out of the sixteen bits of mixed precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["full_precision", "widened"]


def full_precision(like: Tensor) -> AbstractContextManager[Any]:
    """Return a block without autocast: eight bits of a coordinate are too few, a pixel in 256.

    Args:
        like: A tensor on the device.
    """
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def widened(value: Tensor) -> Tensor:
    """Return a tensor in float32, or as it is where it is wider."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
