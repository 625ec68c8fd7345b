"""Crop, resize, flip and affine map of a sample: image, boxes, masks, class map and keypoints together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from visionkit.data.transforms.reduced import DeferredImage, resize_part
from visionkit.errors import InputError, expected
from visionkit.types import Sample

__all__ = ["affine", "crop_resize", "flip"]

_MIN_VISIBILITY = 0.25  # with less of its area in the crop, an object cannot be recognised reliably
_GREY = 114  # where an affine map shows nothing of the image
_IGNORE = 255  # the class of such pixels in a class map


def crop_resize(
    sample: Sample,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    *,
    min_visibility: float = _MIN_VISIBILITY,
) -> Sample:
    """Crop a box of the sample and resize it, in one antialiased step.

    Boxes are cut at the border; one with less than `min_visibility` of its area inside is dropped, together
    with its label, mask, crowd flag, area and keypoints. Class maps and masks take the nearest pixel, so no
    class is invented. A keypoint outside the crop becomes one that is not labelled (flag 0).

    Args:
        sample: A sample with an image `(3, H, W)` uint8, or a JPEG that is decoded now (`DeferredImage`);
            boxes, masks, mask and keypoints are moved when present.
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
        out.pop("region", None)
    out["image"] = _crop(sample["image"], box, size)
    if "mask" in sample:
        out["mask"] = _nearest(sample["mask"][None, top : top + height, left : left + width], size)[0]
    if "masks" in sample:
        out["masks"] = _nearest(sample["masks"][:, top : top + height, left : left + width], size)
    if "keypoints" in sample:
        scale = torch.tensor([size[1] / width, size[0] / height])
        out["keypoints"] = _moved(
            sample["keypoints"], (sample["keypoints"][..., :2] - torch.tensor([left, top])) * scale, size
        )
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

    Each keypoint becomes the one that it is in the mirrored image: a left knee a right one.

    Args:
        sample: A sample with an image `(3, H, W)`; with keypoints it has `keypoint_flip` too.

    Raises:
        InputError: It does not tell what a mirror makes of its keypoints.
    """
    out = sample.copy()
    out.pop("truth", None)
    out.pop("region", None)
    out["image"] = sample["image"].flip(-1)
    if "mask" in sample:
        out["mask"] = sample["mask"].flip(-1)
    if "masks" in sample:
        out["masks"] = sample["masks"].flip(-1)
    if "boxes" in sample:
        left, top, right, bottom = sample["boxes"].unbind(1)
        width = sample["image"].shape[-1]
        out["boxes"] = torch.stack((width - right, top, width - left, bottom), dim=1)
    if "keypoints" in sample:
        if "keypoint_flip" not in sample:
            fix = "Leave mirrors out, or name the points so that each of a side has a partner."
            raise InputError(
                expected("a sample that is mirrored", "one with 'keypoint_flip'", list(sample), fix=fix)
            )
        points = sample["keypoints"][:, sample["keypoint_flip"]].clone()  # (N, K, 3)
        points[..., 0] = sample["image"].shape[-1] - points[..., 0]
        out["keypoints"] = points
    return out


def affine(
    sample: Sample,
    matrix: Tensor,
    size: tuple[int, int],
    *,
    min_visibility: float = _MIN_VISIBILITY,
) -> Sample:
    """Map a sample by an affine matrix: a rotation, a scale, a crop that may reach beyond the image.

    The image is interpolated bilinearly, without antialiasing: resize it first where it becomes much smaller.
    What it does not show is grey (class maps: 255). Boxes become those around their mapped corners, cut at
    the border; what is hidden is dropped as by `crop_resize`.

    Args:
        sample: A sample with an image `(3, H, W)` uint8.
        matrix: `(2, 3)` float64, from coordinates (x, y, 1) of the image to those of the result, in pixels
            from the top left corner.
        size: `(height, width)` of the result.
        min_visibility: Smallest fraction of a box's area that must lie inside the result.

    Returns:
        A new sample without `truth`.
    """
    out = sample.copy()
    out.pop("truth", None)
    out.pop("region", None)
    grid = _source_grid(matrix, sample["image"].shape[-2:], size)
    pixels = sample["image"][None].float() - _GREY
    image = grid_sample(pixels, grid.float(), mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    out["image"] = (image + _GREY).round_().clamp_(0, 255).to(sample["image"].dtype)
    for name, fill in (("mask", _IGNORE), ("masks", 0)):
        if name in sample:
            out[name] = _nearest_at(sample[name], grid[0], fill)  # type: ignore[literal-required]
    if "keypoints" in sample:
        out["keypoints"] = _moved(sample["keypoints"], _map(sample["keypoints"][..., :2], matrix), size)
    if "boxes" in sample:
        corners = sample["boxes"][:, [0, 1, 2, 1, 2, 3, 0, 3]].view(-1, 4, 2)
        corners = _map(corners, matrix)  # (N, 4, 2)
        full = torch.cat((corners.amin(1), corners.amax(1)), 1)
        boxes = full.clone()
        boxes[:, 0::2] = boxes[:, 0::2].clamp(0, size[1])
        boxes[:, 1::2] = boxes[:, 1::2].clamp(0, size[0])
        before, after = ((each[:, 2:] - each[:, :2]).prod(1) for each in (full, boxes))
        out["boxes"] = boxes
        out = _select_objects(out, (after > 0) & (after >= min_visibility * before))
    return out


def _source_grid(matrix: Tensor, given: tuple[int, ...], size: tuple[int, int]) -> Tensor:
    """Return where each pixel of the result lies in the image, `(1, height, width, 2)` in -1 .. 1."""
    inverse = torch.linalg.inv(matrix[:, :2].double())
    rows, columns = (torch.arange(side, dtype=torch.float64) + 0.5 for side in size)
    at = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (height, width, 2) x, y
    source: Tensor = (at - matrix[:, 2].double()) @ inverse.T
    scale = 2 / torch.tensor([given[1], given[0]], dtype=torch.float64)
    return (source * scale - 1)[None]


def _nearest_at(maps: Tensor, grid: Tensor, fill: int) -> Tensor:
    """Return integer maps `(..., H, W)` at the pixels of a grid `(h, w, 2)`; `fill` where there is none."""
    sides = torch.tensor([maps.shape[-1], maps.shape[-2]], dtype=torch.float64)
    columns, rows = ((grid + 1) / 2 * sides).floor().long().unbind(-1)
    inside = (columns >= 0) & (columns < sides[0]) & (rows >= 0) & (rows < sides[1])
    picked = maps[..., rows.clamp(0, maps.shape[-2] - 1), columns.clamp(0, maps.shape[-1] - 1)]
    return torch.where(inside, picked, torch.full_like(picked, fill))


def _map(points: Tensor, matrix: Tensor) -> Tensor:
    """Return points `(..., 2)` mapped by a matrix `(2, 3)`."""
    return (points.double() @ matrix[:, :2].double().T + matrix[:, 2].double()).to(points.dtype)


def _moved(points: Tensor, moved: Tensor, size: tuple[int, int]) -> Tensor:
    """Return points `(N, K, 3)` at other coordinates; those outside an image have the flag 0."""
    limit = moved.new_tensor([size[1], size[0]])
    inside = ((moved >= 0) & (moved <= limit)).all(-1, keepdim=True)
    return torch.cat((moved, points[..., 2:] * inside), -1)


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
    if "keypoints" in sample:
        sample["keypoints"] = sample["keypoints"][chosen]
    return sample


def _crop(image: Tensor | DeferredImage, box: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    if isinstance(image, DeferredImage):
        image, part = image.decode(box, size)
        if part != box:
            return resize_part(image, part, size)
    top, left, height, width = box
    return _resize(image[:, top : top + height, left : left + width], size)


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
