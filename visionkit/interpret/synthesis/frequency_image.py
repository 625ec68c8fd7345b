"""An image as what gradients change: frequencies and colours that are independent in photographs, or pixels.

Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017 ("preconditioning").
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from visionkit.errors import unknown_name

__all__ = ["FrequencyImage", "PixelImage", "Space", "image_in"]

Space = Literal["frequency", "pixels"]
"""What the gradient changes."""

# Brightness, red against blue, green against both: directions of colours that vary nearly independently in
# photographs, with their deviations over a thousand of CIFAR-10: tests/interpret/test_visualize.py measures
# them again.
_DIRECTIONS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
_DEVIATIONS = (0.418, 0.115, 0.051)


class PixelImage(nn.Module):
    """The logits of pixels.

    Args:
        channels: Of the image.
        size: `(height, width)`.
        generator: Of the noise that it begins with.
    """

    def __init__(self, channels: int, size: tuple[int, int], generator: torch.Generator) -> None:
        super().__init__()
        self.logits = nn.Parameter(0.1 * torch.randn(1, channels, *size, generator=generator))

    def forward(self) -> Tensor:
        """Return the image `(1, C, H, W)` in [0, 1]."""
        return self.logits.sigmoid()


class FrequencyImage(nn.Module):
    """The spectrum of an image, each frequency in units of what photographs have of it (1 / frequency).

    Args:
        channels: Of the image; those of three are colours that are independent in photographs.
        size: `(height, width)`.
        generator: Of the noise that it begins with.
    """

    scale: Tensor
    colors: Tensor

    def __init__(self, channels: int, size: tuple[int, int], generator: torch.Generator) -> None:
        super().__init__()
        self.size = size
        height, width = size
        down, across = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
        frequency = (down[:, None].square() + across.square()).sqrt()  # (H, W // 2 + 1), cycles a pixel
        scale = 1 / frequency.clamp_min(1 / max(height, width))
        self.register_buffer("scale", scale * (height * width) ** 0.5 / scale.norm())
        turn = nn.functional.normalize(torch.tensor(_DIRECTIONS), dim=1)
        colors = turn.T * torch.tensor(_DEVIATIONS) / _DEVIATIONS[0]  # independent values to RGB
        self.register_buffer("colors", colors if channels == 3 else torch.eye(channels))
        shape = (1, channels, *frequency.shape, 2)  # the last: real and imaginary part
        self.spectrum = nn.Parameter(0.1 * torch.randn(shape, generator=generator))

    def forward(self) -> Tensor:
        """Return the image `(1, C, H, W)` in [0, 1]."""
        spectrum = torch.view_as_complex(self.spectrum) * self.scale
        values = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return torch.einsum("ij,bjhw->bihw", self.colors, values).sigmoid()


def image_in(
    space: Space, channels: int, size: tuple[int, int], generator: torch.Generator
) -> FrequencyImage | PixelImage:
    """Return an image of noise whose parameters are frequencies, or pixels.

    Args:
        space: Which.
        channels: Of the image.
        size: `(height, width)`.
        generator: Of the noise.

    Raises:
        InputError: There is no such space.
    """
    if space == "frequency":
        return FrequencyImage(channels, size, generator)
    if space == "pixels":
        return PixelImage(channels, size, generator)
    raise unknown_name("space", space, ("frequency", "pixels"))
