"""Augmentation of batches on the device, in training only.

A batch transform is a callable `(batch, generator) -> batch`. Every draw comes from the generator, on the
CPU, one vector a batch: sample i of a batch takes element i, so what happens to it does not depend on the
device. Samples are mixed with their right neighbour: the partner of sample i is sample (i + 1) mod B.

Labels stay indices. A mixing transform adds `labels_b`, the partner's labels, and `lam` `(B,)` float32, the
fraction of the sample's own image: the loss is `lam * loss(labels) + (1 - lam) * loss(labels_b)`, which is
right for class indices and for float multi-label targets alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from visionkit.errors import InputError, expected, unknown_name

__all__ = [
    "BatchTransform",
    "ChainBatch",
    "CutmixBatch",
    "EraseBatch",
    "FlipBatch",
    "MixupBatch",
    "OneOfBatch",
    "batch_transform",
]

Batch: TypeAlias = dict[str, Any]
BatchTransform: TypeAlias = Callable[[Batch, torch.Generator], Batch]
"""Applied to the training batches of a data module on the device; it may draw from the generator only."""


@dataclass(frozen=True)
class FlipBatch:
    """Mirror images left to right.

    Draws `rand(B)`; sample i is mirrored when element i is below `probability`. uint8 stays uint8.

    Args:
        probability: Probability of a mirror.
    """

    probability: float = 0.5

    def __call__(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch with some images mirrored; uint8 stays uint8."""
        if "keypoints" in batch:
            raise InputError("Expected a batch without keypoints. Mirror samples: keypoint_train(flip=...).")
        images = _images(batch)
        chosen = torch.rand(len(images), generator=rng) < self.probability
        if images.device.type != "cpu":
            where = chosen.to(images.device)[:, None, None, None]
            return {**batch, "images": torch.where(where, images.flip(-1), images)}
        # On a CPU `where` over all pixels costs more than a mirror of the chosen images.
        mirrored = images.clone()
        for index in chosen.nonzero().flatten().tolist():
            mirrored[index] = images[index].flip(-1)
        return {**batch, "images": mirrored}


@dataclass(frozen=True)
class MixupBatch:
    """Blend each image with its partner's (Zhang et al. 2018, arXiv:1710.09412).

    Draws `lam` of each sample from Beta(alpha, alpha). The images become float in [0, 1].

    Args:
        alpha: Both parameters of the Beta distribution.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __call__(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the blended batch with `labels_b` and `lam`."""
        images = _as_float(_images(batch))
        lam = _beta(self.alpha, len(images), rng).to(images.device)
        weight = lam.to(images.dtype)[:, None, None, None]  # (B, 1, 1, 1)
        # The partners are the batch shifted by one: no copy of it is made.
        mixed = torch.empty_like(images)
        torch.lerp(images[1:], images[:-1], weight[:-1], out=mixed[:-1])
        torch.lerp(images[:1], images[-1:], weight[-1:], out=mixed[-1:])
        return _mixed(batch, mixed, lam)


@dataclass(frozen=True)
class CutmixBatch:
    """Paste a box of the partner's image into each image (Yun et al. 2019, arXiv:1905.04899).

    Draws a fraction from Beta(alpha, alpha), then the box's centre from `rand(B, 2)` (row, column). The box
    has the image's aspect ratio and leaves that fraction of its area; it is cut at the border, and `lam` is
    the exact fraction of pixels that remain. uint8 stays uint8.

    Args:
        alpha: Both parameters of the Beta distribution.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __call__(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the pasted batch with `labels_b` and `lam`."""
        images = _images(batch)
        count, _, height, width = images.shape
        side = torch.sqrt(1 - _beta(self.alpha, count, rng))
        extent = torch.tensor([height, width], dtype=torch.float32)
        centre = torch.rand(count, 2, generator=rng) * extent
        reach = side[:, None] * extent / 2
        low, high = (centre - reach).round().clamp(min=0), torch.minimum((centre + reach).round(), extent)
        box = _boxes_to_mask(low, high, height, width)
        lam = 1 - (high - low).prod(dim=1) / (height * width)
        pasted = torch.where(box.to(images.device), images.roll(-1, 0), images)
        return _mixed(batch, pasted, lam.to(images.device))


@dataclass(frozen=True)
class EraseBatch:
    """Paint a box of each image grey (Zhong et al. 2020, arXiv:1708.04896, with a constant value).

    Draws `rand(B, 5)`: whether (below `probability`), area, log-ratio, row, column. uint8 stays uint8.

    Args:
        probability: Probability that a part of an image is erased.
        area: Smallest and largest fraction of the image that is erased.
        ratio: Smallest and largest height over width; usually inverses of each other.
        value: The grey that is painted, in [0, 1].
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)
    value: float = 0.5

    def __call__(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch with boxes painted over."""
        images = _images(batch)
        count, _, height, width = images.shape
        draws = torch.rand(count, 5, generator=rng)
        area = (self.area[0] + (self.area[1] - self.area[0]) * draws[:, 1]) * height * width
        first, last = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = torch.exp(first + (last - first) * draws[:, 2])
        extent = torch.tensor([height, width], dtype=torch.float32)
        box = torch.stack([torch.sqrt(area * ratio), torch.sqrt(area / ratio)], dim=1).round()
        box = torch.minimum(box.clamp(min=1), extent)
        low = (draws[:, 3:] * (extent - box + 1)).floor()
        mask = _boxes_to_mask(low, low + box, height, width)
        mask &= (draws[:, 0] < self.probability)[:, None, None, None]
        grey = round(self.value * 255) if images.dtype == torch.uint8 else self.value
        return {**batch, "images": images.masked_fill(mask.to(images.device), grey)}


@dataclass(frozen=True)
class ChainBatch:
    """Apply batch transforms one after another.

    Args:
        steps: First to last.
    """

    steps: tuple[BatchTransform, ...]

    def __call__(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch after every step."""
        for step in self.steps:
            batch = step(batch, rng)
        return batch


@dataclass(frozen=True)
class OneOfBatch:
    """Apply one of several batch transforms, each as likely. Draws one integer a batch.

    Args:
        choices: The transforms.
    """

    choices: tuple[BatchTransform, ...]

    def __call__(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch after the chosen step."""
        return self.choices[int(torch.randint(len(self.choices), (), generator=rng))](batch, rng)


def batch_transform(
    *names: str,
    flip: float = 0.5,
    mixup_alpha: float = 0.2,
    cutmix_alpha: float = 1.0,
    erase: float = 0.25,
) -> BatchTransform | None:
    """Return the batch transform of some names, or None for none.

    They run in the order flip, mix, erase. With both "mixup" and "cutmix" each batch takes one of them.

    Args:
        names: Any of "flip", "mixup", "cutmix", "erase".
        flip: Probability of a mirror.
        mixup_alpha: Parameter of mixup.
        cutmix_alpha: Parameter of cutmix.
        erase: Probability that a part of an image is erased.

    Raises:
        InputError: A name is not known, or a value is out of range.
    """
    known = ("cutmix", "erase", "flip", "mixup")
    for name in names:
        if name not in known:
            raise unknown_name("batch transform", name, known)
    for what, value in (("flip", flip), ("erase", erase)):
        if not 0 <= value <= 1:
            raise InputError(expected(f"the probability of {what}", "between 0 and 1", value))
    steps: list[BatchTransform] = [FlipBatch(flip)] if "flip" in names else []
    mixes: list[BatchTransform] = [MixupBatch(mixup_alpha)] if "mixup" in names else []
    mixes += [CutmixBatch(cutmix_alpha)] if "cutmix" in names else []
    if mixes:
        steps.append(mixes[0] if len(mixes) == 1 else OneOfBatch(tuple(mixes)))
    steps += [EraseBatch(erase)] if "erase" in names else []
    if not steps:
        return None
    return steps[0] if len(steps) == 1 else ChainBatch(tuple(steps))


def _images(batch: Batch) -> Tensor:
    images = batch["images"]
    if not isinstance(images, Tensor):
        raise InputError(
            f"Expected one tensor of images (B, 3, H, W), but got a {type(images).__name__}. Batch "
            "transforms need images of one size; use per-sample transforms for lists."
        )
    return images


def _as_float(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.to(torch.float32).div_(255)


def _beta(alpha: float, count: int, rng: torch.Generator) -> Tensor:
    """Draw `(count,)` float32 from Beta(alpha, alpha), as a function of one draw of the generator."""
    seed = int(torch.randint(2**62, (), generator=rng))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, size=count).astype(np.float32))


def _check_alpha(alpha: float) -> None:
    if not (alpha > 0 and math.isfinite(alpha)):
        raise InputError(expected("alpha", "a positive number", alpha))


def _mixed(batch: Batch, images: Tensor, lam: Tensor) -> Batch:
    if "lam" in batch:
        raise InputError("Expected a batch that is not mixed yet, but it has 'lam' already. Mix once only.")
    return {**batch, "images": images, "labels_b": batch["labels"].roll(-1, 0), "lam": lam}


def _boxes_to_mask(low: Tensor, high: Tensor, height: int, width: int) -> Tensor:
    """Turn boxes `(B, 2)` (row, column), upper ends exclusive, into masks `(B, 1, H, W)`."""
    rows, columns = torch.arange(height), torch.arange(width)
    in_rows = (rows >= low[:, :1]) & (rows < high[:, :1])  # (B, H)
    in_columns = (columns >= low[:, 1:]) & (columns < high[:, 1:])  # (B, W)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
