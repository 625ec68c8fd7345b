"""Near-duplicates of a data set: one photograph in two splits, or twice in one, by small copies of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from visionkit.config import check_number, limits
from visionkit.errors import DataError
from visionkit.retrieval.gallery import SPLITS, GalleryItem
from visionkit.retrieval.neighbors import search_parts

__all__ = ["MAX_DISTANCE", "Duplicate", "DuplicateReport", "distinct", "find_duplicates"]

MAX_DISTANCE = 0.01
_COARSE, _FINE = 8, 16  # pixels of the sides of the small copies
_CANDIDATES = 4  # nearest coarse copies whose fine ones are compared
_CHUNK = 1024  # images that are read before the next are handed out
_FLAT = 1.0  # deviation of pixels below which a copy shows nothing to compare

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Duplicate:
    """An image, and the image that is most like it.

    Args:
        image: The image.
        other: The one that it is like.
        distance: 1 minus the correlation of their small copies.
        same_content: Whether both files have the same bytes.
    """

    image: GalleryItem
    other: GalleryItem
    distance: float
    same_content: bool


@dataclass
class DuplicateReport:
    """The near-duplicates of a data set.

    Args:
        max_distance: The distance up to which images count as duplicates.
        between: By two splits, the images of the second that have one in the first.
        within: By split, the images that have one among the others of it.
        counts: Images of each split that were compared.
        flat: Images of one colour all over, which are not compared.
        unread: Images that could not be read, with the error.
    """

    max_distance: float
    between: dict[tuple[str, str], list[Duplicate]] = field(default_factory=dict)
    within: dict[str, list[Duplicate]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    flat: int = 0
    unread: list[tuple[str, DataError]] = field(default_factory=list)

    def text(self, *, max_examples: int = 5) -> str:
        """Return what there is, with the nearest examples, one on a line.

        Args:
            max_examples: Examples of each pair of splits.
        """
        total = sum(self.counts.values())
        lines = [
            f"near-duplicates, of {total:,} images that were compared (distance up to {self.max_distance:g}; "
            "0 is equal)"
        ]
        for (first, second), pairs in self.between.items():
            lines.append(f"  {len(pairs):,} of {self.counts[second]:,} {second} images have one in {first}")
            lines += _examples(pairs, max_examples)
        for split, pairs in self.within.items():
            lines.append(f"  {len(pairs):,} of {self.counts[split]:,} {split} images have one within {split}")
            lines += _examples(distinct(pairs), max_examples)
        if self.flat:
            lines.append(f"  {self.flat:,} images of one colour all over were not compared")
        if self.unread:
            lines.append(
                f"  {len(self.unread):,} images could not be read and were not compared, the first: "
                f"{self.unread[0][1]}"
            )
        return "\n".join(lines)


def find_duplicates(
    items: Sequence[GalleryItem],
    *,
    max_distance: float = MAX_DISTANCE,
    threads: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> DuplicateReport:
    """Return the images that have a near-duplicate in another split or in their own.

    Images are compared as 16 x 16 pixels in colour, less the mean of each channel and at one contrast, so
    that another compression, size or brightness changes little: the distance is 1 minus the correlation. The
    candidates are the nearest of 8 x 8 pixels, searched exactly.

    Args:
        items: The images, with their splits.
        max_distance: The distance up to which images count as duplicates, 0 to 1.
        threads: Threads that read; 0: one a core, 8 at most.
        progress: Called after each image.

    Raises:
        InputError: A value is out of its limits.
    """
    check_number("max_distance", max_distance, limits(min=0, max=1))
    report = DuplicateReport(max_distance)
    read, coarse, fine = _copies(items, report, threads or min(8, os.cpu_count() or 1), progress)
    parts = {
        split: np.array([row for row, item in enumerate(read) if item.split == split], dtype=np.int64)
        for split in dict.fromkeys(item.split for item in read)
    }
    order = [split for split in ("", *SPLITS) if split in parts]
    report.counts = {split: len(parts[split]) for split in order}
    for position, second in enumerate(order):
        for first in order[: position + 1]:
            pairs = [
                Duplicate(read[one], read[other], distance, _same(read[one], read[other]))
                for one, other, distance in _nearest(coarse, fine, parts[second], parts[first])
                if distance <= max_distance
            ]
            pairs.sort(key=lambda pair: pair.distance)
            if first == second:
                report.within[first] = pairs
            else:
                report.between[first, second] = pairs
    return report


def _copies(
    items: Sequence[GalleryItem], report: DuplicateReport, threads: int, progress: Callable[[], object]
) -> tuple[list[GalleryItem], Floats, Floats]:
    """Return the images that can be compared, and their small copies `(N, 192)` and `(N, 768)`."""
    read, coarse, fine = [], [], []
    with ThreadPoolExecutor(threads, thread_name_prefix="duplicates") as pool:
        for start in range(0, len(items), _CHUNK):
            part = items[start : start + _CHUNK]
            for item, made in zip(part, pool.map(_copy, part), strict=True):
                progress()
                if isinstance(made, DataError):
                    report.unread.append((item.name, made))
                elif made is None:
                    report.flat += 1
                else:
                    read.append(item)
                    coarse.append(made[0])
                    fine.append(made[1])
    empty = np.empty((0, 3 * _COARSE**2), np.float32), np.empty((0, 3 * _FINE**2), np.float32)
    return read, np.stack(coarse) if read else empty[0], np.stack(fine) if read else empty[1]


def _copy(item: GalleryItem) -> tuple[Floats, Floats] | DataError | None:
    """Return both small copies of an image, of mean 0 and length 1; None for one colour all over."""
    try:
        image: Tensor = item.read()
    except DataError as error:
        return error
    canvas = Image.fromarray(image[:3].permute(1, 2, 0).contiguous().numpy())  # (3, H, W) -> (H, W, 3)
    copies = []
    for side in (_COARSE, _FINE):
        pixels = np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float64)
        pixels = pixels - pixels.mean((0, 1))  # of each channel: a tint is no likeness
        if np.square(pixels).mean() < _FLAT**2:
            return None
        pixels = pixels.ravel()
        copies.append((pixels / np.sqrt(np.square(pixels).sum())).astype(np.float32))
    return copies[0], copies[1]


def _nearest(
    coarse: Floats, fine: Floats, queries: NDArray[np.int64], gallery: NDArray[np.int64]
) -> list[tuple[int, int, float]]:
    """Return for each query the other image of the gallery that is most like it, with the distance."""
    count = min(len(gallery), _CANDIDATES + 1)
    if not len(queries) or not len(gallery):
        return []
    rows = search_parts(coarse[queries], [coarse[gallery]], k=count, metric="l2").rows
    nearest = []
    for query, candidates in zip(queries.tolist(), gallery[rows], strict=True):
        others = candidates[candidates != query][:_CANDIDATES]
        if len(others):
            products = fine[others].astype(np.float64) @ fine[query].astype(np.float64)
            best = int(products.argmax())
            nearest.append((query, int(others[best]), max(0.0, 1 - float(products[best]))))
    return nearest


def distinct(pairs: Sequence[Duplicate]) -> list[Duplicate]:
    """Return the pairs, but of two images that are each most like the other the first pair alone."""
    seen: dict[frozenset[int], Duplicate] = {}
    for pair in pairs:
        seen.setdefault(frozenset((id(pair.image), id(pair.other))), pair)
    return list(seen.values())


def _same(one: GalleryItem, other: GalleryItem) -> bool:
    return one.digest() == other.digest()


def _examples(pairs: Sequence[Duplicate], count: int) -> list[str]:
    lines = []
    for pair in pairs[:count]:
        how = "the same content" if pair.same_content else f"{pair.distance:.4f}"
        lines.append(f"    {pair.image.name}  is like  {pair.other.name}  ({how})")
    more = len(pairs) - len(lines)
    return [*lines, f"    ... and {more:,} more pairs"] if more else lines
