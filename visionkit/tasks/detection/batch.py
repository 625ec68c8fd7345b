"""Detection batches taken apart and checked before they reach compiled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.data.boxes import check_boxes, plain_boxes
from visionkit.errors import InputError, expected
from visionkit.tasks.batch_parts import read_parts

__all__ = ["in_original", "original_size", "plain_target", "read_batch"]

Parts = tuple[list[Tensor], Sequence[Mapping[str, Any]], Sequence[str] | None]


def read_batch(
    batch: Any, *, num_classes: int, masks: bool, num_keypoints: int = 0, channels: int = 3
) -> Parts:
    """Return images, targets and ids; boxes of torchvision's types as plain xyxy.

    What is on the host is checked; what a loader hands over on a GPU already is not, because every step would
    wait for it.

    Args:
        batch: The batch.
        num_classes: Foreground classes.
        masks: Whether masks are required.
        num_keypoints: How many keypoints an object must have; 0: none are required.
        channels: Channels of an image.

    Raises:
        DataError: The first error of the first faulty image.
        InputError: Targets are missing.
    """
    given, targets, ids = read_parts(_with_targets(batch), "targets")
    images = list(given)
    if not isinstance(targets, Sequence) or len(targets) != len(images):
        got = len(targets) if isinstance(targets, Sequence) else type(targets).__name__
        raise InputError(expected("targets", f"one for each of {len(images)} images", got))
    plain = []
    for index, (image, given_target) in enumerate(zip(images, targets, strict=True)):
        target = _with_labels(given_target, image)
        name = ids[index] if ids else f"image {index} of the batch"
        if not isinstance(image, Tensor) or image.device.type == "cpu":
            carried = target.get("truth", {}) if isinstance(target, Mapping) else {}
            errors = check_boxes(
                image,
                target,
                num_classes=num_classes,
                name=name,
                masks=masks and "masks" not in carried,
                num_keypoints=num_keypoints,
                channels=channels,
            )
            if errors:
                raise errors[0]
        plain.append(plain_target(target, image))
    return images, plain, ids


def _with_targets(batch: Any) -> Any:
    """Return a batch as torchgeo gives it (boxes and labels beside the images) with its targets."""
    if not isinstance(batch, Mapping) or "targets" in batch or "bbox_xyxy" not in batch:
        return batch
    labels = batch["label"] if "label" in batch else batch.get("labels")
    if labels is None:
        return batch
    targets = [
        {"boxes": boxes, "labels": each} for boxes, each in zip(batch["bbox_xyxy"], labels, strict=True)
    ]
    if "mask" in batch:
        targets = [{**target, "masks": masks} for target, masks in zip(targets, batch["mask"], strict=True)]
    rest = {
        name: value for name, value in batch.items() if name not in ("bbox_xyxy", "label", "labels", "mask")
    }
    return {**rest, "targets": targets}


def _with_labels(target: Any, image: Any) -> Any:
    """Return a target as Hugging Face's processors give it (centre, size in 0 .. 1) with absolute xyxy."""
    if not isinstance(target, Mapping) or "class_labels" not in target or "boxes" not in target:
        return target
    height, width = (int(side) for side in target.get("size", image.shape[-2:]))
    centre, extent = target["boxes"].float().view(-1, 4).split(2, dim=1)
    scale = torch.tensor([width, height] * 2, device=centre.device)
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=1) * scale
    others = {name: target[name] for name in ("iscrowd", "masks") if name in target}
    return {"boxes": boxes, "labels": target["class_labels"], **others}


def plain_target(target: Mapping[str, Any], image: Tensor) -> Mapping[str, Any]:
    """Return a target whose boxes are a plain tensor, xyxy."""
    boxes = target.get("boxes")
    if not isinstance(boxes, Tensor) or type(boxes) is Tensor:
        return target
    return {**target, "boxes": plain_boxes(boxes, (int(image.shape[-2]), int(image.shape[-1])))}


def original_size(target: Mapping[str, Any], image: Tensor) -> tuple[int, int]:
    """Return `(H, W)` of the original image: the target's `size`, or the image's own."""
    height, width = target.get("size", image.shape[-2:])
    return int(height), int(width)


def in_original(target: Mapping[str, Any], image: Tensor, original: tuple[int, int]) -> Mapping[str, Any]:
    """Return the objects of a target in the original image's frame: its `truth`, where it carries one.

    A target without one gives its boxes, masks and keypoints resized, as well as this can be done.
    """
    if "truth" in target:
        truth: Mapping[str, Any] = target["truth"]
        return truth
    height, width = int(image.shape[-2]), int(image.shape[-1])
    out = {name: value for name, value in target.items() if isinstance(value, Tensor)}
    if (height, width) == original:
        return out
    scale = torch.tensor([original[1] / width, original[0] / height] * 2, device=target["boxes"].device)
    out["boxes"] = target["boxes"] * scale
    if "masks" in out:
        masks = out["masks"][:, None].float()
        out["masks"] = nn.functional.interpolate(masks, size=original, mode="nearest-exact")[:, 0].byte()
    if "keypoints" in out:
        out["keypoints"] = torch.cat((out["keypoints"][..., :2] * scale[:2], out["keypoints"][..., 2:]), -1)
    return out
