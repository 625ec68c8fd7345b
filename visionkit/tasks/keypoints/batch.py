"""Keypoint batches: what is checked in them, and points in the frames of the original images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from visionkit.data.boxes import wrong_points
from visionkit.distributed import widest_float
from visionkit.errors import DataError, InputError, expected
from visionkit.nn.keypoints.precision import widened
from visionkit.tasks.batch_parts import check_count, read_parts

__all__ = ["Truths", "original_truths", "read_keypoints", "regions_of", "to_original"]


class Truths(NamedTuple):
    """The objects of a batch in the frames of their original images."""

    keypoints: Tensor  # (B, K, 3) float64 x, y, flag
    boxes: Tensor  # (B, 4) float64 xyxy
    areas: Tensor  # (B,) float64; NaN: that of the box

    def of_images(self) -> list[dict[str, Tensor]]:
        """Return each object as the only one of an image, as `KeypointAP` takes it; of one class."""
        return [
            {"keypoints": k[None], "boxes": b[None], "area": a[None], "labels": a.new_zeros(1)}
            for k, b, a in zip(*self, strict=True)
        ]


def read_keypoints(batch: Any, count: int) -> tuple[Any, Tensor, list[str] | None]:
    """Return images, keypoints `(B, K, 3)` and ids of a batch; keypoints on the host are checked.

    Args:
        batch: As for `read_parts`. Its keypoints are `(B, K, 3)` x, y, flag, or `(B, K, 2)`, all labelled.
        count: K.

    Raises:
        InputError: Something is missing, or of another shape.
        DataError: A labelled point is not finite, or a flag is none of 0, 1 and 2; their images are named.
    """
    images, given, ids = read_parts(batch, "keypoints")
    try:
        points = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(expected("keypoints", f"a tensor (B, {count}, 3)", type(given).__name__)) from None
    if points.ndim == 4 and points.shape[1] == 1:  # one object an image
        points = points[:, 0]
    if points.ndim != 3 or points.shape[1] != count or points.shape[2] not in (2, 3):
        fix = "Give x, y and a flag for each point of the skeleton (visionkit.data.keypoint_batch)."
        raise InputError(expected("keypoints", f"(B, {count}, 3)", tuple(points.shape), fix=fix))
    check_count("keypoints", points, images)
    points = points.float()
    if points.shape[2] == 2:
        points = torch.cat((points, torch.full_like(points[..., :1], 2)), dim=-1)
    if points.device.type == "cpu":
        _check(points, ids)
    return images, points, ids


def _check(points: Tensor, ids: Sequence[str] | None) -> None:
    bad = wrong_points(points).any(1)
    if not bool(bad.any()):
        return
    rows = bad.nonzero().flatten().tolist()[:5]
    named = ", ".join(str(ids[row]) if ids else f"image {row} of the batch" for row in rows)
    raise DataError(
        "Expected finite x and y and a flag of 1 (hidden) or 2 (visible) for every labelled point, but not "
        f"so in {int(bad.sum())} images: {named}. Give points that are not labelled the flag 0.",
        field="keypoints",
    )


def regions_of(batch: Any, images: Any) -> Tensor | None:
    """Return what each image of a batch shows of its original, `(B, 4)`; None where the batch has none.

    Args:
        batch: A batch.
        images: Its images.

    Raises:
        InputError: It has regions, but not one an image.
    """
    regions = batch.get("regions") if isinstance(batch, Mapping) else None
    if regions is not None and tuple(regions.shape) != (len(images), 4):
        raise InputError(expected("regions", f"({len(images)}, 4) xyxy", tuple(regions.shape)))
    return regions


def to_original(points: Tensor, regions: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Return points in pixels of the original images, `(B, K, 2)`.

    Args:
        points: `(B, K, 2)` as fractions of the sides of the images that the network saw.
        regions: `(B, 4)` xyxy, what those images show of the originals; None: they are the originals.
        size: `(H, W)` of the images that the network saw.
    """
    wide = widened(points)
    if regions is None:
        return wide * wide.new_tensor([size[1], size[0]])
    frame = regions.to(wide)[:, None]  # (B, 1, 4)
    return frame[..., :2] + wide * (frame[..., 2:] - frame[..., :2])


def original_truths(batch: Any, keypoints: Tensor, regions: Tensor | None, size: tuple[int, int]) -> Truths:
    """Return the objects of a batch in the frames of their original images.

    Args:
        batch: A batch. Its "truths", one an image, are the objects as the annotation file has them.
        keypoints: `(B, K, 3)` in pixels of the batch's images: what is scored where there are no truths; the
            box of an object is then that of its labelled points.
        regions: See `to_original`.
        size: See `to_original`.

    Raises:
        InputError: The truths are not one an image, or not of one object.
    """
    truths = batch.get("truths") if isinstance(batch, Mapping) else None
    device, wide = keypoints.device, widest_float(keypoints.device)
    if truths is None:
        sides = keypoints.new_tensor([size[1], size[0]])
        points = to_original(keypoints[..., :2] / sides, regions, size)
        points = torch.cat((points, keypoints[..., 2:].to(points)), dim=-1).to(wide)
        known = points[..., 2:] > 0
        low = points[..., :2].where(known, points.new_full((), torch.inf)).amin(1)
        high = points[..., :2].where(known, points.new_full((), -torch.inf)).amax(1)
        boxes = torch.cat((low, high), dim=1).where(known.any(1), points.new_zeros(()))
        return Truths(points, boxes, areas=points.new_full((len(points),), torch.nan))
    check_count("truths", truths, keypoints)
    for truth in truths:
        if len(truth["labels"]) != 1:
            fix = "Make a sample of each object: visionkit.data.per_object(splits)."
            raise InputError(expected("the truth of an image", "one object", len(truth["labels"]), fix=fix))

    def joined(name: str) -> Tensor:
        rows = [np.asarray(truth.get(name, [np.nan]), dtype=np.float64)[0] for truth in truths]
        return torch.from_numpy(np.stack(rows)).to(device, wide)

    return Truths(joined("keypoints"), joined("boxes"), joined("area"))
