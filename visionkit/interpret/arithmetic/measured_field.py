"""What a position of a map sees of the image, measured by gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionkit.errors import InputError, expected
from visionkit.interpret.maps import maps_of, resolve_layer
from visionkit.interpret.subject import open_subject
from visionkit.types import Init

__all__ = ["MeasuredField", "measure_field", "measure_noise"]

_IMAGES = 4  # of noise, one after the other
_VISIBLE = 0.0455  # of the largest gradient: two deviations of a Gaussian, as Luo et al. count


@dataclass(frozen=True)
class MeasuredField:
    """What one position of a map sees.

    Args:
        layer: The module that gives the map.
        position: Row and column of the position.
        gradient: Mean absolute gradient of the position with respect to each pixel, `(H, W)`.
    """

    layer: str
    position: tuple[int, int]
    gradient: Tensor

    @property
    def pixels(self) -> tuple[int, int, int, int]:
        """First row and the one after the last with any gradient, and the same of the columns."""
        rows, columns = (self.gradient.amax(dim).nonzero().flatten() for dim in (1, 0))
        if not len(rows):
            return (0, 0, 0, 0)
        return (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)

    @property
    def effective_size(self) -> float:
        """Side of a square as large as the area whose gradient is above 4.55 % of the largest."""
        return math.sqrt(int((self.gradient > _VISIBLE * self.gradient.max()).sum()))


def measure_field(
    network: nn.Module, layer: str | int, images: Tensor, *, position: tuple[int, int] | None = None
) -> MeasuredField:
    """Measure what a position of a layer's map sees: Luo et al., arXiv 1701.04128.

    A weighted sum over the channels at that position, of fixed weights near one, is differentiated with
    respect to the images; absolute values are summed over the channels of the image and averaged over the
    images.

    Args:
        network: Any network, which is left in evaluation mode.
        layer: As for `resolve_layer`.
        images: `(B, C, H, W)`, as the network takes them; of noise, some images suffice.
        position: Row and column in the map; its middle if not given.

    Raises:
        InputError: There is no such layer, its output is no map, or the position is outside.
    """
    network.eval()
    name = resolve_layer(network, layer, images)
    inputs = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        maps = maps_of(network, inputs, [name])[1].maps[name]
    height, width = maps.shape[-2:]
    row, column = position or (height // 2, width // 2)
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(expected("position", f"within the map of {height}x{width}", position))
    # Not a plain sum: that of a layer norm's channels is the same for every image.
    weights = torch.rand(maps.shape[1], generator=torch.Generator().manual_seed(0)).to(maps) + 0.5
    gradient = torch.autograd.grad((maps[:, :, row, column] * weights).sum(), inputs)[0]
    return MeasuredField(name, (row, column), gradient.abs().sum(1).mean(0))


def measure_noise(
    name: str, layers: Sequence[str], *, size: tuple[int, int], init: Init = "scratch", seed: int = 0
) -> list[MeasuredField]:
    """Measure what the middle of each of some layers' maps sees, on four images of noise.

    Args:
        name: A backbone, or a run.
        layers: As for `resolve_layer`.
        size: `(height, width)` of the images.
        init: Weights of a backbone; a run has its own.
        seed: Of the noise and of random weights.
    """
    torch.manual_seed(seed)
    subject = open_subject(name, init=init)
    images = torch.randn(_IMAGES, 1, subject.channels, *size, generator=torch.Generator().manual_seed(seed))
    measured = []
    for name in [resolve_layer(subject.network, layer, images[0]) for layer in layers]:
        each = [measure_field(subject.network, name, image) for image in images]
        gradient = torch.stack([m.gradient for m in each]).mean(0)
        measured.append(MeasuredField(each[0].layer, each[0].position, gradient))
    return measured
