"""Outlines of COCO files: polygons and run lengths, bounded before they reach compiled code."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

__all__ = ["OutlineBuilder", "Outlines", "run_lengths"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NONE, POLYGONS, RUNS = 0, 1, 2
_STEPS = 50_000_000  # the compiled code walks a polygon in steps of a fifth of a pixel; it stores each
_BLOCK = 100_000  # polygons whose bounds are computed at once


class OutlineBuilder:
    """Takes the segmentations of a file one by one and keeps them in flat arrays."""

    def __init__(self) -> None:
        self._kind = array("b")
        self._points = array("d")
        self._polygon_end = array("q")
        self._last_polygon = array("q")
        self._counts = array("I")
        self._last_count = array("q")
        self._height, self._width = array("q"), array("q")

    def add(self, segmentation: Any) -> str | None:
        """Keep one more segmentation; return what was left out of it, if anything.

        A polygon of fewer than three points among others of three and more is left out.

        Raises:
            ValueError: It is no list of polygons and no run lengths; nothing is kept.
        """
        if segmentation is None or segmentation == []:
            self._close(NONE)
        elif isinstance(segmentation, list):
            return self._polygons(segmentation)
        elif isinstance(segmentation, dict):
            self._runs(segmentation)
        else:
            got = type(segmentation).__name__
            raise ValueError(f"Expected polygons [[x, y, ...], ...] or run lengths, but got a {got}.")
        return None

    def skip(self) -> None:
        """Keep an empty outline in place of one that cannot be read."""
        self._close(NONE)

    def done(self) -> Outlines:
        """Return what was kept."""
        return Outlines(
            kind=np.frombuffer(self._kind, dtype=np.int8),
            points=_frozen(self._points, np.float64).reshape(-1, 2),
            polygon_end=_frozen(self._polygon_end, np.int64) // 2,
            last_polygon=_frozen(self._last_polygon, np.int64),
            counts=_frozen(self._counts, np.uint32),
            last_count=_frozen(self._last_count, np.int64),
            runs_size=np.stack([_frozen(self._height, np.int64), _frozen(self._width, np.int64)], 1),
        )

    def _polygons(self, polygons: list[Any]) -> str | None:
        made = []
        short = ""
        for polygon in polygons:
            if not isinstance(polygon, list):
                raise ValueError(
                    f"Expected a list of polygons, each a list of numbers, but got {_short(polygon)} in it."
                )
            if len(polygon) < 6 or len(polygon) % 2:
                text = f"Expected a polygon of at least three points x, y, but got {len(polygon)} numbers."
                if len(polygon) > 4 or len(polygon) % 2:
                    raise ValueError(text)
                short = text
                continue
            try:
                made.append(array("d", polygon))
            except (TypeError, OverflowError):
                unexpected = next(v for v in polygon if not isinstance(v, int | float) or abs(v) > 1e300)
                raise ValueError(f"Expected numbers in a polygon, but got {_short(unexpected)}.") from None
        if not made:
            raise ValueError(short)
        for each in made:
            self._points.extend(each)
            self._polygon_end.append(len(self._points))
        self._close(POLYGONS)
        return short or None

    def _runs(self, runs: dict[str, Any]) -> None:
        size, counts = runs.get("size"), runs.get("counts")
        if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
            raise ValueError(f"Expected run lengths with size [height, width], but got size {_short(size)}.")
        height, width = size
        if not (0 < height < 2**31 and 0 < width < 2**31):
            raise ValueError(f"Expected run lengths of an image, but their size is {_short(size)}.")
        if isinstance(counts, str):
            made = run_lengths(counts)
        elif isinstance(counts, list):
            try:
                made = array("I", counts)
            except (TypeError, OverflowError):
                unexpected = next(v for v in counts if type(v) is not int or not 0 <= v < 2**32)
                raise ValueError(f"Expected counts from 0 up, but got {_short(unexpected)}.") from None
        else:
            raise ValueError(f"Expected counts as a list or a string, but got {_short(counts)}.")
        total = sum(made)
        if total != height * width:
            raise ValueError(
                f"Expected counts that add up to {height} x {width} = {height * width}, but got {total}."
            )
        self._counts.extend(made)
        self._close(RUNS, height, width)

    def _close(self, kind: int, height: int = 0, width: int = 0) -> None:
        self._kind.append(kind)
        self._last_polygon.append(len(self._polygon_end))
        self._last_count.append(len(self._counts))
        self._height.append(height)
        self._width.append(width)


@dataclass(frozen=True)
class Outlines:
    """The segmentations of a file in flat arrays: outline i ends where `last_...[i]` says.

    Args:
        kind: `(A,)` 0 none, 1 polygons, 2 run lengths.
        points: `(P, 2)` x, y of the corners of all polygons.
        polygon_end: Where in `points` each polygon ends.
        last_polygon: `(A,)` where in `polygon_end` each outline ends.
        counts: Run lengths, down the columns, beginning with the pixels outside.
        last_count: `(A,)` where in `counts` each outline ends.
        runs_size: `(A, 2)` the height and width that run lengths were made for.
    """

    kind: npt.NDArray[np.int8]
    points: Floats
    polygon_end: Ints
    last_polygon: Ints
    counts: npt.NDArray[np.uint32]
    last_count: Ints
    runs_size: Ints

    def errors(self, sizes: Ints) -> Iterator[tuple[int, str]]:
        """Yield the outlines that do not fit their images, each with what is wrong.

        Args:
            sizes: `(A, 2)` height and width of the image of each outline; 0 where it is not known.
        """
        owner = np.searchsorted(self.last_polygon, np.arange(len(self.polygon_end)), side="right")
        starts = np.concatenate(([0], self.polygon_end[:-1])) if len(self.polygon_end) else self.polygon_end
        for at in range(0, len(owner), _BLOCK):
            yield from self._polygon_errors(slice(at, at + _BLOCK), owner, starts, sizes)
        for index in np.flatnonzero((self.kind == RUNS) & (sizes[:, 0] > 0)).tolist():
            theirs, ours = self.runs_size[index].tolist(), sizes[index].tolist()
            if theirs != ours:
                yield index, f"Expected run lengths of size {ours} as the image's, but got {theirs}."

    def _polygon_errors(
        self, block: slice, owner: Ints, starts: Ints, sizes: Ints
    ) -> Iterator[tuple[int, str]]:
        owner, first, last = owner[block], starts[block], self.polygon_end[block]
        points = self.points[first[0] : last[-1]]
        cuts = first - first[0]
        with np.errstate(invalid="ignore", over="ignore"):
            low = np.minimum.reduceat(points, cuts)
            high = np.maximum.reduceat(points, cuts)
            step = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1)
            # The step from a polygon's last corner leads back to its first.
            step[last - first[0] - 1] = np.abs(points[last - first[0] - 1] - points[cuts]).max(axis=1)
            length = np.add.reduceat(step, cuts) * 5
        size = sizes[owner][:, ::-1].astype(np.float64)  # width, height
        finite = np.isfinite(np.concatenate((low, high), axis=1)).all(axis=1)
        # An outline may reach beyond its image, where it is cut off; by how far is bounded.
        far = ((low < -size) | (high > 2 * size)).any(1) & (size[:, 0] > 0)
        long = length > _STEPS
        for at in np.flatnonzero(~finite | far | long).tolist():
            box = [*low[at].tolist(), *high[at].tolist()]
            if not finite[at]:
                text = "Expected finite coordinates in a polygon, but got NaN or infinity."
            elif far[at]:
                wide, high_ = size[at].astype(int).tolist()
                text = f"Expected a polygon in the image of {wide} x {high_} pixels, but it spans {box}."
            else:
                text = f"Expected a polygon that can be filled, but its edges are {length[at] / 5:g} pixels."
            yield int(owner[at]), text

    def mask(self, index: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Return outline `index`, one that is not wrong, as `(H, W)` of 0 and 1."""
        height, width = size
        if self.kind[index] == RUNS:
            counts = self.counts[self._start(self.last_count, index) : self.last_count[index]]
            flat = np.repeat(np.arange(len(counts), dtype=np.uint8) & 1, counts)
            return flat.reshape(width, height).T
        if self.kind[index] == NONE:
            return np.zeros(size, dtype=np.uint8)
        filled: npt.NDArray[np.uint8] = coco_mask.decode(coco_mask.merge(self._polygon_runs(index, size)))
        return filled

    def runs(self, index: int, size: tuple[int, int]) -> dict[str, Any]:
        """Return outline `index`, one that is not wrong, as pycocotools' run lengths."""
        height, width = size
        if self.kind[index] == POLYGONS:
            merged: dict[str, Any] = coco_mask.merge(self._polygon_runs(index, size))
            return merged
        counts = [height * width]
        if self.kind[index] == RUNS:
            counts = self.counts[self._start(self.last_count, index) : self.last_count[index]].tolist()
        coded: dict[str, Any] = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, *size)
        return coded

    def _polygon_runs(self, index: int, size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return the run lengths of each polygon of an outline."""
        ends = self.polygon_end[self._start(self.last_polygon, index) : self.last_polygon[index]]
        first = self._start(self.last_polygon, index)
        begin = int(self.polygon_end[first - 1]) if first else 0
        parts = np.split(self.points[begin : ends[-1]], ends[:-1] - begin)
        runs: list[dict[str, Any]] = coco_mask.frPyObjects([part.ravel().tolist() for part in parts], *size)
        return runs

    @staticmethod
    def _start(last: Ints, index: int) -> int:
        return int(last[index - 1]) if index else 0


def run_lengths(text: str) -> array[int]:
    """Return the counts of COCO's compressed run lengths.

    Each count is a number in groups of five bits, low ones first; from the third on it is the difference to
    the count two before.

    Raises:
        ValueError: The text is not of that form, or a count is negative or above 32 bits.
    """
    codes = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8).astype(np.int64) - 48
    if len(codes) and (codes.min() < 0 or codes.max() > 63):
        raise ValueError("Expected compressed counts in the characters 0 to o, but got others.")
    last = (codes & 0x20) == 0
    if len(codes) and not last[-1]:
        raise ValueError("Expected whole compressed counts, but the text ends within one: it is cut short.")
    group = np.concatenate(([0], np.cumsum(last)[:-1])) if len(codes) else codes
    ends = np.flatnonzero(last)
    position = np.arange(len(codes)) - np.concatenate(([0], ends[:-1] + 1))[group] if len(codes) else codes
    if len(position) and position.max() > 6:
        raise ValueError("Expected counts of at most 32 bits, but a compressed one is longer.")
    values = np.zeros(len(ends), dtype=np.int64)
    np.add.at(values, group, (codes & 0x1F) << (5 * position))
    negative = (codes[ends] & 0x10) != 0
    values -= negative * (np.int64(1) << (5 * (position[ends] + 1)))
    # Counts 1, 3, 5 ... add up, and so do 2, 4, 6 ...; the first stands alone.
    for start in (1, 2):
        values[start::2] = np.cumsum(values[start::2])
    if len(values) and (values.min() < 0 or values.max() >= 2**32):
        raise ValueError(f"Expected counts from 0 up, but got {int(values.min())} .. {int(values.max())}.")
    return array("I", values.tolist())


def _frozen(values: array[Any], dtype: Any) -> npt.NDArray[Any]:
    return np.frombuffer(values, dtype=dtype) if len(values) else np.zeros(0, dtype=dtype)


def _short(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
