"""Transforms of torchvision and albumentations, with draws that are a function of (seed, epoch, index)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visionkit.errors import InputError, expected
from visionkit.rng import keyed_seed, seeded
from visionkit.types import Sample

__all__ = ["Keyed", "KeyedBatch"]

_OBJECTS = ("labels", "iscrowd", "area")


class Keyed:
    """Makes a transform of another library one of ours: the same draws for the same image, epoch and seed.

    Whatever it draws from (torch, numpy, Python's `random`, generators of its own that have
    `set_random_state` or `set_random_seed`) begins at a number that follows from the sample's generator, and
    the global generators are afterwards as they were. So order, number of workers and resumes change nothing.

    Taken are

    - transforms of `torchvision.transforms.v2`: they get image, boxes, masks and class map as tv_tensors;
    - transforms called as albumentations' are, by keyword (they have `available_keys`). Boxes need
      `bbox_params=BboxParams(format="pascal_voc", label_fields=["labels"])`;
    - any other callable: it gets the image alone, `(C, H, W)`, for samples without boxes and masks.

    Leave normalisation and the conversion to float out: the task does both on the device. Boxes that lose all
    of their area are dropped with their labels and masks.

    Args:
        transform: The transform.
    """

    def __init__(self, transform: Callable[..., Any]) -> None:
        if not callable(transform):
            raise InputError(expected("the transform", "a callable", type(transform).__name__))
        self.transform = transform

    def __repr__(self) -> str:
        return f"Keyed({self.transform!r})"

    def __call__(self, sample: Sample, rng: torch.Generator) -> Sample:
        """Return the changed sample.

        Raises:
            InputError: The transform gives no image, or moves an image whose boxes or masks it does not know;
                or the sample has keypoints.
        """
        if "keypoints" in sample:
            raise InputError(
                "Expected a sample without keypoints: a mirror of another library would not swap left and "
                "right by name. Use visionkit.data.keypoint_train, or RandomHorizontalFlip and crop_resize."
            )
        moved = [field for field in ("boxes", "masks", "mask") if field in sample]
        with _all_seeded(int(torch.randint(2**62, (), generator=rng)), self.transform):
            if hasattr(self.transform, "available_keys"):
                changed = _by_keyword(self.transform, sample)
            elif _takes_samples(self.transform):
                changed = _by_tv_tensors(self.transform, sample)
            elif moved:
                raise InputError(
                    f"Expected a transform that moves {' and '.join(moved)} with the image, but "
                    f"{type(self.transform).__name__} takes an image alone. Use torchvision.transforms.v2."
                )
            else:
                changed = {"image": self.transform(sample["image"])}
        image = changed["image"]
        if not isinstance(image, Tensor) or image.ndim != 3:
            got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise InputError(expected("the transform", "to give an image (C, H, W) as a tensor", got))
        out: Any = {**sample, **changed}
        out.pop("truth", None)  # it is of the original image, to which what moved cannot be mapped back
        if moved:
            out["size"] = (int(image.shape[-2]), int(image.shape[-1]))
        if "boxes" in sample:
            out = _with_area(out)
        result: Sample = out
        return result


class KeyedBatch:
    """Makes a transform of batches, such as v2.MixUp, v2.CutMix or timm's Mixup, one of a `DataModule`'s.

    The transform is called with images and labels on the device, and gives both; soft labels `(B, K)` are
    what `Classifier` learns from. Its draws are a function of (seed, batch, process).

    Args:
        transform: Takes `(images, labels)` and returns both.
    """

    def __init__(self, transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        self.transform = transform

    def __call__(self, batch: dict[str, Any], rng: torch.Generator) -> dict[str, Any]:
        """Return the batch with images, float in [0, 1], and labels changed."""
        images = batch["images"]
        images = images if images.is_floating_point() else images.float().div_(255)
        with _all_seeded(int(torch.randint(2**62, (), generator=rng)), self.transform):
            images, labels = self.transform(images, batch["labels"])
        return {**batch, "images": images, "labels": labels}


@contextmanager
def _all_seeded(seed: int, transform: Any) -> Iterator[None]:
    """Draw from a seed inside the block, by whichever generator; the global ones go on as before after it."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    numpy_seed = keyed_seed(seed, 1) % 2**32
    try:
        np.random.seed(numpy_seed)
        random.seed(keyed_seed(seed, 2))
        if hasattr(transform, "set_random_state"):
            transform.set_random_state(np.random.default_rng(numpy_seed), random.Random(numpy_seed))
        elif hasattr(transform, "set_random_seed"):
            transform.set_random_seed(numpy_seed)
        with seeded(seed):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _takes_samples(transform: Any) -> bool:
    from torchvision.transforms import v2

    if isinstance(transform, nn.Sequential):
        return all(_takes_samples(step) for step in transform)
    return isinstance(transform, v2.Transform)


def _by_tv_tensors(transform: Callable[[Any], Any], sample: Sample) -> dict[str, Any]:
    """Call a v2 transform with the sample's spatial fields, and the numbers of its objects as labels."""
    from torchvision import tv_tensors

    height, width = (int(side) for side in sample["image"].shape[-2:])
    given: dict[str, Any] = {"image": tv_tensors.Image(sample["image"])}
    if "boxes" in sample:
        form: Any = tv_tensors.BoundingBoxFormat.XYXY
        given["boxes"] = tv_tensors.BoundingBoxes(sample["boxes"], format=form, canvas_size=(height, width))
        given["labels"] = torch.arange(len(sample["boxes"]))
    given |= {name: tv_tensors.Mask(sample[name]) for name in ("masks", "mask") if name in sample}
    made = transform(given)
    if not isinstance(made, Mapping):
        raise InputError(expected("the transform", "to give the fields of a sample", type(made).__name__))
    changed = {name: _plain(made[name]) for name in given if name != "labels"}
    if "boxes" in sample:
        remaining = made["labels"].long()
        changed["boxes"] = changed["boxes"].float()
        changed |= {name: sample[name][remaining] for name in _OBJECTS if name in sample}  # type: ignore[literal-required]
    return changed


def _by_keyword(transform: Callable[..., Any], sample: Sample) -> dict[str, Any]:
    """Call a transform as albumentations' are called: arrays in, channels last, by keyword."""
    given: dict[str, Any] = {"image": np.ascontiguousarray(sample["image"].permute(1, 2, 0).numpy())}
    if "mask" in sample:
        given["mask"] = sample["mask"].numpy().astype(np.int32)
    if "masks" in sample:
        given["masks"] = np.ascontiguousarray(sample["masks"].numpy())
    if "boxes" in sample:
        given["bboxes"] = sample["boxes"].numpy()
        given["labels"] = np.arange(len(sample["boxes"]))
    made = transform(**given)
    changed: dict[str, Any] = {"image": _channels_first(made["image"])}
    if "mask" in sample:
        changed["mask"] = torch.as_tensor(np.asarray(made["mask"])).long()
    if "masks" in sample:
        changed["masks"] = torch.as_tensor(np.asarray(made["masks"])).to(sample["masks"].dtype)
    if "boxes" in sample:
        remaining = torch.as_tensor(np.asarray(made["labels"]), dtype=torch.int64).reshape(-1)
        boxes = torch.as_tensor(np.asarray(made["bboxes"], dtype=np.float32)).reshape(-1, 4)
        changed["boxes"] = boxes
        changed |= {name: sample[name][remaining] for name in _OBJECTS if name in sample}  # type: ignore[literal-required]
        if "masks" in sample and len(changed["masks"]) != len(remaining):
            changed["masks"] = changed["masks"][remaining]
    return changed


def _channels_first(image: Any) -> Any:
    if isinstance(image, Tensor):  # a transform that ends in ToTensorV2
        return image
    array = np.asarray(image)
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1) if array.ndim == 3 else array


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, Tensor) else value


def _with_area(sample: Any) -> Any:
    """Drop the objects whose boxes lost their area, from every field."""
    boxes = sample["boxes"]
    fields = [name for name in (*_OBJECTS, "masks") if name in sample]
    lengths = {name: len(sample[name]) for name in fields if len(sample[name]) != len(boxes)}
    if lengths:
        fix = "Drop boxes with their labels (v2.SanitizeBoundingBoxes)."
        raise InputError(
            expected("the transform", f"as many of each as {len(boxes)} boxes", lengths, fix=fix)
        )
    chosen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if bool(chosen.all()):
        return sample
    return {**sample, "boxes": boxes[chosen], **{name: sample[name][chosen] for name in fields}}
