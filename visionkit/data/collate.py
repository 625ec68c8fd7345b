"""Collates: samples to a batch, of one preallocated uint8 tensor, or of lists where images differ in size.

Without samples, as for a process that has none in an evaluation, a collate returns `{"ids": []}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from visionkit.errors import DataError
from visionkit.types import Sample

__all__ = ["caption_batch", "keypoint_batch", "list_batch", "mask_batch", "stack_batch"]

Batch = dict[str, Any]


def stack_batch(samples: Sequence[Sample]) -> Batch:
    """Make a `ClassificationBatch`.

    Args:
        samples: Images `(3, H, W)` of one size with `label`: () int64, or (K,) float32.

    Returns:
        `images` (B, 3, H, W) uint8 channels last, `labels` (B,) int64 or (B, K) float32 where there are
        labels, `gallery` (B,) bool where samples say so (`WithGallery`), `ids`. Without samples:
        `{"ids": []}`.

    Raises:
        DataError: Images differ in size.
    """
    if not samples:
        return {"ids": []}
    batch: Batch = {"images": _stack_images(samples), "ids": _ids(samples)}
    if _all_have(samples, "label"):
        batch["labels"] = torch.stack([sample["label"] for sample in samples])
    if _all_have(samples, "gallery"):
        batch["gallery"] = torch.stack([sample["gallery"] for sample in samples])
    return batch


def list_batch(samples: Sequence[Sample]) -> Batch:
    """Make a `DetectionBatch`.

    Args:
        samples: Images of any size with `boxes` and `labels`, perhaps `masks`, `keypoints`, `iscrowd`,
            `area`, `truth`.

    Returns:
        `images` a list of (3, H, W) uint8, `targets` a list of dicts of the fields a sample has, `ids`.
        Without samples: `{"ids": []}`.
    """
    if not samples:
        return {"ids": []}
    fields = ("boxes", "labels", "masks", "keypoints", "iscrowd", "area", "size", "truth")
    targets = [{name: value for name, value in sample.items() if name in fields} for sample in samples]
    return {"images": [sample["image"] for sample in samples], "targets": targets, "ids": _ids(samples)}


def keypoint_batch(samples: Sequence[Sample]) -> Batch:
    """Make a `KeypointBatch`.

    Args:
        samples: Images `(3, H, W)` of one size, and where they are known `keypoints` `(1, K, 3)` of the one
            object, `region` and `truth` (`KeypointCrop` gives them).

    Returns:
        `images` (B, 3, H, W) uint8 channels last and, where samples have them, `keypoints` (B, K, 3) float32,
        `regions` (B, 4) float32, `truths` a list; `ids`. Without samples: `{"ids": []}`.

    Raises:
        DataError: Images differ in size, or a sample is of another number of objects than one.
    """
    if not samples:
        return {"ids": []}
    batch: Batch = {"images": _stack_images(samples), "ids": _ids(samples)}
    if _all_have(samples, "keypoints"):
        for sample in samples:
            if len(sample["keypoints"]) != 1:
                raise DataError(
                    f"Expected the keypoints of one object, but got those of {len(sample['keypoints'])}. "
                    "Make a sample of each object: visionkit.data.per_object(splits).",
                    path=sample.get("id"),
                    field="keypoints",
                )
        batch["keypoints"] = torch.stack([sample["keypoints"][0] for sample in samples])
    if _all_have(samples, "region"):
        batch["regions"] = torch.stack([sample["region"] for sample in samples])
    if _all_have(samples, "truth"):
        batch["truths"] = [sample["truth"] for sample in samples]
    return batch


def mask_batch(samples: Sequence[Sample]) -> Batch:
    """Make a `SegmentationBatch`: stacked where all images have one size, lists otherwise.

    Args:
        samples: Images, and where they are known `mask` (H, W) int64.

    Returns:
        `images` (B, 3, H, W) uint8 and, where samples have them, `masks` (B, H, W) int64, or lists of both;
        `ids`. Without samples: `{"ids": []}`.
    """
    if not samples:
        return {"ids": []}
    batch: Batch = {"ids": _ids(samples)}
    alike = len({sample["image"].shape for sample in samples}) == 1
    batch["images"] = _stack_images(samples) if alike else [sample["image"] for sample in samples]
    if _all_have(samples, "mask"):
        masks = [sample["mask"] for sample in samples]
        batch["masks"] = torch.stack(masks) if alike else masks
    return batch


def caption_batch(
    samples: Sequence[Sample],
    *,
    encode: Callable[[str], Sequence[int]],
    pad: int = 0,
    captions_per_image: int = 1,
) -> Batch:
    """Make a `CaptionBatch`; bind `encode` with `functools.partial` to get a collate.

    Args:
        samples: Images of one size with `captions`, or all without; the first of each give the tokens (a
            transform may choose others by moving them to the front, see `DrawCaptions`).
        encode: Turns a sentence into token ids, with begin and end tokens.
        pad: The id that fills short rows.
        captions_per_image: Sentences of each image in the loss; the image is encoded once, and one with fewer
            sentences repeats them.

    Returns:
        `images` (B, 3, H, W) uint8, `ids` and, where samples have captions, `tokens` (B, L) or, with K > 1
        captions an image, (B, K, L) int64, `references` every caption of each image, and `boxes` and
        `labels`, one of each an image. Without samples: `{"ids": []}`.
    """
    if not samples:
        return {"ids": []}
    if not _all_have(samples, "captions"):
        return {"images": _stack_images(samples), "ids": _ids(samples)}
    rows = [
        list(encode(sample["captions"][number % len(sample["captions"])]))
        for sample in samples
        for number in range(captions_per_image)
    ]
    tokens = torch.full((len(rows), max(len(row) for row in rows)), pad, dtype=torch.int64)
    for target, row in zip(tokens, rows, strict=True):
        target[: len(row)] = torch.as_tensor(row, dtype=torch.int64)
    batch: Batch = {
        "images": _stack_images(samples),
        # (B, L) or (B, K, L)
        "tokens": tokens if captions_per_image == 1 else tokens.view(len(samples), captions_per_image, -1),
        "references": [list(sample["captions"]) for sample in samples],
        "ids": _ids(samples),
    }
    for name in ("boxes", "labels"):
        if name in samples[0]:
            batch[name] = [sample[name] for sample in samples]
    return batch


def _all_have(samples: Sequence[Sample], field: str) -> bool:
    """Return True where all samples have a field, False where none has (predictions); refuse a mix."""
    missing = [sample.get("id", f"sample {i}") for i, sample in enumerate(samples) if field not in sample]
    if 0 < len(missing) < len(samples):
        raise DataError(
            f"Expected all samples of a batch to have '{field}', or none, but {len(missing)} of "
            f"{len(samples)} lack it. Leave those out, or predict them separately.",
            path=missing[0],
            field=field,
        )
    return not missing


def _ids(samples: Sequence[Sample]) -> list[str]:
    return [sample.get("id", "") for sample in samples]


def _stack_images(samples: Sequence[Sample]) -> Tensor:
    """Copy each image once, into one channels-last tensor."""
    first = samples[0]["image"]
    images = torch.empty(
        (len(samples), *first.shape), dtype=first.dtype, memory_format=torch.channels_last
    )  # (B, 3, H, W)
    for target, sample in zip(images, samples, strict=True):
        if sample["image"].shape != first.shape:
            raise DataError(
                f"Expected images of one size to stack, but got {tuple(first.shape)} and "
                f"{tuple(sample['image'].shape)}. Let the transform resize to one size.",
                path=sample.get("id"),
                field="image",
            )
        target.copy_(sample["image"])
    return images
