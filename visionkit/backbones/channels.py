"""Pretrained input layers and image statistics for other than three channels."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["adapt_first_conv", "adapt_statistics"]


def adapt_first_conv(conv: nn.Conv2d, channels: int, *, trained: bool) -> nn.Conv2d:
    """Return a convolution for images of `channels` channels in place of one for three.

    Trained weights: one channel gets the sum over red, green and blue (a grey image copied to three
    channels would give the same answer); more channels get the three kernels in turn, scaled by 3 / channels,
    so that the size of the response stays. Without trained weights the layer is initialised anew.

    Args:
        conv: The trained or fresh layer.
        channels: Channels of the new images.
        trained: Whether its weights are trained.
    """
    new = nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    if not trained:
        return new
    with torch.no_grad():
        old = conv.weight
        if channels == 1:
            new.weight.copy_(old.sum(1, keepdim=True))
        else:
            repeats = -(-channels // old.shape[1])
            new.weight.copy_(old.repeat(1, repeats, 1, 1)[:, :channels] * (old.shape[1] / channels))
        if new.bias is not None and conv.bias is not None:
            new.bias.copy_(conv.bias)
    return new


def adapt_statistics(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return a mean or deviation per channel: their average for one channel, repeated for more than three."""
    if channels == len(values):
        return values
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(channels))
