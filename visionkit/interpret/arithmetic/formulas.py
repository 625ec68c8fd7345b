"""The arithmetic of layers: output sizes, parameters, multiply-adds, receptive fields. No torch.

Names of arguments are torch's. Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural
Networks, Distill 2019, doi 10.23915/distill.00021; Dumoulin, Visin: A guide to convolution arithmetic for
deep learning, arXiv 1603.07285.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from visionkit.errors import InputError, expected

__all__ = [
    "Field",
    "Window",
    "multiply_adds",
    "output_size",
    "parameters",
    "receptive_field",
    "same_padding",
    "transposed_output_size",
]

Rounding = Literal["exact", "floor", "ceil"]
Pair = int | tuple[int, int]


def output_size(
    size: int,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    rounding: Rounding = "exact",
) -> int:
    """Return the side of a convolution's or a pooling's output.

    `(N - F + padding) / stride + 1`, where `F = dilation * (kernel_size - 1) + 1` pixels are what the filter
    spans.

    Args:
        size: Side of the input, `N`.
        kernel_size: Side of the filter.
        stride: Steps of the filter.
        padding: Pixels added at each end, or at the two ends.
        dilation: Distance of the filter's values.
        rounding: "exact" refuses a filter whose steps do not end at the border; "floor" leaves the last
            pixels out, as torch's layers do; "ceil" lets the last step of a pooling reach over the border
            (`ceil_mode=True`).

    Raises:
        InputError: The filter is larger than the input, or (exact) its steps do not fit.
    """
    _check(size=size, kernel_size=kernel_size, stride=stride, dilation=dilation)
    begin, end = padding if isinstance(padding, tuple) else (padding, padding)
    _check(0, padding=min(begin, end))
    span, padded = dilation * (kernel_size - 1) + 1, size + begin + end
    if span > padded:
        wide = f"{span} pixels wide" + (
            f" ({kernel_size} values, dilation {dilation})" if dilation > 1 else ""
        )
        raise InputError(
            f"Expected a filter that fits, but it is {wide} and the input is {size}"
            + (f", {padded} with its padding" if padded != size else "")
            + ". Take a smaller filter or more padding."
        )
    steps, rest = divmod(padded - span, stride)
    if rest and rounding == "exact":
        raise InputError(
            f"Expected a filter that fits, but ({padded} - {span}) / {stride} + 1 = "
            f"{(padded - span) / stride + 1:.2f} is no integer: with stride {stride} a filter of {span} does "
            f"not end at the border of {padded} pixels. Take another stride or padding; with "
            f"rounding='floor' the rest ({rest}) is left out, as torch's layers do."
        )
    if rest and rounding == "ceil" and (steps + 1) * stride < size + begin:  # torch's: it must begin inside
        steps += 1
    return steps + 1


def transposed_output_size(
    size: int,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    output_padding: int = 0,
) -> int:
    """Return the side of a transposed convolution's output: the input of the convolution that it turns round.

    Args:
        size: Side of the input.
        kernel_size: Side of the filter.
        stride: Pixels of the output between two of the input.
        padding: Pixels cut at each end.
        dilation: Distance of the filter's values.
        output_padding: Pixels added at the end: which of the `stride` sizes with this output is meant.

    Raises:
        InputError: Nothing is left, or `output_padding` is neither below `stride` nor below `dilation`.
    """
    _check(size=size, kernel_size=kernel_size, stride=stride, dilation=dilation)
    _check(0, padding=padding, output_padding=output_padding)
    if output_padding >= max(stride, dilation):
        raise InputError(
            expected(
                "output_padding", f"below the stride {stride} or the dilation {dilation}", output_padding
            )
        )
    side = (size - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1
    if side < 1:
        raise InputError(
            f"Expected an output of at least one pixel, but padding {padding} leaves {side}. Take less "
            "padding."
        )
    return side


def same_padding(kernel_size: int, *, dilation: int = 1) -> int:
    """Return the padding at each end that keeps the size at stride 1: `dilation * (kernel_size - 1) / 2`.

    Raises:
        InputError: The filter spans an even number of pixels, so that the two ends would differ.
    """
    _check(kernel_size=kernel_size, dilation=dilation)
    total = dilation * (kernel_size - 1)
    if total % 2:
        raise InputError(
            f"Expected a filter with a pixel in its middle, but it spans {total + 1}: the two ends would get "
            f"{total // 2} and {total // 2 + 1}. Take an odd kernel_size."
        )
    return total // 2


def parameters(
    in_channels: int, *, out_channels: int, kernel_size: Pair = 1, groups: int = 1, bias: bool = True
) -> int:
    """Return the parameters of a convolution; of a linear layer with `kernel_size=1`. A pooling has none.

    `out_channels * (in_channels / groups * kernel_h * kernel_w + bias)`.

    Args:
        in_channels: Channels of the input.
        out_channels: Filters.
        kernel_size: Side of the filter, or `(height, width)`.
        groups: Parts of the channels that do not see each other.
        bias: Whether each filter adds a value.

    Raises:
        InputError: `groups` does not divide the channels.
    """
    return out_channels * (_values(in_channels, out_channels, kernel_size, groups) + int(bias))


def multiply_adds(
    in_channels: int, *, out_channels: int, output: Pair, kernel_size: Pair = 1, groups: int = 1
) -> int:
    """Return the multiply-adds of a convolution on one image: each output value takes one for each weight.

    Args:
        in_channels: Channels of the input.
        out_channels: Filters.
        output: Side of the output, or `(height, width)`.
        kernel_size: Side of the filter, or `(height, width)`.
        groups: Parts of the channels that do not see each other.

    Raises:
        InputError: `groups` does not divide the channels.
    """
    positions = math.prod(_pair(output))
    return positions * out_channels * _values(in_channels, out_channels, kernel_size, groups)


@dataclass(frozen=True)
class Window:
    """A layer as one side sees it: a filter of a convolution or a pooling.

    Args:
        kernel_size: Side of the filter.
        stride: Its steps.
        padding: Pixels added before the first.
        dilation: Distance of its values.
    """

    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def __post_init__(self) -> None:
        _check(kernel_size=self.kernel_size, stride=self.stride, dilation=self.dilation)


@dataclass(frozen=True)
class Field:
    """What the positions of a map see of one side of the image: position `i` begins at `start + i * stride`.

    Args:
        size: Pixels that one position sees.
        stride: Pixels between two neighbours.
        start: First pixel that position 0 sees; below 0 it lies in the padding.
    """

    size: float = 1
    stride: float = 1
    start: float = 0

    @property
    def center(self) -> float:
        """The pixel in the middle of what position 0 sees; 0 is the first pixel."""
        return self.start + (self.size - 1) / 2

    def through(self, window: Window) -> Field:
        """Return what is seen through one layer more."""
        return Field(
            self.size + window.dilation * (window.kernel_size - 1) * self.stride,
            self.stride * window.stride,
            self.start - window.padding * self.stride,
        )

    def over(self, positions: int) -> Field:
        """Return what all of a number of positions see together."""
        return Field(self.size + (positions - 1) * self.stride, self.stride * positions, self.start)

    def joined(self, other: Field) -> Field:
        """Return what is seen by one of two branches; both have the same stride."""
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return Field(end - start, self.stride, start)

    def pixels(self, index: int, *, size: int) -> tuple[int, int]:
        """Return the first pixel that a position sees and the one after the last, within the image.

        Args:
            index: The position.
            size: Side of the image.
        """
        first = self.start + index * self.stride
        return max(0, math.floor(first)), min(size, math.ceil(first + self.size))


def receptive_field(layers: Sequence[Window]) -> Field:
    """Return what a position sees of the image through a sequence of layers.

    Each adds `dilation * (kernel_size - 1)` times the product of the strides before it. `L` layers of `K`
    with stride 1 see `1 + L * (K - 1)` pixels.

    Args:
        layers: First to last.
    """
    field = Field()
    for layer in layers:
        field = field.through(layer)
    return field


def _pair(value: Pair) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _values(in_channels: int, out_channels: int, kernel_size: Pair, groups: int) -> int:
    """Return the weights of one filter."""
    height, width = _pair(kernel_size)
    _check(in_channels=in_channels, out_channels=out_channels, kernel_size=min(height, width), groups=groups)
    if in_channels % groups or out_channels % groups:
        raise InputError(
            f"Expected groups that divide the channels, but {groups} does not divide {in_channels} and "
            f"{out_channels}: each group takes in_channels / groups and gives out_channels / groups."
        )
    return in_channels // groups * height * width


def _check(minimum: int = 1, **values: int) -> None:
    for name, value in values.items():
        if value < minimum:
            raise InputError(expected(name, f"at least {minimum}", value))
