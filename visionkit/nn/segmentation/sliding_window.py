"""A large image in windows: the logits of overlapping windows, averaged, strip by strip.

The starts of the windows are multiples of the network's coarsest reduction, so that a window's maps lie on
the grid of the whole image's. Pixels within `margin` of a window's inner border are left to its neighbours;
where the margin covers the field of view, the result is the whole image's. (A network that stretches its
maps onto a size that is no multiple of its reduction moves its grid, so there it agrees only nearly.) Strips
are finished from top to bottom and handed out one by one: what is held at a time is a window high and the
image wide, whatever its height.
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
    """How an image is cut.

    Args:
        size: Side of a window in pixels.
        stride: Pixels from one window to the next, rounded down to a multiple of `multiple`.
        margin: Pixels along a window's inner borders that do not count.
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
        reach = self.size - 2 * self.margin
        if not self.multiple <= self.stride <= reach:
            raise InputError(
                f"Expected a stride from {self.multiple} (the network's coarsest reduction) to {reach} "
                f"(the window less its margins), but got {self.stride} for windows of {self.size} with "
                f"margin {self.margin}. "
                "Larger strides would leave pixels out; take larger windows or a smaller margin."
            )

    def spans(self, length: int) -> list[tuple[int, int]]:
        """Return (start, end) of the windows along a side of `length` pixels, first to last."""
        step = self.stride // self.multiple * self.multiple
        spans, start = [], 0
        while start + self.size < length:
            spans.append((start, start + self.size))
            start += step
        # The last window ends with the image. It reaches back as far as a whole window does, so that the
        # image's end is seen with as much context as the rest.
        first = max(0, length - self.size)
        start = min(start, -(-first // self.multiple) * self.multiple)
        return [*spans, (start, length)]


def sliding_logits(predict: Callable[[Tensor], Tensor], image: Tensor, windows: Windows) -> Tensor:
    """Return the averaged logits of every pixel.

    Args:
        predict: Images `(B, 3, h, w)` to logits `(B, C, h, w)`.
        image: `(3, H, W)`.
        windows: How the image is cut.

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
        windows: How the image is cut.
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
    carried: tuple[Tensor, Tensor] | None = None
    for index, (top, bottom) in enumerate(rows):
        total, weight = _row(predict, image[:, top:bottom], windows, columns, top > 0, bottom < height)
        if carried is not None:
            overlap = carried[0].shape[1]
            total[:, :overlap] += carried[0]
            weight[:overlap] += carried[1]
        finished = (rows[index + 1][0] if index + 1 < len(rows) else height) - top
        yield top, total[:, :finished] / weight[:finished]
        carried = total[:, finished:].clone(), weight[finished:].clone()


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
    for group in _alike(columns, windows.batch):
        logits = predict(torch.stack([band[:, :, left:right] for left, right in group])).float()
        if total is None or weight is None:
            total = logits.new_zeros(logits.shape[1], height, width)
            weight = logits.new_zeros(height, width)
        for values, (left, right) in zip(logits, group, strict=True):
            # the part of the window that counts: all of it but the margins of its inner borders
            up = windows.margin if inner_top else 0
            down = height - (windows.margin if inner_bottom else 0)
            near = left + (windows.margin if left > 0 else 0)
            far = right - (windows.margin if right < width else 0)
            total[:, up:down, near:far] += values[:, up:down, near - left : far - left]
            weight[up:down, near:far] += 1.0
    if total is None or weight is None:
        raise InputError("Expected an image with at least one pixel, but got an empty one.")
    return total, weight


def _alike(columns: list[tuple[int, int]], batch: int) -> Iterator[list[tuple[int, int]]]:
    """Yield runs of at most `batch` neighbouring windows of one width."""
    group: list[tuple[int, int]] = []
    for left, right in columns:
        if group and (len(group) == batch or right - left != group[0][1] - group[0][0]):
            yield group
            group = []
        group.append((left, right))
    if group:
        yield group
