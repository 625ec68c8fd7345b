"""Transforms of detection samples: scale jitter, large-scale jitter, copy-paste; aspect-ratio groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from visionkit.data.transforms.classification import Compose, RandomHorizontalFlip, Resize, Transform
from visionkit.data.transforms.geometry import crop_resize
from visionkit.data.truth import sample_truth
from visionkit.errors import InputError, expected
from visionkit.types import Reader, Sample

__all__ = [
    "CopyPaste",
    "DetectionEval",
    "LargeScaleJitter",
    "ScaleJitter",
    "aspect_groups",
    "detection_eval",
    "detection_train",
]


@dataclass(frozen=True)
class ScaleJitter:
    """Resize the short side to one of several sizes, keeping the shape. One draw.

    Args:
        sizes: The short sides in pixels, each equally likely.
        max_size: Largest long side.
    """

    sizes: tuple[int, ...]
    max_size: int

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the resized sample."""
        size = self.sizes[int(torch.randint(len(self.sizes), (), generator=rng))]
        return Resize(size, max_size=self.max_size)(sample, rng)


@dataclass(frozen=True)
class LargeScaleJitter:
    """Resize by a random factor, then crop or pad to a square. Three draws.

    The factor is relative to the size at which the image fits into the square.

    Args:
        size: Side of the square in pixels.
        scale: Smallest and largest factor.

    Ghiasi et al., Simple Copy-Paste, 2021.
    """

    size: int
    scale: tuple[float, float] = (0.1, 2.0)

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the sample with an image `(3, size, size)`, grey where there was none."""
        factor, across, down = torch.rand(3, generator=rng).tolist()
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * factor
        height, width = sample["image"].shape[-2:]
        ratio = factor * self.size / max(height, width)
        high, wide = min(height, round(self.size / ratio)), min(width, round(self.size / ratio))
        top, left = int(down * (height - high + 1)), int(across * (width - wide + 1))
        target = (
            min(self.size, max(1, round(high * ratio))),
            min(self.size, max(1, round(wide * ratio))),
        )
        out = crop_resize(sample, (top, left, max(1, high), max(1, wide)), target)
        out.pop("truth", None)  # of the image without its grey border
        image = out["image"].new_full((3, self.size, self.size), 114)
        image[:, : target[0], : target[1]] = out["image"]
        out["image"] = image
        if "masks" in out:
            masks = out["masks"].new_zeros((len(out["masks"]), self.size, self.size))
            masks[:, : target[0], : target[1]] = out["masks"]
            out["masks"] = masks
        return out


@dataclass(frozen=True)
class CopyPaste:
    """Paste some objects of another image over this one, by their masks.

    The other image and the objects are drawn; both images go through `geometry` first, so they must come out
    at one size (`LargeScaleJitter`). Pixels that a pasted object covers are removed from the masks and boxes
    of the objects below; an object with fewer than `min_area` visible pixels is dropped.

    Args:
        reader: Where other images come from; its samples have `masks`.
        geometry: What both images go through.
        probability: Probability that anything is pasted.
        min_area: Visible pixels below which a covered object is dropped.

    Raises:
        InputError: The reader is of a streamed set.

    Ghiasi et al., Simple Copy-Paste, 2021.
    """

    reader: Reader
    geometry: Transform
    probability: float = 0.5
    min_area: int = 16

    def __post_init__(self) -> None:
        """Refuse a streamed set, of which every image would be in a shard that is not at hand."""
        if hasattr(self.reader, "shard_numbers"):
            raise InputError(
                "Expected images at hand to paste from, but the set is streamed. Copy the pack to this "
                "machine, or choose another augmentation."
            )

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the sample with objects of another one on it."""
        if "masks" not in sample:
            raise InputError("Copy-paste needs masks, but the samples have none. Read them with masks=True.")
        pasted = float(torch.rand((), generator=rng)) < self.probability
        other_index = int(torch.randint(len(self.reader), (), generator=rng))
        below = self.geometry(sample, rng)
        if not pasted:
            return below
        above = self.geometry(self.reader[other_index], rng)
        if above["image"].shape != below["image"].shape:
            sizes = f"{tuple(below['image'].shape)} and {tuple(above['image'].shape)}"
            raise InputError(f"Copy-paste needs images of one size, but got {sizes}. Use LargeScaleJitter.")
        return _paste(below, above, torch.rand(len(above["boxes"]), generator=rng) < 0.5, self.min_area)


def _paste(below: Sample, above: Sample, chosen: torch.Tensor, min_area: int) -> Sample:
    crowd = above.get("iscrowd", torch.zeros(len(chosen), dtype=torch.int64))
    chosen = chosen & (crowd == 0)
    if not bool(chosen.any()):
        return below
    new = above["masks"][chosen]
    cover = (new > 0).any(0)  # (H, W)
    out = below.copy()
    out["image"] = torch.where(cover, above["image"], below["image"])
    old = below["masks"] * ~cover
    area = old.flatten(1).sum(1)
    touched = area < below["masks"].flatten(1).sum(1)
    visible = ~touched | (area >= min_area)
    boxes = below["boxes"].clone()
    for index in torch.where(touched & visible)[0].tolist():
        rows, columns = torch.where(old[index] > 0)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        boxes[index] = torch.stack(edges).to(boxes)
    out["masks"] = torch.cat((old[visible], new))
    out["boxes"] = torch.cat((boxes[visible], above["boxes"][chosen]))
    out["labels"] = torch.cat((below["labels"][visible], above["labels"][chosen]))
    out.pop("area", None)  # of the uncovered objects
    out.pop("truth", None)
    if "keypoints" in below:
        points = below["keypoints"][visible].clone()  # a labelled point under a pasted object is hidden
        points[..., 2] = torch.where(_covered(points, cover) & (points[..., 2] > 1), 1.0, points[..., 2])
        out["keypoints"] = torch.cat((points, above["keypoints"][chosen]))
    if "iscrowd" in below:
        out["iscrowd"] = torch.cat((below["iscrowd"][visible], crowd[chosen]))
    return out


def _covered(points: torch.Tensor, cover: torch.Tensor) -> torch.Tensor:
    """Return whether each of the points `(N, K, 3)` lies on a covered pixel, `(N, K)`."""
    columns, rows = points[..., :2].long().unbind(-1)
    return cover[rows.clamp(0, cover.shape[0] - 1), columns.clamp(0, cover.shape[1] - 1)]


def detection_train(
    size: int, *, max_size: int = 0, jitter: Sequence[float] = (1.0,), flip: float = 0.5
) -> Transform:
    """Return the usual training geometry: short side to `size` times one of `jitter`, and a mirror.

    Args:
        size: Short side in pixels.
        max_size: Largest long side at a factor of 1; 5/3 of `size` if 0 (1333 for 800).
        jitter: Factors on both, each equally likely.
        flip: Probability of a mirror; 0 for keypoints of which it is not known what a mirror makes of them.

    Raises:
        InputError: The size is not positive, or there is no factor.
    """
    if size < 1 or not jitter or min(jitter) <= 0:
        raise InputError(expected("size and jitter", "positive", (size, tuple(jitter))))
    max_size = max_size or round(size * 5 / 3)
    sizes = tuple(max(1, round(size * factor)) for factor in jitter)
    mirror = RandomHorizontalFlip(flip)
    return Compose((ScaleJitter(sizes, max_size=round(max_size * max(jitter))), mirror))


@dataclass(frozen=True)
class DetectionEval:
    """Resize a sample for evaluation and add its ground truth, unchanged. No draw.

    Metrics compare in the frame of the original image with the boxes and masks of the annotation file, so
    they do not depend on the resizing. Masks are carried as run lengths; none are resized.

    Args:
        resize: Resizes image and boxes.
    """

    resize: Resize

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the resized sample with `truth`, and without `masks`."""
        if "boxes" not in sample:
            return self.resize(sample, rng)
        truth = sample_truth(sample)
        plain = sample.copy()
        plain.pop("masks", None)
        out = self.resize(plain, rng)
        out["truth"] = truth
        return out


def detection_eval(size: int, *, max_size: int = 0) -> Transform:
    """Return the evaluation geometry: short side to `size`; predictions go back to the original frame.

    The sample has `truth`, the objects as the annotation file has them, and no `masks`.

    Args:
        size: Short side in pixels.
        max_size: Largest long side; 5/3 of `size` if 0.
    """
    return DetectionEval(Resize(size, max_size=max_size or round(size * 5 / 3)))


def aspect_groups(sizes: Sequence[tuple[int, int]]) -> Callable[[list[int], int], list[list[int]]]:
    """Return a grouping for `DataModule`: upright and wide images are in different global batches.

    It is a pure function of the order: samples keep their order within a group, a batch comes at the position
    of its last sample, and the rest of both groups makes mixed batches at the end, so every sample is used as
    often as without grouping.

    Args:
        sizes: `(H, W)` of each sample.
    """
    wide = [width >= height for height, width in sizes]

    def group(order: list[int], batch: int) -> list[list[int]]:
        waiting: dict[bool, list[int]] = {True: [], False: []}
        batches = []
        for index in order:
            queue = waiting[wide[index]]
            queue.append(index)
            if len(queue) == batch:
                batches.append(queue[:])
                queue.clear()
        rest = waiting[True] + waiting[False]
        return batches + [rest[start : start + batch] for start in range(0, len(rest), batch)]

    return group
