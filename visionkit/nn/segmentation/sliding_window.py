"""Sliding-window inference: averaged logits of overlapping windows, computed strip by strip.

Windows start at multiples of the network's coarsest reduction, so that their maps are aligned with the maps
of the full image. Pixels within `margin` of a window's inner border do not count; where the margin covers the
receptive field, the result equals that of the full image. (Only approximately for a network that resizes its
maps to a size that is no multiple of its reduction.) Strips are computed from top to bottom: memory is that
of one strip, a window high and the image wide, for any image height.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from visionkit.errors import InputError

__all__ = ["Windows", "sliding_labels", "sliding_logits"]


@dataclass(frozen=True)
class Windows:
    """How an image is divided into windows.

    Args:
        size: Side of a window in pixels.
        stride: Pixels from one window to the next, rounded down to a multiple of `multiple`.
        margin: Pixels along a window's inner borders that are left out.
        multiple: The starts of windows are multiples of this: the coarsest reduction of the network.
        batch: Windows of one size that go through the network together.

    Raises:
        InputError: The windows would leave pixels out.
    """

    size: int
    stride: int
    margin: int = 0
    multiple: int = 32
    batch: int = 1

    def __post_init__(self) -> None:
        if min(self.size, self.stride, self.multiple, self.batch) < 1 or self.margin < 0:
            raise InputError(f"Expected positive sizes of windows, but got {self}.")
        max_stride = self.size - 2 * self.margin
        if not self.multiple <= self.stride <= max_stride:
            raise InputError(
                f"Expected a stride from {self.multiple} (the network's coarsest reduction) to {max_stride} "
                f"(the window less its margins), but got {self.stride} for windows of {self.size} with "
                f"margin {self.margin}. Larger strides would leave pixels out; take larger "
                "windows or a smaller margin."
            )

    def spans(self, length: int) -> list[tuple[int, int]]:
        """Return (start, end) of the windows along a side of `length` pixels, first to last."""
        step = self.stride // self.multiple * self.multiple
        spans, start = [], 0
        while start + self.size < length:
            spans.append((start, start + self.size))
            start += step
        # The last window ends with the image and has the full size, up to the alignment of its start, so that
        # the image's end has as much context as the rest.
        first = max(0, length - self.size)
        start = min(start, -(-first // self.multiple) * self.multiple)
        return [*spans, (start, length)]


def sliding_logits(predict: Callable[[Tensor], Tensor], image: Tensor, windows: Windows) -> Tensor:
    """Return the averaged logits of every pixel.

    Args:
        predict: Images `(B, 3, h, w)` to logits `(B, C, h, w)`.
        image: `(3, H, W)`.
        windows: How the image is divided.

    Returns:
        `(C, H, W)` on the device of the logits.
    """
    return torch.cat([strip for _, strip in _strips(predict, image, windows)], dim=1)


def sliding_labels(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    windows: Windows,
    *,
    decide: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the class of every pixel; memory does not grow with the image's height.

    Args:
        predict: Images `(B, 3, h, w)` to logits `(B, C, h, w)`.
        image: `(3, H, W)`; it may stay on the CPU if `predict` moves what it is given.
        windows: How the image is divided.
        decide: Logits `(1, C, h, W)` to classes `(1, h, W)`; the largest logit if not given.

    Returns:
        `(H, W)` int64 on the device of the logits.
    """
    labels: list[Tensor] = []
    for _, strip in _strips(predict, image, windows):
        labels.append(strip.argmax(0) if decide is None else decide(strip[None])[0])
    return torch.cat(labels)


def _strips(
    predict: Callable[[Tensor], Tensor], image: Tensor, windows: Windows
) -> Iterator[tuple[int, Tensor]]:
    """Yield (top, finished logits (C, h, W)) from top to bottom."""
    height, width = image.shape[-2:]
    rows, columns = windows.spans(height), windows.spans(width)
    overlap_of_previous: tuple[Tensor, Tensor] | None = None
    for index, (top, bottom) in enumerate(rows):
        total, weight = _row(predict, image[:, top:bottom], windows, columns, top > 0, bottom < height)
        if overlap_of_previous is not None:
            overlap = overlap_of_previous[0].shape[1]
            total[:, :overlap] += overlap_of_previous[0]
            weight[:overlap] += overlap_of_previous[1]
        finished = (rows[index + 1][0] if index + 1 < len(rows) else height) - top
        yield top, total[:, :finished] / weight[:finished]
        overlap_of_previous = total[:, finished:].clone(), weight[finished:].clone()


def _row(
    predict: Callable[[Tensor], Tensor],
    band: Tensor,
    windows: Windows,
    columns: list[tuple[int, int]],
    inner_top: bool,
    inner_bottom: bool,
) -> tuple[Tensor, Tensor]:
    """Return the summed logits (C, h, W) and weights (h, W) of one row of windows over a band (3, h, W)."""
    height, width = band.shape[-2:]
    total: Tensor | None = None
    weight: Tensor | None = None
    for group in _batches(columns, windows.batch):
        logits = predict(torch.stack([band[:, :, left:right] for left, right in group])).float()
        if total is None or weight is None:
            total = logits.new_zeros(logits.shape[1], height, width)
            weight = logits.new_zeros(height, width)
        for values, (left, right) in zip(logits, group, strict=True):
            # the part of the window without the margins of its inner borders
            inner_top_row = windows.margin if inner_top else 0
            inner_bottom_row = height - (windows.margin if inner_bottom else 0)
            inner_left = left + (windows.margin if left > 0 else 0)
            inner_right = right - (windows.margin if right < width else 0)
            total[:, inner_top_row:inner_bottom_row, inner_left:inner_right] += values[
                :, inner_top_row:inner_bottom_row, inner_left - left : inner_right - left
            ]
            weight[inner_top_row:inner_bottom_row, inner_left:inner_right] += 1.0
    if total is None or weight is None:
        raise InputError("Expected an image with at least one pixel, but got an empty one.")
    return total, weight


def _batches(columns: list[tuple[int, int]], batch: int) -> Iterator[list[tuple[int, int]]]:
    """Yield batches of at most `batch` neighbouring windows of one width."""
    group: list[tuple[int, int]] = []
    for left, right in columns:
        if group and (len(group) == batch or right - left != group[0][1] - group[0][0]):
            yield group
            group = []
        group.append((left, right))
    if group:
        yield group
