"""The arithmetic of layers: the lecture's examples, torch's own layers, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from visionkit.errors import InputError
from visionkit.interpret import (
    Field,
    Window,
    multiply_adds,
    output_size,
    parameters,
    receptive_field,
    same_padding,
    transposed_output_size,
)


def test_the_lecture_s_examples():
    # 7 wide, filter 3
    assert output_size(7, kernel_size=3) == 5
    assert output_size(7, kernel_size=3, stride=2) == 3
    with pytest.raises(InputError, match=r"\(7 - 3\) / 3 \+ 1 = 2\.33 is no integer"):
        output_size(7, kernel_size=3, stride=3)
    assert output_size(7, kernel_size=3, stride=1, padding=1) == 7
    # 32x32x3 with ten 5x5 filters, stride 1, padding 2
    assert output_size(32, kernel_size=5, padding=same_padding(5)) == 32
    assert parameters(3, out_channels=10, kernel_size=5) == 760
    assert multiply_adds(3, out_channels=10, kernel_size=5, output=32) == 32 * 32 * 10 * 75
    # shrinking without padding: 32 -> 28 -> 24
    assert output_size(output_size(32, kernel_size=5), kernel_size=5) == 24
    # pooling 2x2 with stride 2 has no parameters and halves the sides
    assert output_size(224, kernel_size=2, stride=2) == 112
    # AlexNet's first layer: 227, 96 filters of 11 with stride 4; 35 K parameters
    assert output_size(227, kernel_size=11, stride=4) == 55
    assert parameters(3, out_channels=96, kernel_size=11, bias=False) == 34_848
    # three layers of 3 see what one of 7 sees, with fewer parameters
    assert receptive_field([Window(3)] * 3) == receptive_field([Window(7)])
    assert 3 * parameters(64, out_channels=64, kernel_size=3) < parameters(64, out_channels=64, kernel_size=7)


@pytest.mark.parametrize(("count", "side"), [(1, 3), (2, 3), (5, 3), (4, 5), (3, 7)])
def test_layers_of_one_size_see_one_and_as_many_times_the_rest(count, side):
    assert receptive_field([Window(side)] * count).size == 1 + count * (side - 1)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3))
def test_sizes_are_torch_s(size, kernel, stride, padding, dilation):
    layer = nn.Conv2d(1, 1, kernel, stride, padding, dilation, device="meta")
    given_ = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    image = torch.empty(1, 1, size, size, device="meta")
    try:
        expected = layer(image).shape[-1]
    except RuntimeError:
        with pytest.raises(InputError, match="Expected a filter that fits, but it is"):
            output_size(size, rounding="floor", **given_)
        return
    assert output_size(size, rounding="floor", **given_) == expected
    if (size + 2 * padding - dilation * (kernel - 1) - 1) % stride == 0:
        assert output_size(size, **given_) == expected
        # turned round, it gives the size back
        assert transposed_output_size(expected, **given_) == size
    if padding <= kernel // 2:
        pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=True)
        assert output_size(size, rounding="ceil", **given_) == pool(image).shape[-1]


@given(
    st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.integers(1, 3),
    st.integers(0, 3),
)  # fmt: skip
def test_transposed_sizes_are_torch_s(size, kernel, stride, padding, dilation, extra):
    given_ = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    layer = nn.ConvTranspose2d(
        1, 1, output_padding=extra, **given_
    )  # on "meta" not every torch checks the padding
    try:
        expected = layer(torch.zeros(1, 1, size, size)).shape[-1]
    except RuntimeError:
        with pytest.raises(InputError):
            transposed_output_size(size, output_padding=extra, **given_)
        return
    assert transposed_output_size(size, output_padding=extra, **given_) == expected


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
)
def test_parameters_are_torch_s(in_groups, out_groups, height, width, groups, bias):
    channels, filters = in_groups * groups, out_groups * groups
    layer = nn.Conv2d(channels, filters, (height, width), groups=groups, bias=bias)
    count = parameters(channels, out_channels=filters, kernel_size=(height, width), groups=groups, bias=bias)
    assert count == sum(p.numel() for p in layer.parameters())
    turned = nn.ConvTranspose2d(channels, filters, (height, width), groups=groups, bias=bias)
    assert count == sum(p.numel() for p in turned.parameters())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: output_size(3, kernel_size=5), "5 pixels wide and the input is 3. Take a smaller filter"),
        (
            lambda: output_size(3, kernel_size=3, dilation=3, padding=1),
            r"7 pixels wide \(3 values, dilation 3\)",
        ),
        (lambda: output_size(0, kernel_size=1), "size to be at least 1"),
        (lambda: output_size(7, kernel_size=3, padding=-1), "padding to be at least 0"),
        (lambda: same_padding(4), "odd kernel_size"),
        (lambda: parameters(6, out_channels=4, groups=4), "4 does not divide 6 and 4"),
        (lambda: transposed_output_size(1, kernel_size=1, padding=2), "padding 2 leaves -3"),
        (lambda: transposed_output_size(3, kernel_size=3, stride=2, output_padding=2), "below the stride 2"),
        (lambda: Window(3, stride=0), "stride to be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_positions_of_a_field():
    field = receptive_field([Window(7, 2, 3), Window(3, 2, 1), Window(3, 1, 1)])  # the beginning of a ResNet
    assert (field.size, field.stride, field.start, field.center) == (19, 4, -9, 0)
    assert field.pixels(0, size=64) == (0, 10)
    assert field.pixels(5, size=64) == (11, 30)
    assert field.over(3) == Field(27, 12, -9)
    assert field.joined(Field(7, 4, -3)) == field
