"""Transforms of samples with one object and its keypoints: a crop around it, scaled, turned and mirrored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from visionkit.data.transforms.classification import Compose, Transform
from visionkit.data.transforms.geometry import affine, crop_resize, flip
from visionkit.data.transforms.segmentation import Photometric
from visionkit.data.truth import make_truth
from visionkit.errors import InputError, expected, unknown_name
from visionkit.types import Sample

__all__ = ["KeypointCrop", "KeypointJitter", "fit_region", "keypoint_eval", "keypoint_train"]

Around = Literal["box", "image"]


@dataclass(frozen=True)
class KeypointCrop:
    """Show the object of a sample, or its whole image, at a fixed size in its shape; grey beyond. No draw.

    Args:
        size: `(height, width)` of the result.
        around: "box": the object's box, or the whole image where a sample has no boxes at all, as in
            prediction; "image": the whole image.
        padding: Side of what is shown, as a factor of that of the box; the whole image has no padding.
    """

    size: tuple[int, int]
    around: Around = "box"
    padding: float = 1.25

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the crop with `region`, what it shows of the original, and `truth`, the object there."""
        region = self.region(sample)
        out = show_region(sample, region, self.size)
        out["region"] = region.float()
        if "keypoints" not in sample:
            return out
        out["truth"] = make_truth(
            sample["boxes"].numpy(),
            sample["labels"].numpy(),
            iscrowd=sample["iscrowd"].numpy() if "iscrowd" in sample else None,
            area=sample["area"].numpy() if "area" in sample else None,
            keypoints=sample["keypoints"].numpy(),
        )
        return out

    def region(self, sample: Sample) -> Tensor:
        """Return xyxy `(4,)`, float64, of what is shown: it has the shape of the result.

        Args:
            sample: With one box, or none at all.

        Raises:
            InputError: It has another number of boxes.
        """
        height, width = sample["image"].shape[-2:]
        box, padding = torch.tensor([0, 0, width, height], dtype=torch.float64), 1.0
        if self.around == "box" and "boxes" in sample:
            if len(sample["boxes"]) != 1:
                got = len(sample["boxes"])
                fix = "Make a sample of each object: visionkit.data.per_object(splits)."
                raise InputError(expected("the boxes of a sample", "one object's", got, fix=fix))
            box, padding = sample["boxes"][0].double(), self.padding
        return fit_region(box, self.size, padding=padding)


@dataclass(frozen=True)
class KeypointJitter:
    """A `KeypointCrop` that is scaled, moved, turned and mirrored at random. Five draws.

    Args:
        crop: The crop without jitter.
        scale: Largest change of what is shown: its sides times `1 - scale .. 1 + scale`.
        shift: Largest move of its centre, as a fraction of its sides.
        degrees: Largest turn to either side.
        flip: Probability of a mirror, which swaps left and right points by name.
    """

    crop: KeypointCrop
    scale: float = 0.25
    shift: float = 0.05
    degrees: float = 30.0
    flip: float = 0.5

    def __post_init__(self) -> None:
        for name, value, limit in (
            ("scale", self.scale, 0.9),
            ("shift", self.shift, 1),
            ("flip", self.flip, 1),
        ):
            if not 0 <= value <= limit:
                raise InputError(expected(name, f"from 0 to {limit}", value))
        if not 0 <= self.degrees <= 180:
            raise InputError(expected("degrees", "from 0 to 180", self.degrees))

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the changed crop."""
        draws = torch.rand(5, generator=rng, dtype=torch.float64)
        factor, across, down, turn = (2 * draws[:4] - 1).tolist()
        region = self.crop.region(sample)
        centre, sides = (region[:2] + region[2:]) / 2, region[2:] - region[:2]
        centre = centre + sides * self.shift * torch.tensor([across, down], dtype=torch.float64)
        sides = sides * (1 + self.scale * factor)
        region = torch.cat((centre - sides / 2, centre + sides / 2))
        out = show_region(sample, region, self.crop.size, degrees=self.degrees * turn)
        return flip(out) if float(draws[4]) < self.flip else out


def fit_region(box: Tensor, size: tuple[int, int], *, padding: float = 1.0) -> Tensor:
    """Return the smallest region of an image that shows a padded box in the shape of a size, `(4,)` xyxy.

    Args:
        box: `(4,)` xyxy.
        size: `(height, width)`.
        padding: Factor of the box's sides.
    """
    box = box.double()
    centre, sides = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * padding
    shape = torch.tensor([size[1], size[0]], dtype=torch.float64)
    sides = shape * (sides / shape).max()
    return torch.cat((centre - sides / 2, centre + sides / 2))


def show_region(sample: Sample, region: Tensor, size: tuple[int, int], *, degrees: float = 0.0) -> Sample:
    """Return what a region of the image shows, resized and turned around its centre; grey beyond the image.

    Of an object its points alone are in the result; each that is not shown has the flag 0.

    Args:
        sample: A sample with an image.
        region: `(4,)` xyxy in pixels; it may reach beyond the image.
        size: `(height, width)` of the result.
        degrees: The turn.
    """
    fields = ("image", "id", "size", "keypoints", "keypoint_flip")
    sample = cast(Sample, {name: value for name, value in sample.items() if name in fields})
    height, width = sample["image"].shape[-2:]
    ratio = torch.tensor([size[1], size[0]]).double() / (region[2:] - region[:2])  # x, y
    if float(ratio.max()) < 1:  # the affine map does not antialias
        left, top, wide, high = _surroundings(region, ratio, (height, width))
        small = max(1, round(high * float(ratio[1]))), max(1, round(wide * float(ratio[0])))
        sample = crop_resize(sample, (top, left, high, wide), small)
        resized = torch.tensor([small[1] / wide, small[0] / high], dtype=torch.float64)
        corner = torch.tensor([left, top], dtype=torch.float64).repeat(2)
        region, ratio = (region - corner) * resized.repeat(2), ratio / resized
    turn = math.radians(degrees)
    turned = torch.tensor(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], dtype=torch.float64
    ) @ torch.diag(ratio)
    centre = (region[:2] + region[2:]) / 2
    moved = torch.tensor([size[1], size[0]]).double() / 2 - turned @ centre
    return affine(sample, torch.cat((turned, moved[:, None]), 1), size)


def _surroundings(region: Tensor, ratio: Tensor, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return what of an image a region shows at any turn, and what its pixels are averaged over.

    Only this is resized: an object is small in many images.

    Args:
        region: `(4,)` xyxy.
        ratio: `(2,)` pixels of the result per pixel of the image, below 1.
        size: `(H, W)` of the image.

    Returns:
        Left, top, width and height in pixels, at least one pixel of the image.
    """
    centre, half = (region[:2] + region[2:]) / 2, (region[2:] - region[:2]) / 2
    reach = half.norm() + 2 / ratio.min() + 2  # antialiasing reaches a pixel of the result to either side
    limit = torch.tensor([size[1], size[0]], dtype=torch.float64)
    low = (centre - reach).floor().minimum(limit - 1).clamp(min=0)
    high = (centre + reach).ceil().minimum(limit).maximum(low + 1)
    left, top = (int(value) for value in low)
    wide, tall = (int(value) for value in high - low)
    return left, top, wide, tall


def keypoint_train(
    size: int | tuple[int, int],
    *,
    around: Around = "box",
    padding: float = 1.25,
    scale: float = 0.25,
    shift: float = 0.05,
    degrees: float = 30.0,
    flip: float = 0.5,
    photometric: float = 0.4,
) -> Transform:
    """Return the usual training transform: a crop around the object, scaled, moved, turned and mirrored.

    Args:
        size: Side of the result in pixels, or `(height, width)`.
        around: See `KeypointCrop`.
        padding: See `KeypointCrop`.
        scale: See `KeypointJitter`.
        shift: See `KeypointJitter`.
        degrees: See `KeypointJitter`.
        flip: See `KeypointJitter`.
        photometric: Strength of the changes of colour; 0 is none.

    Raises:
        InputError: A number is out of range.
    """
    crop = _crop(size, around, padding)
    jitter = KeypointJitter(crop, scale=scale, shift=shift, degrees=degrees, flip=flip)
    return Compose((jitter, Photometric(photometric))) if photometric else jitter


def keypoint_eval(
    size: int | tuple[int, int], *, around: Around = "box", padding: float = 1.25
) -> KeypointCrop:
    """Return the evaluation transform: a crop around the object, with its truth in the original image.

    Args:
        size: Side of the result in pixels, or `(height, width)`.
        around: See `KeypointCrop`.
        padding: See `KeypointCrop`.

    Raises:
        InputError: A number is out of range.
    """
    return _crop(size, around, padding)


def _crop(size: int | tuple[int, int], around: Around, padding: float) -> KeypointCrop:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InputError(expected("the size of the images", "at least 1 pixel", size))
    if around not in get_args(Around):
        raise unknown_name("crop", str(around), get_args(Around))
    if not padding > 0:
        raise InputError(expected("padding", "above 0", padding))
    return KeypointCrop((height, width), around=around, padding=padding)
