"""RoIAlign over the levels of a pyramid: one `embedding_bag` for gradients, the kernel elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import boxes as box_ops

__all__ = ["RoIPool", "roi_align", "roi_align_kernel"]


def roi_align_kernel(
    features: Tensor, rois: Tensor, output_size: int, spatial_scale: float, sampling_ratio: int = -1
) -> Tensor:
    """Pool regions by torchvision's kernel, also where only deterministic algorithms are allowed.

    `torchvision.ops.roi_align` leaves its kernel for another form there, slower by far, on every device but
    a CPU. Only the kernel's backward adds in no fixed order, so without gradients it is safe.

    Args:
        features: Maps `(B, C, H, W)`.
        rois: Regions `(K, 5)`: number of the image, then xyxy in input pixels.
        output_size: Bins a side.
        spatial_scale: Positions of the map per input pixel.
        sampling_ratio: Samples a side of a bin; -1 takes as many as the bin has positions.

    Returns:
        `(K, C, output_size, output_size)`.
    """
    size = (output_size, output_size)
    pooled: Tensor = torch.ops.torchvision.roi_align(
        features, rois, spatial_scale, *size, sampling_ratio, False
    )
    return pooled


def roi_align(
    features: Tensor,
    rois: Tensor,
    *,
    output_size: int,
    spatial_scale: float,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Tensor:
    """Pool regions to a fixed size as one `embedding_bag` over the table of all map positions.

    Every bin is a weighted sum of a few positions of the map, so the whole operation is one gather with
    weights; its backward is one scatter, where torchvision's CPU kernel runs a scalar loop. Equal to
    `torchvision.ops.roi_align` up to rounding, samples outside the map included.

    Args:
        features: `(B, C, H, W)`; channels-last memory saves a copy.
        rois: `(K, 5)` image index and xyxy box in input pixels; they get no gradient.
        output_size: Bins along a side.
        spatial_scale: Map positions per input pixel.
        sampling_ratio: Samples along a side of a bin; at least 1.
        aligned: Shift boxes by half a map position (Detectron2's form); off is torchvision's detectors' form.

    Returns:
        `(K, C, output_size, output_size)` in channels-last memory, in the type of `features`.

    He et al., Mask R-CNN, 2017. Reference: `torchvision.ops.roi_align`.
    """
    shape = _Shape(output_size, sampling_ratio, aligned)
    size = features.shape[-2:]
    index, weight = _bags(rois, torch.zeros_like(rois[:, 0]), [spatial_scale], [(size[0], size[1])], shape)
    base = rois[:, 0].long() * (size[0] * size[1])
    return _pool(_table(features), index + base.view(-1, 1, 1, 1, 1), weight, shape).to(features.dtype)


class RoIPool(nn.Module):
    """Pool boxes from the level of a pyramid that fits their size.

    Where gradients are wanted on a CPU, or on a GPU where only deterministic algorithms are allowed, all
    levels are pooled by one `embedding_bag`; elsewhere each level is pooled by torchvision's kernel. A box's
    level follows eq. 1 of the FPN paper.

    Args:
        reductions: Input pixels per position of each level, fine to coarse.
        output_size: Bins along a side.
        sampling_ratio: Samples along a side of a bin; at least 1.

    Lin et al., Feature Pyramid Networks, 2017. Reference: `torchvision.ops.MultiScaleRoIAlign`.
    """

    def __init__(self, reductions: Sequence[int], *, output_size: int, sampling_ratio: int = 2) -> None:
        super().__init__()
        self.reductions = tuple(reductions)
        self.output_size = output_size
        self.sampling_ratio = sampling_ratio

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pool the boxes of every image.

        Args:
            features: One map a level, each `(B, C, H, W)`.
            boxes: For each image `(N, 4)` xyxy in input pixels.

        Returns:
            `(sum of N, C, output_size, output_size)` in the order of `boxes`.
        """
        features = features[: len(self.reductions)]
        first = torch.cat(tuple(boxes))  # (K, 4)
        images = torch.cat([torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)])  # (K, 1)
        rois = torch.cat((images, first), dim=1)
        levels = self.assign(first)
        if _by_table(features[0]):
            return self._pool_bags(features, rois, levels)
        return self._pool_native(features, rois, levels)

    def assign(self, boxes: Tensor) -> Tensor:
        """Return the index of each box's level: a 224-pixel box belongs to reduction 16. `(K, 4) -> (K,)`."""
        coarsest = len(self.reductions) - 1
        if coarsest == 0:
            return torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        side = box_ops.box_area(boxes.float()).sqrt()
        level = torch.floor(4 + torch.log2(side / 224) + 1e-6) - int(math.log2(self.reductions[0]))
        return level.clamp(0, coarsest).nan_to_num(0.0).long()

    def _pool_bags(self, features: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        sizes = [(f.shape[-2], f.shape[-1]) for f in features]
        scales = [1.0 / r for r in self.reductions]
        shape = _Shape(self.output_size, self.sampling_ratio, aligned=False)
        index, weight = _bags(rois, levels, scales, sizes, shape)
        area = torch.tensor([h * w for h, w in sizes], device=rois.device)
        start = torch.cumsum(area * features[0].shape[0], 0) - area * features[0].shape[0]
        base = start[levels] + rois[:, 0].long() * area[levels]
        table = torch.cat([_table(f) for f in features])  # one table: the output needs no merging by level
        return _pool(table, index + base.view(-1, 1, 1, 1, 1), weight, shape).to(features[0].dtype)

    def _pool_native(self, features: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        size = (self.output_size, self.output_size)
        # The kernel wants one type, and boxes keep theirs: eight bits could not hold a place.
        wide = torch.promote_types(features[0].dtype, rois.dtype)
        pooled = features[0].new_zeros((len(rois), features[0].shape[1], *size), dtype=wide)
        for level, (maps, reduction) in enumerate(zip(features, self.reductions, strict=True)):
            where = torch.where(levels == level)[0]
            chosen = rois[where].to(wide)
            found = roi_align_kernel(
                maps.to(wide), chosen, self.output_size, 1.0 / reduction, self.sampling_ratio
            )
            pooled = pooled.index_copy(0, where, found)
        return pooled.to(features[0].dtype)


def _by_table(features: Tensor) -> bool:
    """Return whether gradients are wanted where the kernel's are slow (a CPU) or may not be had.

    The kernel's backward on a GPU adds in no fixed order; a table's is sorted first.
    """
    if not (torch.is_grad_enabled() and features.requires_grad):
        return False
    return features.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()


class _Shape:
    """How a region is sampled: bins a side, samples a side of a bin, and the half-position shift."""

    def __init__(self, bins: int, samples: int, aligned: bool) -> None:
        if samples < 1:
            raise ValueError(f"Expected sampling_ratio to be at least 1, but got {samples}.")
        self.bins = bins
        self.samples = samples
        self.aligned = aligned


def _table(features: Tensor) -> Tensor:
    """Return the map as a table of positions. `(B, C, H, W) -> (B * H * W, C)`."""
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    rows = wide.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return rows.reshape(-1, features.shape[1])


def _bags(
    rois: Tensor, levels: Tensor, scales: Sequence[float], sizes: Sequence[tuple[int, int]], shape: _Shape
) -> tuple[Tensor, Tensor]:
    """Return position within the region's map and weight of every tap: both `(K, bins, bins, 2s, 2s)`."""
    level = levels.long()
    box = rois[:, 1:].detach().float() * torch.tensor(scales, device=rois.device)[level][:, None]
    if shape.aligned:
        box = box - 0.5
    extent = torch.tensor(sizes, device=rois.device)[level]  # (K, 2) height, width
    x1, y1, x2, y2 = box.unbind(1)
    wide, high = x2 - x1, y2 - y1
    if not shape.aligned:
        wide, high = wide.clamp(min=1.0), high.clamp(min=1.0)
    rows, row_weight = _taps(y1, high, extent[:, 0], shape)  # (K, bins, 2s)
    columns, column_weight = _taps(x1, wide, extent[:, 1], shape)
    index = (rows * extent[:, 1].view(-1, 1, 1))[:, :, None, :, None] + columns[:, None, :, None, :]
    weight = row_weight[:, :, None, :, None] * column_weight[:, None, :, None, :]
    return index, weight


def _taps(start: Tensor, length: Tensor, extent: Tensor, shape: _Shape) -> tuple[Tensor, Tensor]:
    """Return positions and weights of the taps along one axis: both `(K, bins, 2 * samples)`."""
    bins, samples = shape.bins, shape.samples
    step = (length / bins)[:, None, None]
    edge = start[:, None, None] + torch.arange(bins, device=start.device)[:, None] * step
    at = edge + (torch.arange(samples, device=start.device) + 0.5) * step / samples  # (K, bins, samples)
    last = (extent - 1)[:, None, None]
    inside = (at >= -1.0) & (at <= extent[:, None, None])
    at = at.clamp(min=0.0)
    # Positions are clamped once more as integers: a non-finite box must not read outside the table.
    low = torch.minimum(at.nan_to_num(0.0).long().clamp(min=0), last)
    high = torch.minimum(low + 1, last)
    at = torch.where(low >= last, low.to(at.dtype), at)
    part = at - low
    weight = torch.stack((1 - part, part), dim=-1) * (inside[..., None] / samples)
    taps = torch.stack((low, high), dim=-1)
    return taps.flatten(2), weight.flatten(2)


def _pool(table: Tensor, index: Tensor, weight: Tensor, shape: _Shape) -> Tensor:
    """Sum the weighted rows of each bin. `(P, C)` and `(K, bins, bins, 2s, 2s) -> (K, C, bins, bins)`."""
    taps = 4 * shape.samples**2
    # 32-bit positions halve the traffic; a table that long does not fit them.
    kind = torch.int32 if len(table) < 2**31 else torch.int64
    weights = weight.reshape(-1, taps).to(table.dtype)
    pooled = F.embedding_bag(index.reshape(-1, taps).to(kind), table, mode="sum", per_sample_weights=weights)
    return pooled.view(-1, shape.bins, shape.bins, table.shape[1]).permute(0, 3, 1, 2)
