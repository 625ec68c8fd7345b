"""Ground truth as it is in the annotation file: carried unchanged beside the resized image, for metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from visionkit.types import Sample, Truth

__all__ = ["encode_masks", "make_truth", "plain_truth", "sample_truth", "truth_from_plain"]


def make_truth(
    boxes: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    iscrowd: npt.ArrayLike | None = None,
    area: npt.ArrayLike | None = None,
    masks: Sequence[Mapping[str, Any]] | None = None,
    keypoints: npt.ArrayLike | None = None,
    image_id: int | None = None,
) -> Truth:
    """Return the ground truth of an image.

    Args:
        boxes: `(N, 4)` absolute xyxy in the frame of the original image.
        labels: `(N,)` from 0.
        iscrowd: `(N,)` 0/1; all 0 if not given.
        area: `(N,)` annotated areas; NaN, or not given: the area of the box.
        masks: N run lengths.
        keypoints: `(N, K, 3)` x, y, flag.
        image_id: The id of the image in the file.
    """
    # Copies: a loader's process frees a tensor's memory when it sends it, also under an array that shares it.
    class_ids = np.array(labels, dtype=np.int64).reshape(-1)
    truth: Truth = {
        "boxes": np.array(boxes, dtype=np.float64).reshape(-1, 4),
        "labels": class_ids,
        "iscrowd": np.zeros_like(class_ids) if iscrowd is None else np.array(iscrowd, dtype=np.int64),
        "area": np.full(len(class_ids), np.nan) if area is None else np.array(area, dtype=np.float64),
    }
    if masks is not None:
        truth["masks"] = [dict(mask) for mask in masks]
    if keypoints is not None:
        points: npt.NDArray[np.float64] = np.array(keypoints, dtype=np.float64)
        # As plain values no object has no points: then their number is not known.
        truth["keypoints"] = points if points.ndim == 3 else points.reshape(len(class_ids), 0, 3)
    if image_id is not None:
        truth["image_id"] = image_id
    return truth


def sample_truth(sample: Sample) -> Truth:
    """Return the `truth` of a sample, or else its boxes and masks, which no geometry may have changed.

    Args:
        sample: A sample with `boxes` and `labels`, not yet resized.
    """
    if "truth" in sample:
        return sample["truth"]
    return make_truth(
        sample["boxes"].numpy(),
        sample["labels"].numpy(),
        iscrowd=sample["iscrowd"].numpy() if "iscrowd" in sample else None,
        area=sample["area"].numpy() if "area" in sample else None,
        masks=encode_masks(sample["masks"]) if "masks" in sample else None,
        keypoints=sample["keypoints"].numpy() if "keypoints" in sample else None,
    )


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Return run lengths of masks.

    Args:
        masks: `(N, H, W)` of 0 and 1.
    """
    if not len(masks):
        return []
    stacked = np.asfortranarray(masks.to(torch.uint8).permute(1, 2, 0).cpu().numpy())
    runs: list[dict[str, Any]] = coco_mask.encode(stacked)
    return runs


def plain_truth(truth: Truth) -> dict[str, Any]:
    """Return a truth as lists, numbers and texts, which JSON stores exactly.

    Args:
        truth: The ground truth of an image.
    """
    plain: dict[str, Any] = {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in truth.items()
    }
    plain["area"] = [None if area != area else area for area in plain["area"]]
    if "masks" in truth:
        plain["masks"] = [[list(mask["size"]), mask["counts"].decode("ascii")] for mask in truth["masks"]]
    return plain


def truth_from_plain(plain: Mapping[str, Any]) -> Truth:
    """Return the truth that `plain_truth` wrote.

    Args:
        plain: What it returned.
    """
    masks = plain.get("masks")
    return make_truth(
        plain["boxes"],
        plain["labels"],
        iscrowd=plain["iscrowd"],
        area=[np.nan if area is None else area for area in plain["area"]],
        masks=None if masks is None else [{"size": s, "counts": c.encode("ascii")} for s, c in masks],
        keypoints=plain.get("keypoints"),
        image_id=plain.get("image_id"),
    )
