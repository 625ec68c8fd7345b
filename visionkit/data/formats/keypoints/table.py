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

from visionkit.data.boxes import BAD_BOXES, CUT, MAX_CUT, box_error
from visionkit.data.error_list import ErrorList
from visionkit.data.formats.box_splits import validation_split
from visionkit.data.formats.csv.delimited import TABLE_SUFFIXES, read_delimited, read_header
from visionkit.data.formats.csv.images import TableImages, image_root
from visionkit.data.formats.csv.rows import IMAGE_COLUMNS
from visionkit.data.formats.keypoints.points import BAD_FLAGS, ONE_SIDED, OUTSIDE, clean_points, one_sided
from visionkit.data.formats.keypoints.skeleton import Skeleton
from visionkit.data.formats.source import Source, check_reader
from visionkit.data.formats.split_notices import split_notices
from visionkit.data.read_image import read_image, read_size
from visionkit.data.splits import Splits, split_of
from visionkit.data.truth import make_truth
from visionkit.errors import DataError, InputError
from visionkit.notices import MAX_DROPPED, NoticeCounter
from visionkit.types import Sample

__all__ = ["PointTable", "point_table", "point_table_file", "read_point_table"]

Floats = npt.NDArray[np.float64]
_POINT = re.compile(r"(.+)[_.](x|y|v|visible|flag)", re.IGNORECASE)
_BOX = ("x1", "y1", "x2", "y2")
_MIN_POINTS = 2  # that a table must have to be known by its header
_BAD_ROWS = "rows that cannot be right, left out"
_NO_POINT = "rows of which no point can be right, left out"
_ONE_AXIS = "columns of a point without its x or its y, not read"
_PART_OF_BOX = "columns of a box, x1 y1 x2 y2, of which some are missing, not read"
_OF_POINTS = (BAD_FLAGS, OUTSIDE)  # counted among the labelled points; everything else among the rows


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

    Boxes for training are cut at the border of the image; `truth` holds them as the table does.
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
        boxes = [self._boxes[row] or _around(self._points[row], (height, width)) for row in rows]
        inner = np.clip(np.array(boxes), 0, [width, height, width, height])
        labels = np.zeros(len(rows), dtype=np.int64)
        sample: Sample = {
            "image": image,
            "id": name,
            "size": (height, width),
            "boxes": torch.from_numpy(inner.astype(np.float32)),
            "labels": torch.from_numpy(labels),
            "keypoints": torch.from_numpy(self._points[rows].astype(np.float32)),
            "truth": make_truth(boxes, labels, keypoints=self._points[rows]),
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
        max_dropped: Fraction of the rows, and of the labelled points, that may be left out.

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
    table = _read(file, errors)
    return Source(
        lambda max_dropped: _splits(file, table, counter, seed, max_dropped),
        lambda left_out: [
            *(errors.all() if left_out else ()),
            *check_reader(PointTable(table.root, table.rows, table.points, table.skeleton)),
        ],
    )


@dataclass(frozen=True)
class _Table:
    """A table that was read: R rows with points that can be right, of `total` in the file."""

    root: Path
    skeleton: Skeleton
    rows: list[PointRow]
    points: Floats  # (R, K, 3)
    total: int
    labelled: int  # points, those that cannot be right included


def _read(file: Path, errors: ErrorList) -> _Table:
    """Read the rows, and leave out what cannot be right in the frames of their images."""
    root, skeleton, rows, total = _rows(file, errors)
    full = np.array([row.points for row in rows]).reshape(len(rows), len(skeleton.names), 3)
    sizes = _sizes(root, rows)
    frames = np.array([sizes[row.image] for row in rows], dtype=np.float64).reshape(-1, 2)
    points = clean_points(full, frames, [f"line {row.line}" for row in rows], errors)
    remaining = []
    for index, row in enumerate(rows):
        where = f"line {row.line}"
        if not (points[index, :, 2] > 0).any():
            text = "Expected a point that can be right, but there is none."
            errors.add(text, record=where, field="keypoints", notice=_NO_POINT)
        elif row.box is None or _check_box(row.box, sizes[row.image], where, errors):
            remaining.append(index)
    labelled = int((full[..., 2] != 0).sum())
    return _Table(root, skeleton, [rows[index] for index in remaining], points[remaining], total, labelled)


def _sizes(root: Path, rows: Sequence[PointRow]) -> dict[str, tuple[float, float]]:
    """Return `(H, W)` of each image; infinite where it cannot be read, of which its reader says so."""
    sizes: dict[str, tuple[float, float]] = {}
    for row in rows:
        if row.image not in sizes:
            try:
                sizes[row.image] = read_size(row.image, root=root)
            except DataError:
                sizes[row.image] = (math.inf, math.inf)
    return sizes


def _check_box(box: tuple[float, ...], size: tuple[float, float], where: str, errors: ErrorList) -> bool:
    """Return whether a box can be right; name one that is not, or that is cut at the border."""
    height, width = size
    error = box_error(box, None if math.isinf(height) else (int(height), int(width)))
    if error is None:
        return True
    inner = [max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])]
    cut = box_error(inner) is None
    if cut and errors.counter is not None:  # no fault of the file
        errors.counter.add(CUT, DataError(error, path=errors.path, record=where, field="box"))
    elif not cut:
        errors.add(error, record=where, field="box", notice=BAD_BOXES)
    return cut


def _splits(file: Path, table: _Table, counter: NoticeCounter, seed: int, max_dropped: float) -> Splits:
    root, skeleton, rows, points = table.root, table.skeleton, table.rows, table.points
    readers: dict[str, PointTable] = {}
    for split in ("train", "val", "test"):
        chosen = [index for index, row in enumerate(rows) if row.split == split]
        if chosen:
            readers[split] = PointTable(root, [rows[index] for index in chosen], points[chosen], skeleton)
    if "train" not in readers or not (points[..., 2] > 0).any():
        raise DataError("Expected rows with labelled points to train on, but there are none.", path=file)
    limits = {CUT: max(MAX_CUT, max_dropped)}
    counted = [
        replace(
            each,
            total=table.labelled if each.what in _OF_POINTS else each.total,
            max_fraction=None if each.max_fraction is None else limits.get(each.what, max_dropped),
        )
        for each in counter.notices(table.total)
    ]
    train, val, held = validation_split(readers["train"], readers.get("val"), file, seed=seed)
    facts: dict[str, Any] = {"root": str(file), "keypoints": skeleton.as_dict(), **held}
    notices = (*counted, *split_notices(root, readers, max_dropped=max_dropped))
    return Splits(train, val, readers.get("test"), ("object",), file.stem, facts, notices)


def _columns(
    header: Sequence[str], counter: NoticeCounter | None = None, file: Path | None = None
) -> dict[str, dict[str, int]]:
    """Return the columns of each point that has both coordinates, by its name; count those that do not."""
    points: dict[str, dict[str, int]] = {}
    for index, name in enumerate(header):
        match = _POINT.fullmatch(name)
        if match:
            axis = match[2].lower()
            points.setdefault(match[1], {})[axis if axis in "xy" else "v"] = index
    for name, columns in points.items():
        if counter is not None and not {"x", "y"} <= columns.keys():
            single = " and ".join(header[index] for index in columns.values())
            counter.add(_ONE_AXIS, f"{file}: {single} of {name!r}", choice=True)
    return {name: columns for name, columns in points.items() if {"x", "y"} <= columns.keys()}


def _rows(file: Path, errors: ErrorList) -> tuple[Path, Skeleton, list[PointRow], int]:
    """Return the folder of the images, the points, the rows, and how many rows the file has."""
    table = read_delimited(file, known=IMAGE_COLUMNS)
    counter = errors.counter or NoticeCounter()
    columns = _columns(table.header, counter, file)
    lower = [name.lower() for name in table.header]
    image = next((lower.index(name) for name in IMAGE_COLUMNS if name in lower), None)
    if image is None or not columns:
        text = f"Expected a column of image paths and pairs NAME_x, NAME_y, but got {table.header}."
        raise DataError(text, path=file, record="line 1")
    try:
        skeleton = Skeleton(tuple(columns))
    except InputError as error:
        raise DataError(str(error), path=file, record="line 1") from error
    for text in one_sided(skeleton):
        counter.add(ONE_SIDED, DataError(text, path=file, record="line 1"), choice=True)
    corners = [lower.index(name) for name in _BOX if name in lower]
    boxes = corners if len(corners) == len(_BOX) else None
    if corners and boxes is None:
        given = ", ".join(table.header[index] for index in corners)
        counter.add(_PART_OF_BOX, f"{file}: {given}", count=len(corners), choice=True)
    split = lower.index("split") if "split" in lower else None
    names = [cells[image].strip() for _, cells in table.lines if len(cells) == len(lower)]
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
    return root, skeleton, rows, len(table.lines)


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


def _around(points: Floats, size: tuple[int, int]) -> tuple[float, ...]:
    """Return the box around the labelled points, at least a pixel wide and high, in an image `(H, W)`."""
    labelled = np.clip(points[points[:, 2] > 0, :2], 0, [size[1], size[0]])
    (left, top), (right, bottom) = labelled.min(0).tolist(), labelled.max(0).tolist()
    left, top = max(0.0, min(left, size[1] - 1.0)), max(0.0, min(top, size[0] - 1.0))
    return (left, top, max(right, left + 1), max(bottom, top + 1))
