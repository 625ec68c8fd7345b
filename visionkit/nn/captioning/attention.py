"""Soft attention over a grid, for several sentences an image at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["AdditiveAttention", "doubly_stochastic"]


class AdditiveAttention(nn.Module):
    """Attend to the cells of a grid: `score . tanh(key + query)`, softmax over cells.

    The grid's projection does not depend on the words, so it is made once an image (`keys`) and not once a
    word. Beams and samples of one image share it without a copy.

    Args:
        channels: Channels of the grid.
        query: Width of the query.
        hidden: Hidden size of the attention: that of projected grid and query.

    Bahdanau et al., ICLR 2015; for captions Xu et al., "Show, Attend and Tell", ICML 2015.
    """

    def __init__(self, channels: int, *, query: int, hidden: int) -> None:
        super().__init__()
        self.key = nn.Linear(channels, hidden)
        self.query = nn.Linear(query, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def keys(self, grid: Tensor) -> Tensor:
        """Project a grid `(B, L, C)` once: `(B, L, A)`."""
        return self.key(grid)  # type: ignore[no-any-return]

    def forward(self, query: Tensor, grid: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted mean of the grid and its weights.

        Args:
            query: `(B * K, Q)`, the K sentences of an image next to each other.
            grid: `(B, L, C)`.
            keys: `(B, L, A)` from `keys`.

        Returns:
            Context `(B * K, C)` and weights `(B * K, L)`, which sum to one.
        """
        images, cells, _ = grid.shape
        projected = self.query(query).view(images, -1, 1, keys.shape[-1])  # (B, K, 1, A)
        if keys.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            scores = _scores_by_image(projected, keys, self.score.weight[0])
        else:
            scores = self.score(_tanh_of_sum(projected, keys.unsqueeze(1))).squeeze(-1)  # (B, K, L)
        weights = scores.softmax(dim=-1)
        context = torch.bmm(weights.to(grid.dtype), grid)  # (B, K, C)
        return context.flatten(0, 1), weights.view(-1, cells)


def _scores_by_image(query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """Return `weight . tanh(query + keys)` `(B, K, L)` in 32 bits or more, an image at a time, in cache.

    As `tanh(x) = 2 sigmoid(2x) - 1`, the sum over sigmoids is scaled and shifted once (see `_TanhOfHalf`).
    """
    with torch.autocast("cpu", enabled=False):
        dtype = torch.promote_types(keys.dtype, torch.float32)
        doubled, weight = 2 * query.to(dtype), weight.to(dtype)
        pairs = zip(doubled, keys.to(dtype).unsqueeze(1), strict=True)  # (K, 1, A) and (1, L, A)
        sums = [torch.add(query_row, key, alpha=2).sigmoid_() @ weight for query_row, key in pairs]
        return 2 * torch.stack(sums) - weight.sum()


def _tanh_of_sum(query: Tensor, keys: Tensor) -> Tensor:
    """Return `tanh(query + keys)`, the largest tensor of a step: made in place, and quickly on CPUs."""
    if keys.device.type != "cpu" or keys.dtype != torch.float32 or torch.compiler.is_compiling():
        return (keys + query).tanh_()
    return _TanhOfHalf.apply(torch.add(2 * query, keys, alpha=2))  # type: ignore[no-any-return]


class _TanhOfHalf(torch.autograd.Function):
    """`tanh(x / 2)` in place, as `2 sigmoid(x) - 1`: torch has a sigmoid five times as fast as its tanh."""

    @staticmethod
    def forward(ctx: Any, doubled: Tensor) -> Tensor:
        ctx.mark_dirty(doubled)
        torch.add(doubled.new_tensor(-1.0), doubled.sigmoid_(), alpha=2, out=doubled)
        ctx.save_for_backward(doubled)
        return doubled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        back: Tensor = torch.ops.aten.tanh_backward(grad, out)
        return back.mul_(0.5)


def doubly_stochastic(weights: Tensor, valid: Tensor) -> Tensor:
    """Return the penalty for cells to which a sentence attends more or less than once.

    Args:
        weights: `(B, T, L)` attention of each word.
        valid: `(B, T)` bool, true where there is a word.

    Returns:
        `()`: mean over images of the sum over cells of `(1 - sum over words) ** 2`.

    Xu et al., "Show, Attend and Tell", ICML 2015, section 4.2.1.
    """
    coverage = (weights * valid.unsqueeze(-1)).sum(dim=1)  # (B, L)
    return (1 - coverage).square().sum(dim=1).mean()
