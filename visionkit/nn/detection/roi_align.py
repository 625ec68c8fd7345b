"""RoIAlign over the levels of a pyramid: by `embedding_bag` on a CPU, by torchvision's kernel else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import boxes as box_ops

__all__ = ["RoIPool", "roi_align", "roi_align_kernel"]

_PART = 256  # regions pooled at once without gradients: what they need fits the cache


def roi_align_kernel(
    features: Tensor,
    rois: Tensor,
    output_size: int,
    spatial_scale: float,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Pool regions by torchvision's kernel, also where only deterministic algorithms are allowed.

    There `torchvision.ops.roi_align` takes a much slower way on every device but a CPU. Only the kernel's
    backward adds in no fixed order, so without gradients it is deterministic.

    Args:
        features: Maps `(B, C, H, W)`.
        rois: Regions `(K, 5)`: index of the image, then xyxy in input pixels.
        output_size: Bins along a side.
        spatial_scale: Map positions per input pixel.
        sampling_ratio: Samples along a side of a bin; -1 takes as many as the bin has positions.
        aligned: See `roi_align`.

    Returns:
        `(K, C, output_size, output_size)`.
    """
    size = (output_size, output_size)
    pooled: Tensor = torch.ops.torchvision.roi_align(
        features, rois, spatial_scale, *size, sampling_ratio, aligned
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

    Every bin is a weighted sum of some positions of the map, so the operation is a weighted gather, and its
    backward a scatter, where torchvision's CPU kernel runs a scalar loop. Equal to
    `torchvision.ops.roi_align` up to rounding, samples outside the map included.

    Args:
        features: `(B, C, H, W)`; channels-last memory saves a copy.
        rois: `(K, 5)` image index and xyxy box in input pixels; they get no gradient.
        output_size: Bins along a side.
        spatial_scale: Map positions per input pixel.
        sampling_ratio: Samples along a side of a bin; at least 1.
        aligned: Shift boxes by half a map position, as Detectron2 does, so that the value of a position is
            that of its middle; torchvision's detectors do not.

    Returns:
        `(K, C, output_size, output_size)` in channels-last memory, in the type of `features`.

    He et al., Mask R-CNN, 2017. Reference: `torchvision.ops.roi_align`.
    """
    grid = _SamplingGrid(output_size, sampling_ratio, aligned)
    size = features.shape[-2:]
    table = _table(features)
    base = rois[:, 0].long() * (size[0] * size[1])  # (K,) the row where the map of the region's image begins
    levels = torch.zeros_like(base)
    index, weight = _bags(rois, levels, [spatial_scale], [(size[0], size[1])], grid, base, len(table))
    return _pool(table, index, weight, grid).to(features.dtype)


class RoIPool(nn.Module):
    """Pool boxes from the level of a pyramid that fits their size.

    On a CPU, and with gradients on a GPU where only deterministic algorithms are allowed, all levels are
    pooled by `embedding_bag`; elsewhere, and in a graph that is traced, each level is pooled by torchvision's
    kernel. The level of a box is that of eq. 1 of the FPN paper.

    Args:
        reductions: Input pixels per position of each level, fine to coarse.
        output_size: Bins along a side.
        sampling_ratio: Samples along a side of a bin; at least 1.
        aligned: See `roi_align`.

    Lin et al., Feature Pyramid Networks, 2017. Reference: `torchvision.ops.MultiScaleRoIAlign`.
    """

    def __init__(
        self, reductions: Sequence[int], *, output_size: int, sampling_ratio: int = 2, aligned: bool = False
    ) -> None:
        super().__init__()
        self.aligned = aligned
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
        images = torch.cat([torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)])  # (K, 1)
        return self.pool(features, torch.cat((images, torch.cat(tuple(boxes))), dim=1))

    def pool(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Pool regions: `(K, 5)`, the index of the image and xyxy in input pixels, to `(K, C, S, S)`.

        Args:
            features: One map a level, each `(B, C, H, W)`.
            rois: The regions.
        """
        features = features[: len(self.reductions)]
        levels = self.assign(rois[:, 1:])  # (K,)
        if needs_gradient(features[0]):
            ordered = torch.are_deterministic_algorithms_enabled()
            if features[0].device.type == "cpu" or ordered:
                return self._pool_bags(features, rois, levels)
        elif features[0].device.type == "cpu" and not torch.jit.is_tracing():  # type: ignore[attr-defined]
            return self._pool_parts(features, rois, levels)
        return self._pool_native(features, rois, levels)

    def assign(self, boxes: Tensor) -> Tensor:
        """Return the index of each box's level: a 224-pixel box belongs to reduction 16. `(K, 4) -> (K,)`."""
        coarsest = len(self.reductions) - 1
        if coarsest == 0:
            return torch.zeros_like(boxes[:, 0], dtype=torch.int64)
        side = box_ops.box_area(boxes.float()).sqrt()
        level = torch.floor(4 + torch.log2(side / 224) + 1e-6) - int(math.log2(self.reductions[0]))
        return level.clamp(0, coarsest).nan_to_num(0.0).long()

    def _pool_bags(self, features: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        # One table of all levels, so that the output needs no merging by level: (sum of B * H * W, C).
        table = torch.cat([_table(f) for f in features])
        return self._look_up(table, features, rois, levels).to(features[0].dtype)

    def _pool_parts(self, features: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        """Return what `_pool_bags` does, without gradients: some regions at a time, in warm memory."""
        bins, channels = self.output_size, features[0].shape[1]
        rows = [f.shape[0] * f.shape[-2] * f.shape[-1] for f in features]
        dtype = torch.promote_types(features[0].dtype, torch.float32)
        table = features[0].new_empty((sum(rows), channels), dtype=dtype)
        for part, maps in zip(table.split(rows), features, strict=True):
            by_position = maps.permute(0, 2, 3, 1)  # (B, H, W, C)
            part.view(by_position.shape).copy_(by_position)
        pooled = features[0].new_empty((len(rois), bins, bins, channels))
        for part, some, of_level in zip(pooled.split(_PART), rois.split(_PART), levels.split(_PART)):
            part.copy_(self._look_up(table, features, some, of_level).permute(0, 2, 3, 1))
        return pooled.permute(0, 3, 1, 2)

    def _look_up(self, table: Tensor, features: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        """Return `(K, C, bins, bins)` of regions `(K, 5)`, from the table of all levels' positions."""
        # Step 1: the row in the table where the map of each region's level and image begins: (K,).
        sizes = [(f.shape[-2], f.shape[-1]) for f in features]
        area = torch.tensor([h * w for h, w in sizes], device=rois.device)  # (L,)
        start = torch.cumsum(area * features[0].shape[0], 0) - area * features[0].shape[0]  # (L,)
        base = start[levels] + rois[:, 0].long() * area[levels]
        # Step 2: rows and weights of all samples, (K, bins, bins, 4s^2).
        scales = [1.0 / r for r in self.reductions]
        grid = _SamplingGrid(self.output_size, self.sampling_ratio, self.aligned)
        index, weight = _bags(rois, levels, scales, sizes, grid, base, len(table))
        # Step 3: the weighted sums.
        return _pool(table, index, weight, grid)

    def _pool_native(self, features: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        size = (self.output_size, self.output_size)
        # The kernel takes one dtype; boxes stay in theirs, since bfloat16 has 8 bits for a coordinate.
        dtype = torch.promote_types(features[0].dtype, rois.dtype)
        if len(features) == 1:  # no choice of level, whose number of regions a traced graph could not know
            maps, scale = features[0].to(dtype), 1.0 / self.reductions[0]
            only = self._kernel(maps, rois.to(dtype), scale)
            return only.to(features[0].dtype)
        pooled = features[0].new_zeros((rois.shape[0], features[0].shape[1], *size), dtype=dtype)
        for level, (maps, reduction) in enumerate(zip(features, self.reductions, strict=True)):
            index = torch.where(levels == level)[0]  # (K_l,)
            of_level = self._kernel(maps.to(dtype), rois[index].to(dtype), 1.0 / reduction)
            pooled = pooled.index_copy(0, index, of_level)
        return pooled.to(features[0].dtype)

    def _kernel(self, maps: Tensor, rois: Tensor, scale: float) -> Tensor:
        return roi_align_kernel(maps, rois, self.output_size, scale, self.sampling_ratio, self.aligned)


def needs_gradient(features: Tensor) -> bool:
    """Return whether maps are pooled to learn from.

    Backward the kernel is a scalar loop on a CPU, and adds in no fixed order on a GPU, where `embedding_bag`
    sorts its indices first.
    """
    return torch.is_grad_enabled() and features.requires_grad


class _SamplingGrid:
    """How a region is sampled.

    Args:
        bins: Bins along a side of a region.
        samples: Samples along a side of a bin.
        aligned: Whether boxes are shifted by half a map position.
    """

    def __init__(self, bins: int, samples: int, aligned: bool) -> None:
        if samples < 1:
            raise ValueError(f"Expected sampling_ratio to be at least 1, but got {samples}.")
        self.bins = bins
        self.samples = samples
        self.aligned = aligned


def _table(features: Tensor) -> Tensor:
    """Return a map as a table of positions, in float32 or better. `(B, C, H, W) -> (B * H * W, C)`."""
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    rows = wide.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)  # (B, H, W, C), no copy
    return rows.reshape(-1, features.shape[1])


def _bags(
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    sizes: Sequence[tuple[int, int]],
    grid: _SamplingGrid,
    base: Tensor,
    length: int,
) -> tuple[Tensor, Tensor]:
    """Return the rows of the table of positions that each bin sums, and their weights.

    A sample interpolates between 2 x 2 positions, so a bin of s x s samples sums 2s x 2s positions.

    Args:
        rois: `(K, 5)` image index and xyxy box in input pixels.
        levels: `(K,)` level of each region.
        scales: Map positions per input pixel of each level.
        sizes: `(H, W)` of the map of each level.
        grid: How regions are sampled.
        base: `(K,)` row of the table where the map of each region's level and image begins.
        length: Rows of the table.

    Returns:
        Row, `base + y * W + x`, and weight: both `(K, bins, bins, 4s^2)`.
    """
    # Step 1: boxes in map positions, (K, 4).
    level = levels.long()
    box = rois[:, 1:].detach().float() * torch.tensor(scales, device=rois.device)[level][:, None]
    if grid.aligned:
        box = box - 0.5
    extent = torch.tensor(sizes, device=rois.device)[level]  # (K, 2) height, width of the map
    x1, y1, x2, y2 = box.unbind(1)
    width, height = x2 - x1, y2 - y1
    if not grid.aligned:
        width, height = width.clamp(min=1.0), height.clamp(min=1.0)
    # Step 2: positions and weights along each axis, (K, bins, 2s).
    rows, row_weight = _axis_weights(y1, height, extent[:, 0], grid)
    columns, column_weight = _axis_weights(x1, width, extent[:, 1], grid)
    # Step 3: their outer sums and products over the bins. All positions of a bin, (K, bins, 4s^2), are laid
    # out first, so that the large sums run over 4s^2 neighbours. int32 rows halve the memory traffic; a table
    # of 2**31 rows or more needs int64.
    dtype = torch.int32 if length < 2**31 else torch.int64
    rows = (rows * extent[:, 1].view(-1, 1, 1) + base.view(-1, 1, 1)).to(dtype)
    index = _each_row(rows)[:, :, None] + _each_column(columns.to(dtype))[:, None]
    weight = _each_row(row_weight)[:, :, None] * _each_column(column_weight)[:, None]
    return index, weight


def _each_row(values: Tensor) -> Tensor:
    """Return for each position of a bin the value of its row. `(K, bins, 2s) -> (K, bins, 4s^2)`."""
    return values[..., :, None].expand(*values.shape, values.shape[-1]).flatten(2)


def _each_column(values: Tensor) -> Tensor:
    """Return for each position of a bin the value of its column. `(K, bins, 2s) -> (K, bins, 4s^2)`."""
    return values[..., None, :].expand(*values.shape, values.shape[-1]).flatten(2)


def _axis_weights(
    start: Tensor, length: Tensor, extent: Tensor, grid: _SamplingGrid
) -> tuple[Tensor, Tensor]:
    """Return positions and weights of linear interpolation along one axis.

    Args:
        start: `(K,)` where each region begins, in map positions.
        length: `(K,)` its length.
        extent: `(K,)` length of the map.
        grid: How regions are sampled.

    Returns:
        Position (int64) and weight, both `(K, bins, 2 * samples)`: two positions a sample.
    """
    # Step 1: where the samples lie, (K, bins, samples).
    bins, samples = grid.bins, grid.samples
    step = (length / bins)[:, None, None]
    edge = start[:, None, None] + torch.arange(bins, device=start.device)[:, None] * step  # (K, bins, 1)
    at = edge + (torch.arange(samples, device=start.device) + 0.5) * step / samples
    # Step 2: samples more than one position outside the map weigh nothing; others are moved onto its border.
    last = (extent - 1)[:, None, None]
    inside = (at >= -1.0) & (at <= extent[:, None, None])
    at = at.clamp(min=0.0)
    # Step 3: the positions before and after each sample. They are clamped once more as integers: a box that
    # is not finite must not read outside the table.
    low = torch.minimum(at.nan_to_num(0.0).long().clamp(min=0), last)
    high = torch.minimum(low + 1, last)
    at = torch.where(low >= last, low.to(at.dtype), at)
    # Step 4: the weights, (K, bins, samples, 2): a bin is the mean of its samples.
    fraction = at - low
    weight = torch.stack((1 - fraction, fraction), dim=-1) * (inside[..., None] / samples)
    positions = torch.stack((low, high), dim=-1)
    return positions.flatten(2), weight.flatten(2)


def _pool(table: Tensor, index: Tensor, weight: Tensor, grid: _SamplingGrid) -> Tensor:
    """Sum the weighted rows of each bin. `(P, C)` and `(K, bins, bins, 4s^2) -> (K, C, bins, bins)`."""
    count = 4 * grid.samples**2  # positions a bin
    weights = weight.reshape(-1, count).to(table.dtype)  # (K * bins * bins, 4 * s * s)
    indices = index.reshape(-1, count)
    pooled = F.embedding_bag(indices, table, mode="sum", per_sample_weights=weights)  # (K * bins * bins, C)
    return pooled.view(-1, grid.bins, grid.bins, table.shape[1]).permute(0, 3, 1, 2)
