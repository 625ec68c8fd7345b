"""Convolutions by Winograd's filtering against torch's own, in value and in gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.errors import InputError
from visionkit.nn import winograd
from visionkit.nn.winograd import winograd_conv2d


def both(shape, out, *, dilation=1, bias=True, dtype=torch.float64, layout=torch.channels_last, seed=0):
    """Return (result, gradients of maps, weight and bias) of ours and of torch's, for the same numbers."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=draw, dtype=dtype).contiguous(memory_format=layout)
    weight = torch.randn(out, shape[1], 3, 3, generator=draw, dtype=dtype) / (3 * shape[1] ** 0.5)
    given = [x, weight, *([torch.randn(out, generator=draw, dtype=dtype)] if bias else [])]
    end = torch.randn(shape[0], out, *shape[2:], generator=draw, dtype=dtype)
    told = []
    for convolve in (
        lambda *parts: winograd_conv2d(*parts, dilation=dilation),
        lambda *parts: F.conv2d(*parts, padding=dilation, dilation=dilation),
    ):
        parts = [part.clone().requires_grad_() for part in given]
        made = convolve(*parts)
        told.append((made, *torch.autograd.grad(made, parts, end)))
    return told


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 11), st.integers(1, 11)),
    st.integers(1, 7),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([1, 300, 2**23]),
    st.sampled_from([torch.channels_last, torch.contiguous_format]),
)
def test_values_and_gradients_are_those_of_a_direct_convolution(shape, out, dilation, bias, chunk, layout):
    before, winograd.CHUNK = winograd.CHUNK, chunk
    try:
        ours, theirs = both(shape, out, dilation=dilation, bias=bias, layout=layout)
    finally:
        winograd.CHUNK = before
    assert len(ours) == 3 + bias
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


def test_float32_keeps_its_rounding():
    ours, theirs = both((2, 64, 20, 22), 48, dtype=torch.float32)
    for one, other in zip(ours, theirs, strict=True):
        assert float((one - other).detach().norm() / other.detach().norm()) < 1e-6


def test_bfloat16_rounds_at_most_three_times_as_far_as_a_direct_convolution():
    shape = (3, 256, 14, 17)
    exact = both(shape, 256, dtype=torch.float64)[1]
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw, dtype=torch.float64).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = (torch.randn(256, 256, 3, 3, generator=draw, dtype=torch.float64) / 48).float().requires_grad_()
    bias = torch.randn(256, generator=draw, dtype=torch.float64).float().requires_grad_()
    end = torch.randn(3, 256, 14, 17, generator=draw, dtype=torch.float64).bfloat16()
    made = winograd_conv2d(x, weight, bias)
    ours = (made, *torch.autograd.grad(made, (x, weight, bias), end))
    with torch.autocast("cpu", torch.bfloat16):
        made = F.conv2d(x, weight, bias, padding=1)
    direct = (made, *torch.autograd.grad(made, (x, weight, bias), end))
    assert [part.dtype for part in ours] == [torch.bfloat16] * 2 + [torch.float32] * 2
    for one, other, truth in zip(ours, direct, exact, strict=True):
        wrong, theirs = (float(((part - truth).norm() / truth.norm()).detach()) for part in (one, other))
        assert wrong < max(3 * theirs, 0.005)
        assert wrong < 0.008


def test_only_the_gradients_that_are_asked_for_are_computed():
    x, weight = torch.randn(1, 3, 6, 6), torch.randn(2, 3, 3, 3)
    made = winograd_conv2d(x.requires_grad_(), weight)
    made.sum().backward()
    assert x.grad is not None
    assert weight.grad is None
    winograd_conv2d(x.detach(), weight.requires_grad_()).sum().backward()
    assert weight.grad is not None
    assert not winograd_conv2d(x.detach(), weight.detach()).requires_grad


@pytest.mark.parametrize(
    ("x", "weight"), [((1, 3, 6, 6), (2, 4, 3, 3)), ((1, 3, 6, 6), (2, 3, 5, 5)), ((3, 6, 6), (2, 3, 3, 3))]
)
def test_a_weight_that_does_not_fit_is_named(x, weight):
    with pytest.raises(InputError, match=r"Expected maps \(N, C, H, W\) .* but got"):
        winograd_conv2d(torch.zeros(x), torch.zeros(weight))
