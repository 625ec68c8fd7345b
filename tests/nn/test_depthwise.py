"""Depthwise convolutions with the quicker gradient: what torch computes, over any sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from visionkit.nn.depthwise import depthwise_conv2d

SIDES = st.integers(1, 9)


def leaves(channels: int, side: tuple[int, int], kernel: tuple[int, int]) -> list[Tensor]:
    """Images, weight and bias in float64."""
    images = torch.randn(2, channels, *side, dtype=torch.float64).contiguous(
        memory_format=torch.channels_last
    )
    weight, bias = torch.randn(channels, 1, *kernel, dtype=torch.float64), torch.randn(channels).double()
    return [value.requires_grad_() for value in (images, weight, bias)]


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from((1, 3, 17)),
    st.tuples(SIDES, SIDES),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_it_is_the_convolution_of_torch(channels, side, kernel, stride, padding):
    # torch refuses a kernel larger than the padded map
    assume(all(one + 2 * pad >= size for one, pad, size in zip(side, padding, kernel, strict=True)))
    values = leaves(channels, side, kernel)
    truth = F.conv2d(*values, stride, padding, 1, channels)
    ours = depthwise_conv2d(*values, stride, padding)
    up = torch.randn_like(truth)
    expected = (truth, *torch.autograd.grad(truth, values, up))
    for one, other in zip((ours, *torch.autograd.grad(ours, values, up)), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-10)


@pytest.mark.parametrize("side", [1, 2, 6])
def test_its_gradient_has_a_gradient(side):
    values = leaves(2, (side, side), (5, 5))
    assert torch.autograd.gradgradcheck(lambda *all: depthwise_conv2d(*all, (1, 1), (2, 2)), values)


def test_what_onednn_is_asked_for_has_a_quick_kernel(monkeypatch):
    """No kernel of more than three columns, and none larger than its map, for the gradient of a weight."""
    asked: list[tuple[Any, ...]] = []
    real = torch.ops.aten.convolution_backward

    def spy(gradient, images, weight, *rest):
        if rest[-1][1]:
            asked.append((tuple(images.shape[2:]), tuple(weight.shape[2:]), rest[2]))
        return real(gradient, images, weight, *rest)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", spy)
    for side, kernel in ((6, 7), (6, 5), (3, 5), (2, 5), (2, 3), (1, 5), (1, 3)):
        values = leaves(2, (side, side), (kernel, kernel))
        depthwise_conv2d(*values, (1, 1), (kernel // 2, kernel // 2)).sum().backward()
    assert len(asked) == 3 + 2 + 2 + 1 + 1 + 1 + 1  # over 2 and 1 positions the kernel is 3 x 3 and 1 x 1
    for side, kernel, padding in asked:
        assert kernel[1] <= 3
        assert kernel[1] <= side[1]
        assert kernel[0] <= side[0]
        assert padding[1] == 0
