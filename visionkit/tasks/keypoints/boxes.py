"""Crops of an image around given boxes, as the transforms of training make them."""

from __future__ import annotations

from typing import Any

import torch

from visionkit.data.collate import keypoint_batch
from visionkit.data.transforms.keypoints import fit_region, show_region
from visionkit.errors import InputError, expected
from visionkit.tasks.image_inputs import as_image
from visionkit.types import Sample

__all__ = ["crop_boxes"]


def crop_boxes(
    image: Any, boxes: Any, size: tuple[int, int] | None, *, padding: float, channels: int = 3
) -> dict[str, Any]:
    """Return a batch of an image for each box, with `regions` in the image.

    Args:
        image: See `visionkit.tasks.image_inputs.as_image`; uint8.
        boxes: `(N, 4)` xyxy in pixels of the image.
        size: `(height, width)` of the crops.
        padding: Factor of a box's sides.
        channels: Of the image.

    Raises:
        InputError: A box is not finite, or has no area, or the size is not known.
    """
    if size is None:
        fix = "Give image_size= when you build the task."
        raise InputError(expected("the size of the task's images", "(height, width)", None, fix=fix))
    if not padding > 0:
        raise InputError(expected("padding", "above 0", padding))
    pixels = as_image(image, channels=channels).cpu()
    if pixels.dtype != torch.uint8:
        raise InputError(expected("an image to cut boxes from", "uint8", str(pixels.dtype)))
    plain = torch.as_tensor(boxes).cpu().double()  # on the host first: not every device has float64
    if plain.shape == (0,):
        plain = plain.view(0, 4)  # an empty list
    if plain.ndim != 2 or plain.shape[1] != 4:
        raise InputError(expected("boxes", "(N, 4) xyxy", tuple(plain.shape)))
    bad = ~plain.isfinite().all(1) | (plain[:, 2:] <= plain[:, :2]).any(1)
    if bool(bad.any()):
        fix = "Boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2."
        raise InputError(expected("a box", "finite and with an area", plain[bad][0].tolist(), fix=fix))
    samples: list[Sample] = []
    for box in plain:
        region = fit_region(box, size, padding=padding)
        sample = show_region({"image": pixels}, region, size)
        sample["region"] = region.float()
        samples.append(sample)
    batch = keypoint_batch(samples)
    if samples:
        del batch["ids"]  # crops have no names
    return batch
