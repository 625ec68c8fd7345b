"""Depthwise convolutions with a quicker gradient of their weight on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["depthwise_conv2d"]

_MAX_COLUMNS = 3
"""Columns of the widest kernel whose weight's gradient oneDNN computes with its own depthwise code.

A kernel of more columns, and any kernel larger than the map, takes its reference code. Over maps of 1 to 24
positions a side, 5 x 5 and 3 x 3, that took 10 to 100 times as long as 5 x 3 and 3 x 3 over a map with its
border of zeros around it, in bfloat16 35 to 100 times (torch 2.15, Intel Xeon with avx512_bf16, one thread).
"""


def depthwise_conv2d(
    images: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Return what `torch.nn.functional.conv2d` does with a filter a channel, with a quicker gradient.

    The gradient of the weight is computed for three columns of the kernel at a time, over a map with its
    border of zeros around it, and rows and columns of the kernel that only meet that border are left out: the
    same sums in another order. Over a map of one position a kernel of 5 x 5 is one number a channel.

    Args:
        images: `(B, C, H, W)`, float32 or bfloat16, channels-last to gain by it.
        weight: `(C, 1, K, L)`.
        bias: `(C,)` or None.
        stride: Rows and columns between windows.
        padding: Rows and columns of zeros on each side.

    Returns:
        `(B, C, H', W')`.
    """
    rows = _reach(images.shape[2], weight.shape[2], stride[0], padding[0])
    columns = _reach(images.shape[3], weight.shape[3], stride[1], padding[1])
    weight = weight[:, :, rows[0] : rows[1], columns[0] : columns[1]]
    border = padding[0] - rows[0], padding[1] - columns[0]
    # A slice has the strides of the whole, for which oneDNN has slow code only.
    result: Tensor = _Depthwise.apply(images, weight.contiguous(), bias, stride, border)
    return result


def _reach(side: int, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Return the first row of a kernel that meets the map, and the first after it that does not."""
    windows = (side + 2 * padding - kernel) // stride + 1
    begin, end = max(0, padding - (windows - 1) * stride), min(kernel, padding + side)
    # Padding is the same on both sides, so that not every crop leaves as many windows.
    if end <= begin or (side + 2 * (padding - begin) - (end - begin)) // stride + 1 != windows:
        return 0, kernel
    return begin, end


class _Depthwise(torch.autograd.Function):
    """A convolution, and the gradient of its weight by groups of columns."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, bias, stride, padding, 1, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        for_images = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_images = _backward(gradient, images, weight, ctx.stride, ctx.padding, 0)
        if ctx.needs_input_grad[1]:
            for_weight = _weight_gradient(gradient, images, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            for_bias = gradient.sum((0, 2, 3))
        return for_images, for_weight, for_bias, None, None


def _weight_gradient(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    side, windows, kernel = images.shape[2:], gradient.shape[2:], weight.shape[2:]
    above = padding[0] if kernel[0] <= side[0] else 0  # by the convolution itself, in which it costs nothing
    below = (windows[0] - 1) * stride[0] + kernel[0] - side[0] - padding[0]
    outside = (0, 0) if above else (padding[0], below)
    parts: list[Tensor] = []
    for part in weight.split(_MAX_COLUMNS, dim=3):
        begin = sum(done.shape[3] for done in parts) - padding[1]
        # What windows of these columns see: a negative border cuts columns off.
        right = begin + (windows[1] - 1) * stride[1] + part.shape[3] - side[1]
        seen = F.pad(images, (-begin, right, *outside)).contiguous(memory_format=torch.channels_last)
        parts.append(_backward(gradient, seen, part.contiguous(), stride, (above, 0), 1))
    return torch.cat(parts, dim=3)


def _backward(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    which: int,
) -> Tensor:
    """Return the gradient of the images (0) or of the weight (1)."""
    mask = [which == 0, which == 1, False]
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, stride, padding, (1, 1), False, (0, 0), weight.shape[0], mask
    )[which]
    return result
