"""Checks of boxes and labels before they reach compiled code: finite, upright, inside, one class each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visionkit.errors import DataError, InputError
from visionkit.pixels import pixel_error

__all__ = ["BAD_BOXES", "CUT", "MAX_CUT", "SLACK", "box_error", "check_boxes", "plain_boxes", "wrong_points"]

SLACK = 1.0  # pixels a box may reach beyond the image: annotators and 1-based formats round
MAX_CUT = 0.5  # fraction of boxes over the border above which they are hardly in the format they are read in
CUT = "boxes that reach over the border of their images, cut there"
BAD_BOXES = "boxes that cannot be right, left out"


def box_error(box: Sequence[float], size: tuple[int, int] | None = None) -> str | None:
    """Return what is wrong with a box, or None.

    Args:
        box: xyxy in pixels.
        size: `(H, W)` of the image, if it is known.
    """
    x1, y1, x2, y2 = box
    # Every box of every training step comes here, so a right one takes two chains of comparisons only, which
    # NaN and infinity fail. The rest of the function finds the text.
    if size is None:
        if -math.inf < x1 < x2 < math.inf and -math.inf < y1 < y2 < math.inf:
            return None
    elif (
        -SLACK <= x1 < x2 <= size[1] + SLACK and x2 > 0 and x1 < size[1]
        and -SLACK <= y1 < y2 <= size[0] + SLACK and y2 > 0 and y1 < size[0]
    ):  # fmt: skip
        return None
    if not all(math.isfinite(value) for value in box):
        return f"Expected finite coordinates, but got {list(box)}."
    if x2 < x1 or y2 < y1:
        return f"Expected x1 < x2 and y1 < y2, but got {list(box)}: the corners are swapped."
    if x2 == x1 or y2 == y1:
        return f"Expected a box with an area, but got {list(box)}."
    height, width = size or (math.inf, math.inf)
    inside = f"inside the image of {width} x {height} pixels"
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return f"Expected a box {inside}, but {list(box)} lies outside."
    return f"Expected a box {inside}, but {list(box)} reaches beyond it. Cut it at the border."


def plain_boxes(boxes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Return boxes as a plain tensor `(N, 4)` of absolute xyxy, from any upright format of torchvision's.

    Args:
        boxes: A plain tensor, which is taken to be xyxy, or `tv_tensors.BoundingBoxes`.
        size: `(H, W)` of the image; the boxes' canvas must be that.

    Raises:
        InputError: The boxes are rotated, or lie on a canvas of another size.
    """
    if type(boxes) is Tensor:
        return boxes  # without an import of torchvision, which takes seconds
    from torchvision.transforms.v2.functional import convert_bounding_box_format
    from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

    if not isinstance(boxes, BoundingBoxes):
        return boxes.as_subclass(Tensor)
    kind = boxes.format
    if kind not in (BoundingBoxFormat.XYXY, BoundingBoxFormat.XYWH, BoundingBoxFormat.CXCYWH):
        raise InputError(
            f"Expected upright boxes (XYXY, XYWH or CXCYWH), but got {kind.value}: rotated ones."
        )
    canvas = tuple(int(side) for side in boxes.canvas_size)
    if size is not None and canvas != size:
        raise InputError(
            f"Expected boxes on the canvas of their image, {size[0]} x {size[1]}, but theirs is "
            f"{canvas[0]} x {canvas[1]} (height x width). Give image and boxes to one transform together."
        )
    converted = convert_bounding_box_format(boxes, new_format=BoundingBoxFormat.XYXY)
    plain: Tensor = converted.as_subclass(Tensor)
    return plain if plain.is_floating_point() else plain.float()


def check_boxes(
    image: Any,
    target: Any,
    *,
    num_classes: int,
    name: str = "",
    masks: bool = False,
    num_keypoints: int = 0,
    channels: int = 3,
) -> list[DataError]:
    """Return every error of one image and its objects; nothing is repaired.

    Args:
        image: `(C, H, W)` uint8, or float in [0, 1].
        target: A dict of `boxes` `(N, 4)` xyxy float (or torchvision's `BoundingBoxes`), `labels` `(N,)`
            int64 from 0, and perhaps `masks`, `keypoints` and `iscrowd`. An image without
            objects has boxes `(0, 4)`.
        num_classes: Foreground classes.
        name: Name of the image in the errors.
        masks: Whether masks are required.
        num_keypoints: How many keypoints an object must have; 0: none are required.
        channels: Channels of an image.
    """
    errors: list[DataError] = []

    def add(message: str, field: str, record: int | None = None) -> None:
        errors.append(DataError(message, path=name or None, record=record, field=field))

    text = _image_error(image, channels)
    if text:
        add(text, "image")
    if not isinstance(target, Mapping):
        add(f"Expected a dict of boxes and labels, but got {type(target).__name__}.", "target")
        return errors
    boxes, labels = target.get("boxes"), target.get("labels")
    if isinstance(boxes, Tensor) and type(boxes) is not Tensor:
        try:
            boxes = plain_boxes(boxes, None if text else (int(image.shape[-2]), int(image.shape[-1])))
        except InputError as error:
            add(str(error), "boxes")
            return errors
    if not isinstance(boxes, Tensor) or boxes.ndim != 2 or boxes.shape[1] != 4:
        fix = "An image without objects has torch.zeros(0, 4)."
        add(f"Expected boxes (N, 4), but got {_shape_or_type(boxes)}. {fix}", "boxes")
    elif not boxes.is_floating_point():
        add(f"Expected boxes in floating point, but got {boxes.dtype}. Use boxes.float().", "boxes")
    else:
        size = None if text else (int(image.shape[-2]), int(image.shape[-1]))
        for index, box in enumerate(boxes.tolist()):
            text = box_error(box, size)
            if text:
                add(text, "boxes", index)
        if not errors and size and len(boxes) and min(size) > 8 and float(boxes.max()) <= 1.0:
            add(
                "Expected boxes in pixels, but all coordinates are at most 1: they look like fractions of "
                "the image. Multiply them by its width and height.",
                "boxes",
            )
    if not isinstance(labels, Tensor) or labels.ndim != 1:
        add(f"Expected labels (N,), but got {_shape_or_type(labels)}.", "labels")
        return errors
    if labels.dtype != torch.int64:
        add(f"Expected labels in int64, but got {labels.dtype}. Use labels.long().", "labels")
        return errors
    if isinstance(boxes, Tensor) and len(boxes) != len(labels):
        add(f"Expected one label for each of {len(boxes)} boxes, but got {len(labels)}.", "labels")
    for index, label in enumerate(labels.tolist()):
        if not 0 <= label < num_classes:
            fix = "Labels begin at 0; the detector adds the background itself."
            add(f"Expected a label in 0..{num_classes - 1}, but got {label}. {fix}", "labels", index)
    _check_extras(image, target, len(labels), masks, add)
    _check_keypoints(target.get("keypoints"), len(labels), num_keypoints, add)
    return errors


def _check_keypoints(points: Any, count: int, num_keypoints: int, add: Any) -> None:
    text = _keypoint_error(points, count, num_keypoints) if num_keypoints else None
    if text:
        add(text, "keypoints")


def _keypoint_error(points: Any, count: int, num_keypoints: int) -> str | None:
    shape = (count, num_keypoints, 3)
    if not isinstance(points, Tensor) or (tuple(points.shape) != shape and (count or points.numel())):
        fix = "Open the data set for keypoints." if points is None else "Each has x, y and a flag."
        return f"Expected keypoints {shape} for the keypoint head, but got {_shape_or_type(points)}. {fix}"
    if not points.is_floating_point():
        return f"Expected keypoints in floating point, but got {points.dtype}. Use keypoints.float()."
    points = points.reshape(shape)
    wrong = wrong_points(points)  # (N, K)
    if bool(wrong.any()):
        index, point = wrong.nonzero()[0].tolist()
        x, y, flag = points[index, point].tolist()
        return (
            "Expected finite coordinates and a flag of 1 (hidden) or 2 (visible) of every labelled keypoint, "
            f"but point {point} of object {index} is at ({x:g}, {y:g}) with flag {flag:g}. Give it the flag "
            "0, or correct it."
        )
    return None


def wrong_points(points: Tensor) -> Tensor:
    """Return which points cannot be right: COCO's flags are 0, 1 and 2, and a labelled point is somewhere.

    Args:
        points: `(..., 3)` x, y, flag.

    Returns:
        `(...)` bool.
    """
    flags = points[..., 2]
    known = (flags == 1) | (flags == 2)
    return (flags != 0) & ~(known & points.isfinite().all(-1))


def _check_extras(image: Any, target: Mapping[str, Any], count: int, required: bool, add: Any) -> None:
    crowd, masks = target.get("iscrowd"), target.get("masks")
    if isinstance(crowd, Tensor) and (
        crowd.shape != (count,) or not bool(((crowd == 0) | (crowd == 1)).all())
    ):
        add(f"Expected iscrowd ({count},) of 0 and 1, but got {_shape_or_type(crowd)}.", "iscrowd")
    if masks is None and not required:
        return
    if not isinstance(masks, Tensor):
        add(f"Expected masks (N, H, W) for the mask head, but got {_shape_or_type(masks)}.", "masks")
    elif isinstance(image, Tensor) and masks.shape != (count, *image.shape[-2:]):
        shape = (count, *image.shape[-2:])
        add(f"Expected masks {tuple(shape)}, but got {tuple(masks.shape)}.", "masks")


def _image_error(image: Any, channels: int) -> str | None:
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != channels:
        fix = "Make it RGB, channels first." if channels == 3 else "Channels come first."
        return f"Expected an image ({channels}, H, W), but got {_shape_or_type(image)}. {fix}"
    if not image.numel():
        return f"Expected an image with pixels, but got {tuple(image.shape)}."
    return pixel_error(image)


def _shape_or_type(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"{type(value).__name__}"
