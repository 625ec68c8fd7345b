"""Transforms of an image with its class map: scaled crops and colour changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from visionkit.data.formats.masks.label_map import IGNORE
from visionkit.data.transforms.classification import Compose, RandomHorizontalFlip, Transform
from visionkit.data.transforms.geometry import crop_resize
from visionkit.errors import InputError, expected
from visionkit.types import Sample

__all__ = ["Photometric", "ScaleCrop", "segmentation_eval", "segmentation_train"]

_MAX_ATTEMPTS = 10


@dataclass(frozen=True)
class ScaleCrop:
    """Scale at random and crop a window of fixed size, in one antialiased step.

    A window in which one class has more than `max_class_ratio` of the counted pixels is drawn again, up to
    ten times, so that road or sky does not fill the batches (`cat_max_ratio` in MMSegmentation). Where the
    scaled image is smaller than the window, it is placed at the top left; the rest is grey and ignored. One
    draw for the scale and twenty for the positions, for every image.

    Args:
        size: `(height, width)` of the window in pixels.
        scale: Smallest and largest factor.
        max_class_ratio: Largest fraction of one class; 1 takes every window.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    max_class_ratio: float = 0.75

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise InputError(expected("the size of the window", "at least 1 pixel a side", self.size))
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(expected("scale", "(smallest, largest), above 0", self.scale))
        if not 0 < self.max_class_ratio <= 1:
            raise InputError(expected("max_class_ratio", "above 0 and up to 1", self.max_class_ratio))

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the window, `(3, height, width)`."""
        height, width = sample["image"].shape[-2:]
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * float(torch.rand((), generator=rng))
        positions = torch.rand(_MAX_ATTEMPTS, 2, generator=rng).tolist()
        tall = min(height, max(1, round(self.size[0] / factor)))
        wide = min(width, max(1, round(self.size[1] / factor)))
        top, left, mask = 0, 0, sample["mask"]
        for down, right in positions:
            top, left = int(down * (height - tall + 1)), int(right * (width - wide + 1))
            window = mask[top : top + tall, left : left + wide]
            if self.max_class_ratio >= 1 or _largest_class_ratio(window) <= self.max_class_ratio:
                break
        # a side that the window spans ends at the window's; a shorter one at its scaled length
        rows = self.size[0] if tall < height else min(self.size[0], max(1, round(tall * factor)))
        columns = self.size[1] if wide < width else min(self.size[1], max(1, round(wide * factor)))
        return _padded(crop_resize(sample, (top, left, tall, wide), (rows, columns)), self.size)


@dataclass(frozen=True)
class Photometric:
    """Change brightness, contrast and saturation. Three draws.

    Args:
        strength: Largest change: each factor lies in `1 - strength .. 1 + strength`.
    """

    strength: float = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise InputError(expected("strength", "from 0 to 1", self.strength))

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the sample with its image changed, uint8."""
        draws = (1 + self.strength * (2 * torch.rand(3, generator=rng) - 1)).tolist()
        brightness, contrast, saturation = draws
        image = sample["image"].float()
        luma = torch.tensor([0.299, 0.587, 0.114])
        grey = (image * luma[:, None, None]).sum(0, keepdim=True)  # (1, H, W)
        # the three changes are linear, so they are one: saturation around grey, contrast around its mean
        image = torch.lerp(grey, image, saturation)
        image = (image * contrast + grey.mean() * (1 - contrast)) * brightness
        out = sample.copy()
        out["image"] = image.round().clamp_(0, 255).to(torch.uint8)
        return out


def segmentation_train(
    size: tuple[int, int],
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    max_class_ratio: float = 0.75,
    photometric: float = 0.4,
) -> Transform:
    """Return the usual training transform: scaled crop, mirror, colour changes.

    Args:
        size: `(height, width)` of the windows in pixels.
        scale: Smallest and largest factor.
        max_class_ratio: Largest fraction of one class in a window.
        photometric: Strength of the changes of colour; 0 is none.

    Raises:
        InputError: A number is out of range.
    """
    steps: tuple[Transform, ...] = (
        ScaleCrop(size, scale=scale, max_class_ratio=max_class_ratio),
        RandomHorizontalFlip(),
    )
    return Compose((*steps, Photometric(photometric)) if photometric else steps)


def segmentation_eval() -> Transform:
    """Return the evaluation transform, which changes nothing: scores are taken at native size."""
    return Compose(())


def _largest_class_ratio(mask: Tensor) -> float:
    """Return the fraction of the commonest class among the counted pixels, 1 where none counts."""
    # every second pixel each way is enough to judge a window, and a quarter of the time
    values = mask[::2, ::2].reshape(-1)
    counts = torch.bincount(values, minlength=IGNORE + 1)[:IGNORE]
    return float(counts.max() / counts.sum().clamp(min=1)) if int(counts.sum()) else 1.0


def _padded(sample: Sample, size: tuple[int, int]) -> Sample:
    height, width = sample["image"].shape[-2:]
    padding = (0, size[1] - width, 0, size[0] - height)
    if not any(padding):
        return sample
    out = sample.copy()
    out["image"] = pad(sample["image"], padding, value=124)
    if "mask" in sample:
        out["mask"] = pad(sample["mask"], padding, value=IGNORE)
    return out
