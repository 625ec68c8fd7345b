"""Transforms of one sample, in the workers: uint8 in, uint8 out, all draws from a given generator.

A transform is a callable `(sample, generator) -> sample`. Images, boxes, masks and class maps move
together. A crop and a resize are one antialiased step on the uint8 image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from visionkit.data.transforms.geometry import crop_resize, flip
from visionkit.errors import InputError, expected, unknown_name
from visionkit.rng import seeded
from visionkit.types import Sample

__all__ = [
    "Augment",
    "CenterCrop",
    "Compose",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "Transform",
    "classification_eval",
    "classification_train",
]

Transform: TypeAlias = Callable[[Sample, torch.Generator], Sample]
"""Applied to each sample of a data set; it may draw from the generator only."""


def _between(low: float, high: float, fraction: float) -> float:
    return low + (high - low) * fraction


@dataclass(frozen=True)
class Compose:
    """Apply transforms one after another.

    Args:
        steps: The transforms, first to last.
    """

    steps: tuple[Transform, ...]

    @property
    def reduced_jpegs(self) -> bool:
        """Whether the first step that takes the image decodes large JPEGs reduced."""
        first = next((step for step in self.steps if not getattr(step, "leaves_image", False)), None)
        return getattr(first, "reduced_jpegs", False) is True

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the sample after every step."""
        for step in self.steps:
            sample = step(sample, rng)
        return sample


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crop a box of random area and shape and resize it to a square (Szegedy et al. 2015, arXiv:1409.4842).

    Four draws each time: area, log-ratio, left, top. A shape that does not fit is shrunk until it does,
    so the number of draws never depends on the image.

    Args:
        size: Side of the result in pixels.
        scale: Smallest and largest area, as fractions of the image's.
        ratio: Smallest and largest width over height.
        reduced_jpegs: Decode large JPEGs at 1/2, 1/4 or 1/8 (`visionkit.data.transforms.reduced`).
    """

    size: int
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    reduced_jpegs: bool = False

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the crop, `(3, size, size)`."""
        height, width = sample["image"].shape[-2:]
        draws: list[float] = torch.rand(4, generator=rng).tolist()
        area = height * width * _between(*self.scale, draws[0])
        shape = math.exp(_between(math.log(self.ratio[0]), math.log(self.ratio[1]), draws[1]))
        box_h, box_w = math.sqrt(area / shape), math.sqrt(area * shape)
        shrink = min(1.0, height / box_h, width / box_w)
        box_h, box_w = max(1, round(box_h * shrink)), max(1, round(box_w * shrink))
        left = int(_between(0, width - box_w + 1, draws[2]))
        top = int(_between(0, height - box_h + 1, draws[3]))
        return crop_resize(sample, (top, left, box_h, box_w), (self.size, self.size))


@dataclass(frozen=True)
class Resize:
    """Resize the short side to `size`, keeping the shape; or to `(height, width)` exactly.

    Args:
        size: The short side, or `(height, width)`, in pixels.
        max_size: With a short side: largest long side; 0 is no limit.
        reduced_jpegs: As of `RandomResizedCrop`.
    """

    size: int | tuple[int, int]
    max_size: int = 0
    reduced_jpegs: bool = False

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the resized sample."""
        height, width = sample["image"].shape[-2:]
        if isinstance(self.size, tuple):
            target = self.size
        else:
            scale = self.size / min(height, width)
            if self.max_size:
                scale = min(scale, self.max_size / max(height, width))
            target = (max(1, round(height * scale)), max(1, round(width * scale)))
        return crop_resize(sample, (0, 0, height, width), target)


@dataclass(frozen=True)
class CenterCrop:
    """Crop the centre and resize it to a square, in one step.

    The side of the crop is the short side times `fraction`: `size=224, fraction=0.875` is what is usually
    written as "resize to 256, then crop 224".

    Args:
        size: Side of the result in pixels.
        fraction: Side of the crop as a fraction of the image's short side.
        reduced_jpegs: As of `RandomResizedCrop`.
    """

    size: int
    fraction: float = 1.0
    reduced_jpegs: bool = False

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the centre, `(3, size, size)`."""
        height, width = sample["image"].shape[-2:]
        side = max(1, round(min(height, width) * self.fraction))
        top, left = (height - side) // 2, (width - side) // 2
        return crop_resize(sample, (top, left, side, side), (self.size, self.size))


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror left to right. One draw.

    Args:
        probability: Chance of a mirror.
    """

    probability: float = 0.5

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the sample or its mirror image."""
        return flip(sample) if float(torch.rand((), generator=rng)) < self.probability else sample


@dataclass(frozen=True)
class Augment:
    """RandAugment (arXiv:1909.13719) or TrivialAugment (arXiv:2103.10158) as torchvision writes them.

    They change the image alone, so samples with boxes or masks are refused. torchvision draws from the
    global generator: it is forked, seeded with one draw of the sample's generator, and restored.

    Args:
        name: Which of the two.
    """

    name: Literal["randaugment", "trivial"]

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the sample with its image changed."""
        moved = [field for field in ("boxes", "masks", "mask", "keypoints") if field in sample]
        if moved:
            raise InputError(
                f"Expected a sample with an image only, but it has {', '.join(moved)}, which {self.name} "
                "would not move. Use RandomHorizontalFlip and RandomResizedCrop there."
            )
        seed = int(torch.randint(2**62, (), generator=rng))
        out = sample.copy()
        with seeded(seed):
            out["image"] = _torchvision(self.name)(sample["image"])
        return out


_CACHE: dict[str, Callable[[Tensor], Tensor]] = {}


def _torchvision(name: str) -> Callable[[Tensor], Tensor]:
    if name not in _CACHE:
        from torchvision.transforms import v2

        _CACHE[name] = v2.RandAugment() if name == "randaugment" else v2.TrivialAugmentWide()
    return _CACHE[name]


def classification_train(
    size: int,
    *,
    augment: str = "basic",
    scale: tuple[float, float] = (0.35, 1.0),
    reduced_jpegs: bool = False,
) -> Transform:
    """Return the training geometry: random resized crop and mirror, then the augmentation.

    Args:
        size: Side of the result in pixels.
        augment: "basic", "randaugment" or "trivial".
        scale: Smallest and largest area of the crop (ImageNet recipes of hundreds of epochs use 0.08).
        reduced_jpegs: Decode large JPEGs at 1/2, 1/4 or 1/8, where the crop stays twice as large as the
            result: quicker, with slightly other pixels (`visionkit.data.transforms.reduced`).

    Raises:
        InputError: The augmentation is not known, or the size is not positive.
    """
    _check_size(size)
    basic = (RandomResizedCrop(size, scale=scale, reduced_jpegs=reduced_jpegs), RandomHorizontalFlip())
    if augment == "basic":
        return Compose(basic)
    if augment == "randaugment":
        return Compose((*basic, Augment("randaugment")))
    if augment == "trivial":
        return Compose((*basic, Augment("trivial")))
    raise unknown_name("augmentation", augment, ("basic", "randaugment", "trivial"))


def classification_eval(size: int, *, fraction: float = 1.0, reduced_jpegs: bool = False) -> Transform:
    """Return the evaluation geometry: the centre square, resized.

    Args:
        size: Side of the result in pixels.
        fraction: Side of the square as a fraction of the short side (0.875 is usual for ImageNet).
        reduced_jpegs: As of `classification_train`.

    Raises:
        InputError: The size is not positive.
    """
    _check_size(size)
    return CenterCrop(size, fraction=fraction, reduced_jpegs=reduced_jpegs)


def _check_size(size: int) -> None:
    if size < 1:
        raise InputError(expected("the size of the images", "at least 1 pixel", size))
