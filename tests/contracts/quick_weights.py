"""Random weights for a walk over hundreds of networks, drawn a block at a time: filling costs a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

BLOCK = 4096


@contextmanager
def quick_weights() -> Iterator[None]:
    """Let `uniform_` and `normal_` repeat 4,096 draws in large tensors, which `erfinv_` leaves alone.

    Half of the time of building a large network goes into drawing each of its weights on its own.
    Shapes, gradients and finite numbers do not need that.
    """
    patch = pytest.MonkeyPatch()
    try:
        for name in ("uniform_", "normal_"):
            patch.setattr(Tensor, name, _repeated(getattr(Tensor, name)))
        patch.setattr(Tensor, "erfinv_", _small_only(Tensor.erfinv_))
        yield
    finally:
        patch.undo()


def _large(tensor: Tensor) -> bool:
    return tensor.numel() > BLOCK and tensor.is_contiguous() and not tensor.is_meta


def _repeated(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def fill(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not _large(self):
            return draw(self, *args, **kwargs)
        block = draw(torch.empty(BLOCK, dtype=self.dtype), *args, **kwargs)
        with torch.no_grad():
            flat, whole = self.view(-1), self.numel() // BLOCK
            flat[: whole * BLOCK].view(whole, BLOCK).copy_(block.expand(whole, BLOCK))
            flat[whole * BLOCK :].copy_(block[: self.numel() - whole * BLOCK])
        return self

    return fill


def _small_only(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def keep(self: Tensor) -> Tensor:
        return self if _large(self) else change(self)

    return keep
