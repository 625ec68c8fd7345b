"""Crop, resize and flip of a sample: image, boxes, masks and class map together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from visionkit.types import Sample

__all__ = ["crop_resize", "flip"]

_MIN_VISIBILITY = 0.25  # with less of its area in the crop, an object cannot be recognised reliably


def crop_resize(
    sample: Sample,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    *,
    min_visibility: float = _MIN_VISIBILITY,
) -> Sample:
    """Crop a box of the sample and resize it, in one antialiased step.

    Boxes are cut at the border; one with less than `min_visibility` of its area inside is dropped, together
    with its label, mask, crowd flag and area. Class maps and masks take the nearest pixel, so no class is
    invented.

    Args:
        sample: A sample with an image `(3, H, W)` uint8; boxes, masks and mask are moved when present.
        box: `(top, left, height, width)` in pixels, inside the image.
        size: `(height, width)` of the result.
        min_visibility: Smallest fraction of a box's area that must lie inside the crop.

    Returns:
        A new sample; `size`, the size of the original image, is unchanged. `truth`, the objects in the
        original image, is removed by a crop, from which detections cannot be mapped back to the original.
    """
    top, left, height, width = box
    out = sample.copy()
    if (top, left, height, width) != (0, 0, *sample["image"].shape[-2:]):
        out.pop("truth", None)
    out["image"] = _resize(sample["image"][:, top : top + height, left : left + width], size)
    if "mask" in sample:
        out["mask"] = _nearest(sample["mask"][None, top : top + height, left : left + width], size)[0]
    if "masks" in sample:
        out["masks"] = _nearest(sample["masks"][:, top : top + height, left : left + width], size)
    if "boxes" in sample:
        boxes = sample["boxes"].clone()  # (N, 4) xyxy
        before = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        boxes[:, 0::2] = (boxes[:, 0::2] - left).clamp(0, width)
        boxes[:, 1::2] = (boxes[:, 1::2] - top).clamp(0, height)
        after = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        boxes[:, 0::2] *= size[1] / width
        boxes[:, 1::2] *= size[0] / height
        out["boxes"] = boxes
        out = _select_objects(out, (after > 0) & (after >= min_visibility * before))
    return out


def flip(sample: Sample) -> Sample:
    """Mirror the sample left to right; `truth`, which is of the original image, is removed.

    Args:
        sample: A sample with an image `(3, H, W)`.
    """
    out = sample.copy()
    out.pop("truth", None)
    out["image"] = sample["image"].flip(-1)
    if "mask" in sample:
        out["mask"] = sample["mask"].flip(-1)
    if "masks" in sample:
        out["masks"] = sample["masks"].flip(-1)
    if "boxes" in sample:
        left, top, right, bottom = sample["boxes"].unbind(1)
        width = sample["image"].shape[-1]
        out["boxes"] = torch.stack((width - right, top, width - left, bottom), dim=1)
    return out


def _select_objects(sample: Sample, chosen: Tensor) -> Sample:
    """Drop the objects that are not chosen from every field."""
    if bool(chosen.all()):
        return sample
    sample["boxes"] = sample["boxes"][chosen]
    if "labels" in sample:
        sample["labels"] = sample["labels"][chosen]
    if "masks" in sample:
        sample["masks"] = sample["masks"][chosen]
    if "iscrowd" in sample:
        sample["iscrowd"] = sample["iscrowd"][chosen]
    if "area" in sample:
        sample["area"] = sample["area"][chosen]
    return sample


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[-2:] == size:
        return image
    if min(*image.shape[-2:], *size) == 1:
        # With a side of one pixel the memory layout is ambiguous, and torch's uint8 kernel asserts on it.
        single: Tensor = interpolate(image[None].float(), size=size, mode="bilinear", antialias=True)
        return single[0].round().clamp(0, 255).to(image.dtype)
    if image.stride(0) == 1:
        # Contiguous channels last, with the stride of the batch as well: torch's vector kernel takes no other
        # layout, and copies any other.
        batch = image.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
    else:
        batch = image[None]
    resized: Tensor = interpolate(batch, size=size, mode="bilinear", antialias=True)
    return resized[0]


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize integer maps `(N, H, W)` by the nearest pixel centre."""
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    rows = ((torch.arange(size[0]) + 0.5) * (height / size[0])).long().clamp(max=height - 1)
    columns = ((torch.arange(size[1]) + 0.5) * (width / size[1])).long().clamp(max=width - 1)
    return maps[:, rows][:, :, columns]
