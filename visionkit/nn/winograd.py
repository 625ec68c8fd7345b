"""Convolutions of 3 x 3 by Winograd's minimal filtering: 16 products for four positions instead of 36."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionkit.errors import InputError

__all__ = ["winograd_conv2d"]

# Samples that are worked on at once: those of both sides fit a cache of 32 MiB in bfloat16.
CHUNK = 8 * 2**20
# F(2 x 2, 3 x 3) of the source: along one side, four samples of a map, times those of the weight (G), make
# two results (A). What is called B there, the samples of a map, stands in `_samples`.
_G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_A = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]])
_ONES = 5  # the sample that stands with +1 in all four results
_AS_IT_IS, _FLIPPED = (0, 1, 2, 3), (3, 1, 2, 0)  # where the samples go; a mirrored weight has them so


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, dilation: int = 1) -> Tensor:
    """Convolve 3 x 3, with stride 1 and as much padding as dilation, by 16 products where others make 36.

    Both passes, for maps of many channels on a CPU. In bfloat16 results and gradients differ from the exact
    ones about twice as much as those of a direct convolution, because sums of four inputs, and of nine
    weights, are rounded before they are multiplied; in wider types the difference is rounding all the same.

    Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016.

    Args:
        x: Maps (N, C, H, W), best channels-last; their type is that of the arithmetic.
        weight: (K, C, 3, 3), of the same or a wider type.
        bias: (K,), or none.
        dilation: Step between the positions that a weight takes in.

    Returns:
        Maps (N, K, H, W), channels-last, of the type of `x`.

    Raises:
        InputError: The weight does not fit the maps.
    """
    if x.dim() != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise InputError(
            f"Expected maps (N, C, H, W) and a weight (K, C, 3, 3), but got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}."
        )
    made: Tensor = _Convolution.apply(x, weight, bias, dilation)
    return made


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            maps = _phases(x, dilation)
            sampled = _sample_weight(weight, x.dtype)
            ctx.save_for_backward(x, sampled)
            ctx.dilation, ctx.types = dilation, (weight.dtype, None if bias is None else bias.dtype)
            made, results = _results(x, len(weight), dilation)
            for part, out in _chunks(maps, results):
                products = torch.bmm(_sample(part, _AS_IT_IS), sampled.mT)
                if bias is not None:
                    products[_ONES] += bias.to(x.dtype)
                _join(products, out, _AS_IT_IS)
            return _from_phases(results, made, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, sampled = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        for_x = for_weight = for_bias = None
        with torch.autocast(x.device.type, enabled=False):
            ends = _phases(gradient, ctx.dilation)
            if to_x:
                made, results = _results(x, x.shape[1], ctx.dilation)
                for part, out in _chunks(ends, results):
                    _join(torch.bmm(_sample(part, _FLIPPED), sampled), out, _FLIPPED)
                for_x = _from_phases(results, made, ctx.dilation)
            if to_weight:
                for_weight = _weight_gradient(_phases(x, ctx.dilation), ends)
                for_weight = for_weight.to(ctx.types[0], memory_format=torch.channels_last)  # as weights lie
            if to_bias:
                for_bias = gradient.sum((0, 2, 3), dtype=torch.promote_types(gradient.dtype, torch.float32))
                for_bias = for_bias.to(ctx.types[1])
        return for_x, for_weight, for_bias, None


def _phases(x: Tensor, dilation: int) -> Tensor:
    """Return (N, C, H, W) as (D * D * N, H / D, W / D, C), where a dilated weight joins neighbours."""
    maps = x.permute(0, 2, 3, 1)
    if dilation == 1:
        return maps.contiguous()
    n, h, w, c = maps.shape
    maps = F.pad(maps, (0, 0, 0, -w % dilation, 0, -h % dilation))
    maps = maps.view(n, -(-h // dilation), dilation, -(-w // dilation), dilation, c)
    return maps.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def _results(like: Tensor, channels: int, dilation: int) -> tuple[Tensor, Tensor]:
    """Return empty maps (N, channels, H, W) and the maps to compute: without dilation the same memory."""
    n, _, h, w = like.shape
    made = torch.empty(
        (n, channels, h, w), dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
    if dilation == 1:
        return made, made.permute(0, 2, 3, 1)
    return made, made.new_empty(n * dilation**2, -(-h // dilation), -(-w // dilation), channels)


def _from_phases(results: Tensor, made: Tensor, dilation: int) -> Tensor:
    """Write computed maps where they belong."""
    if dilation > 1:
        n, c, h, w = made.shape
        maps = made.permute(0, 2, 3, 1)
        _, down, across, _ = results.shape
        exact = (h, w) == (down * dilation, across * dilation)
        whole = maps if exact else made.new_empty(n, down * dilation, across * dilation, c)
        parts = whole.view(n, down, dilation, across, dilation, c).permute(2, 4, 0, 1, 3, 5)
        parts.copy_(results.view(parts.shape))
        if not exact:
            maps.copy_(whole[:, :h, :w])
    return made


def _chunks(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Go through maps (N, H, W, C) together, a few pictures at a time.

    Each time the weight is read as a whole, so there are no fewer tiles than channels.
    """
    _, h, w, c = min((one.shape for one in maps), key=lambda shape: shape[3])
    tiles = -(-h // 2) * -(-w // 2)
    count = max(CHUNK // max(16 * tiles * one.shape[3] for one in maps), -(-c // tiles))
    return zip(*(one.split(count) for one in maps), strict=True)


def _samples(parts: list[Tensor], out: Tensor, places: tuple[int, ...]) -> None:
    first, second, third, fourth = parts
    torch.sub(first, third, out=out[places[0]])
    torch.add(second, third, out=out[places[1]])
    torch.sub(third, second, out=out[places[2]])
    torch.sub(second, fourth, out=out[places[3]])


def _sample(maps: Tensor, places: tuple[int, ...]) -> Tensor:
    """Return the 4 x 4 samples of every tile of 2 x 2 positions, (16, tiles, C); x goes before y."""
    n, h, w, c = maps.shape
    down, across = -(-h // 2), -(-w // 2)
    maps = F.pad(maps, (0, 0, 1, 1 + 2 * across - w, 1, 1 + 2 * down - h))
    rows = maps.new_empty(4, n, down, 2 * across + 2, c)
    _samples([maps[:, i : i + 2 * down - 1 : 2] for i in range(4)], rows, places)
    out = maps.new_empty(4, 4, n, down, across, c)
    _samples([rows[:, :, :, i : i + 2 * across - 1 : 2] for i in range(4)], out, places)
    return out.view(16, n * down * across, c)


def _join(products: Tensor, out: Tensor, places: tuple[int, ...]) -> None:
    """Write the results of all tiles, made of their 16 products, into maps (N, H, W, K)."""
    n, h, w, k = out.shape
    down, across = -(-h // 2), -(-w // 2)
    mix = _A[:, list(places)].to(products)
    tiles = (torch.kron(mix, mix) @ products.flatten(1)).view(2, 2, n, down, across, k)
    whole = out if (h, w) == (2 * down, 2 * across) else out.new_empty(n, 2 * down, 2 * across, k)
    whole.view(n, down, 2, across, 2, k).copy_(tiles.permute(2, 3, 1, 4, 0, 5))
    if whole is not out:
        out.copy_(whole[:, :h, :w])


def _sample_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the samples of a weight, (16, K, C)."""
    kinds = _G.to(weight)
    flat = weight.permute(3, 2, 0, 1).reshape(9, -1)
    return (torch.kron(kinds, kinds) @ flat).to(dtype).view(16, *weight.shape[:2])


def _weight_gradient(maps: Tensor, ends: Tensor) -> Tensor:
    """Return the gradient of a weight, (K, C, 3, 3)."""
    mix, wide = _A.to(maps), torch.promote_types(maps.dtype, torch.float32)
    k, c = ends.shape[-1], maps.shape[-1]
    total = maps.new_zeros(1)
    for part, end in _chunks(maps, ends):
        n, h, w, _ = end.shape
        end = F.pad(end, (0, 0, 0, w % 2, 0, h % 2))
        tiles = end.view(n, -(-h // 2), 2, -(-w // 2), 2, k).permute(4, 2, 0, 1, 3, 5).reshape(4, -1)
        spread = (torch.kron(mix, mix).mT @ tiles).view(16, -1, k)
        product = torch.bmm(spread.mT, _sample(part, _AS_IT_IS)).flatten(1)
        # sums over pictures are not rounded again and again
        total = product if len(part) == len(maps) else total + product.to(wide)
    kinds = _G.to(total)
    flat = torch.kron(kinds, kinds).mT @ total
    return flat.view(3, 3, k, c).permute(2, 3, 1, 0)
