"""A table of points: a row an object, with columns NAME_x and NAME_y for each point."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from visionkit.data.error_list import ErrorList
from visionkit.data.formats.box_splits import validation_split
from visionkit.data.formats.csv.delimited import TABLE_SUFFIXES, read_delimited, read_header
from visionkit.data.formats.csv.images import TableImages, image_root
from visionkit.data.formats.csv.rows import IMAGE_COLUMNS
from visionkit.data.formats.keypoints.points import clean_points
from visionkit.data.formats.keypoints.skeleton import Skeleton
from visionkit.data.formats.source import Source, check_reader
from visionkit.data.formats.split_notices import split_notices
from visionkit.data.read_image import read_image, read_size
from visionkit.data.splits import Splits, split_of
from visionkit.errors import DataError, InputError
from visionkit.notices import MAX_DROPPED, NoticeCounter
from visionkit.types import Sample

__all__ = ["PointTable", "point_table", "point_table_file", "read_point_table"]

Floats = npt.NDArray[np.float64]
_POINT = re.compile(r"(.+)[_.](x|y|v|visible|flag)", re.IGNORECASE)
_BOX = ("x1", "y1", "x2", "y2")
_MIN_POINTS = 2  # that a table must have to be known by its header
_BAD_ROWS = "rows that cannot be right, left out"


@dataclass(frozen=True)
class PointRow:
    """A row of a table of points.

    Args:
        image: The image, from the root.
        split: "train", "val" or "test".
        line: In the file, from 1.
        points: `(K, 3)` x, y, flag as the file has them.
        box: xyxy, or None: that around the labelled points.
    """

    image: str
    split: str
    line: int
    points: Floats
    box: tuple[float, ...] | None


class PointTable:
    """A reader of the images of a table of points; rows of one image are its objects.

    Args:
        root: The folder of the images.
        rows: Of one split.
        points: `(R, K, 3)` of these rows, with flag 0 where a point cannot be right.
        skeleton: Names of the points.
    """

    def __init__(self, root: Path, rows: Sequence[PointRow], points: Floats, skeleton: Skeleton) -> None:
        self.root, self.skeleton = root, skeleton
        self._rows: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            self._rows.setdefault(row.image, []).append(index)
        self.ids = tuple(self._rows)
        self.files = [str(root / name) for name in self.ids]
        self._points = points
        self._boxes = [row.box for row in rows]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def recipe(self) -> str:
        """Everything annotated, for the fingerprint."""
        return repr((self.skeleton, self.ids, self._points.tolist(), self._boxes))

    @cached_property
    def keypoint_counts(self) -> list[list[int]]:
        """How many points of each object of each image are labelled."""
        labelled = (self._points[..., 2] > 0).sum(1)
        return [[int(labelled[row]) for row in rows] for rows in self._rows.values()]

    @property
    def object_counts(self) -> list[int]:
        """How many objects each image has."""
        return [len(rows) for rows in self._rows.values()]

    def __getitem__(self, index: int) -> Sample:
        """Read image `index`; raise `DataError` when it cannot be read."""
        name = self.ids[index]
        rows = self._rows[name]
        image = read_image(name, root=self.root)
        height, width = (int(side) for side in image.shape[-2:])
        boxes = [self._boxes[row] or _around(self._points[row]) for row in rows]
        inner = torch.tensor(boxes, dtype=torch.float32).clamp(min=0)
        sample: Sample = {
            "image": image,
            "id": name,
            "size": (height, width),
            "boxes": inner.minimum(torch.tensor([width, height] * 2)),
            "labels": torch.zeros(len(rows), dtype=torch.int64),
            "keypoints": torch.from_numpy(self._points[rows].astype(np.float32)),
        }
        if self.skeleton.flip is not None:
            sample["keypoint_flip"] = torch.tensor(self.skeleton.flip)
        return sample


def point_table_file(path: Path) -> Path | None:
    """Return the table of points that a path is, or the only one in a folder; it never raises.

    Args:
        path: A file or a folder.
    """
    if path.is_file():
        return path if _is_point_table(path) else None
    if not path.is_dir():
        return None
    tables = [file for file in sorted(path.iterdir()) if _is_point_table(file)]
    return tables[0] if len(tables) == 1 else None


def _is_point_table(file: Path) -> bool:
    if file.suffix.lower() not in TABLE_SUFFIXES or not file.is_file():
        return False
    header = read_header(file)
    known = {name.lower() for name in header} & set(IMAGE_COLUMNS)
    return bool(known) and len(_columns(header)) >= _MIN_POINTS


def point_table(path: str | Path, *, seed: int = 0, max_dropped: float = MAX_DROPPED) -> Splits:
    """Return the splits of a table of points.

    A row is an object: a column of image paths, `NAME_x` and `NAME_y` in pixels for each point, and perhaps
    `NAME_v` (0: not labelled, 1: hidden, 2: visible), `x1 y1 x2 y2` (the box; that around the labelled points
    without) and `split`. Empty cells are points that are not labelled. Without a validation split a fifth of
    the training images is held out.

    Args:
        path: The table, or the folder that holds it.
        seed: Seed of the hold-out.
        max_dropped: Fraction of the rows, and of the points, that may be left out.

    Raises:
        DataError: The table cannot be read, or too much of it would be left out.
    """
    return read_point_table(Path(path), seed=seed).splits(max_dropped)


def read_point_table(path: Path, *, seed: int = 0) -> Source:
    """Read a table of points; the arguments are those of `point_table`.

    Args:
        path: The table or its folder.
        seed: Seed of the hold-out.

    Raises:
        DataError: It is no such table.
    """
    file = point_table_file(path) or path
    counter = NoticeCounter()
    errors = ErrorList(file, counter=counter)
    root, skeleton, rows = _rows(file, errors)
    full = np.array([row.points for row in rows]).reshape(len(rows), len(skeleton.names), 3)
    sizes = [read_size(row.image, root=root) if row.points.any() else (math.inf, math.inf) for row in rows]
    wheres = [f"line {row.line}" for row in rows]
    points = clean_points(full, np.array(sizes, dtype=np.float64).reshape(-1, 2), wheres, errors)
    return Source(
        lambda max_dropped: _splits(file, root, skeleton, rows, points, counter, seed, max_dropped),
        lambda left_out: [
            *(errors.all() if left_out else ()),
            *check_reader(PointTable(root, rows, points, skeleton)),
        ],
    )


def _splits(
    file: Path,
    root: Path,
    skeleton: Skeleton,
    rows: Sequence[PointRow],
    points: Floats,
    counter: NoticeCounter,
    seed: int,
    max_dropped: float,
) -> Splits:
    readers: dict[str, PointTable] = {}
    for split in ("train", "val", "test"):
        chosen = [index for index, row in enumerate(rows) if row.split == split]
        if chosen:
            readers[split] = PointTable(root, [rows[index] for index in chosen], points[chosen], skeleton)
    if "train" not in readers or not (points[..., 2] > 0).any():
        raise DataError("Expected rows with labelled points to train on, but there are none.", path=file)
    total = max(1, int((points[..., 2] > 0).sum()), len(rows))
    counted = [
        replace(each, max_fraction=None if each.max_fraction is None else max_dropped)
        for each in counter.notices(total)
    ]
    train, val, held = validation_split(readers["train"], readers.get("val"), file, seed=seed)
    facts: dict[str, Any] = {"root": str(file), "keypoints": skeleton.as_dict(), **held}
    notices = (*counted, *split_notices(root, readers, max_dropped=max_dropped))
    return Splits(train, val, readers.get("test"), ("object",), file.stem, facts, notices)


def _columns(header: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the columns of each point that has both coordinates, by its name."""
    points: dict[str, dict[str, int]] = {}
    for index, name in enumerate(header):
        match = _POINT.fullmatch(name)
        if match:
            axis = match[2].lower()
            points.setdefault(match[1], {})[axis if axis in "xy" else "v"] = index
    return {name: columns for name, columns in points.items() if {"x", "y"} <= columns.keys()}


def _rows(file: Path, errors: ErrorList) -> tuple[Path, Skeleton, list[PointRow]]:
    table = read_delimited(file, known=IMAGE_COLUMNS)
    columns = _columns(table.header)
    lower = [name.lower() for name in table.header]
    image = next((lower.index(name) for name in IMAGE_COLUMNS if name in lower), None)
    if image is None or not columns:
        text = f"Expected a column of image paths and pairs NAME_x, NAME_y, but got {table.header}."
        raise DataError(text, path=file, record="line 1")
    try:
        skeleton = Skeleton(tuple(columns))
    except InputError as error:
        raise DataError(str(error), path=file, record="line 1") from error
    boxes = [lower.index(name) for name in _BOX] if set(_BOX) <= set(lower) else None
    split = lower.index("split") if "split" in lower else None
    names = [cells[image].strip() for _, cells in table.lines if len(cells) == len(lower)]
    counter = errors.counter or NoticeCounter()
    root = image_root(file, names, counter)
    finder, rows = TableImages(root, counter), []
    for line, cells in table.lines:
        try:
            row = _row(line, [cell.strip() for cell in cells], image, split, columns, boxes, finder, lower)
        except DataError as error:
            errors.add(error.message, record=f"line {line}", field=error.field, notice=_BAD_ROWS)
            continue
        if row.points[:, 2].any():
            rows.append(row)
        else:
            counter.add("rows without a labelled point, left out", f"{file}, line {line}", harmless=True)
    return root, skeleton, rows


def _row(
    line: int,
    cells: Sequence[str],
    image: int,
    split: int | None,
    columns: dict[str, dict[str, int]],
    boxes: Sequence[int] | None,
    finder: TableImages,
    header: Sequence[str],
) -> PointRow:
    if len(cells) != len(header):
        raise DataError(f"Expected {len(header)} cells, but got {len(cells)}.")
    known = "train" if split is None or not cells[split] else split_of(cells[split])
    if known is None:
        raise DataError(f"Expected train, val or test, but got {cells[split or 0]!r}.", field="split")
    points = np.zeros((len(columns), 3))
    for number, (name, each) in enumerate(columns.items()):
        x, y = (_number(cells[each[axis]], f"{name}_{axis}") for axis in "xy")
        if (x is None) != (y is None):
            raise DataError("Expected both coordinates of a point or none, but got one.", field=name)
        flag = _number(cells[each["v"]], f"{name}_v") if "v" in each else None
        if x is not None and y is not None:
            points[number] = x, y, 2.0 if flag is None else flag
    box = None if boxes is None else [_number(cells[index], header[index]) for index in boxes]
    if box is not None and (None in box or not (box[0] < box[2] and box[1] < box[3])):  # type: ignore[operator]
        raise DataError(f"Expected a box x1 < x2, y1 < y2, but got {box}.", field="box")
    corners = None if box is None else tuple(float(value or 0) for value in box)
    return PointRow(finder.find(cells[image]), known, line, points, corners)


def _number(cell: str, field: str) -> float | None:
    if not cell or cell.lower() in ("nan", "na", "none"):
        return None
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"Expected a finite number, but got {cell!r}.", field=field)
    return number


def _around(points: Floats) -> tuple[float, ...]:
    """Return the box around the labelled points, at least a pixel wide and high."""
    labelled = points[points[:, 2] > 0, :2]
    if not len(labelled):  # every point was one that cannot be right
        return (0.0, 0.0, 1.0, 1.0)
    (left, top), (right, bottom) = labelled.min(0).tolist(), labelled.max(0).tolist()
    return (left, top, max(right, left + 1), max(bottom, top + 1))
