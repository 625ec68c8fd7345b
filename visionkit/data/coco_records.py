"""Records of COCO files into flat arrays; every record that is not as it must be is named."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.data.coco_masks import OutlineBuilder, Outlines
from visionkit.data.json_stream import stream_records
from visionkit.errors import DataError

__all__ = ["FaultList", "Records", "read_records"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SECTIONS = ("images", "annotations", "categories")
_LARGEST_SIDE = 2**24
_LARGEST_ID = 2**62


class FaultList:
    """Faults in the order they are found; of one kind, the first thousand, and how many more there are.

    Args:
        path: The file they are in.
        most: How many of a kind are kept.
    """

    def __init__(self, path: Path, *, most: int = 1000) -> None:
        self.path = path
        self.most = most
        self._items: list[DataError] = []
        self._count: dict[str, int] = {}

    def add(self, message: str, *, record: str | None, field: str | None, kind: str = "") -> None:
        """Keep a fault.

        Args:
            message: What was expected, what came.
            record: The record at fault.
            field: The field at fault.
            kind: Faults of one kind and field are counted together.
        """
        key = f"{field}|{kind}"
        self._count[key] = self._count.get(key, 0) + 1
        if self._count[key] <= self.most:
            self._items.append(DataError(message, path=self.path, record=record, field=field))

    def all(self) -> list[DataError]:
        """Return the faults, and for each kind with more of them how many more."""
        more = {key: count - self.most for key, count in self._count.items() if count > self.most}
        rest = [
            DataError(f"And {count:,} more of this kind.", path=self.path, field=key.split("|")[0])
            for key, count in more.items()
        ]
        return self._items + rest

    def __len__(self) -> int:
        return sum(self._count.values())


@dataclass(frozen=True)
class Records:
    """What a file holds, record by record, not yet compared with one another.

    Args:
        image_ids: `(I,)`.
        names: File names of the pictures.
        sizes: `(I, 2)` declared height and width.
        category_ids: `(C,)`.
        classes: Names of the categories.
        place: `(A,)` the index of each annotation in the file's list.
        ids: `(A,)`, -1 where there is none.
        images: `(A,)` the id of each annotation's picture.
        categories: `(A,)` the id of each annotation's category.
        boxes: `(A, 4)` x, y, width, height.
        areas: `(A,)`, NaN where there is none.
        crowd: `(A,)` 0 or 1; -1 where it is not said.
        outlines: The segmentations, if they were asked for.
    """

    image_ids: Ints
    names: tuple[str, ...]
    sizes: Ints
    category_ids: Ints
    classes: tuple[str, ...]
    place: Ints
    ids: Ints
    images: Ints
    categories: Ints
    boxes: Floats
    areas: Floats
    crowd: npt.NDArray[np.int8]
    outlines: Outlines | None


def read_records(path: Path, *, outlines: bool, faults: FaultList, dropped: FaultList) -> Records:
    """Read a file, record by record, in memory for the arrays alone.

    Args:
        path: A COCO file of detections: `images`, `annotations`, `categories`.
        outlines: Also keep the segmentations.
        faults: Takes every record that cannot be used; these are left out of the result.
        dropped: Takes those of them of which only the box or the outline cannot be used.

    Raises:
        DataError: The file is no JSON, or lacks one of the lists.
    """
    builder = _Builder(faults, dropped, outlines)
    takers = {
        "images": builder.image,
        "annotations": builder.annotation,
        "categories": builder.category,
    }
    seen = set()
    for section, index, record in stream_records(path, SECTIONS):
        seen.add(section)
        if index == -1:
            got = type(record).__name__
            raise DataError(f"Expected a list of {section}, but got a {got}.", path=path, field=section)
        if index >= 0:
            takers[section](index, record)
    missing = [section for section in SECTIONS if section not in seen]
    if missing:
        raise DataError(
            f"Expected the lists images, annotations and categories, but there is no {missing[0]!r}.",
            path=path,
            field=missing[0],
        )
    return builder.done()


class _Builder:
    """Arrays that grow by a record at a time. Types are looked at here, values of whole columns later."""

    def __init__(self, faults: FaultList, dropped: FaultList, outlines: bool) -> None:
        self.faults, self.dropped = faults, dropped
        self.image_ids, self.heights, self.widths = array("q"), array("q"), array("q")
        self.names: list[str] = []
        self.category_ids = array("q")
        self.classes: list[str] = []
        self.place, self.ids, self.images = array("q"), array("q"), array("q")
        self.categories, self.boxes, self.areas = array("q"), array("d"), array("d")
        self.crowd = array("b")
        self.outlines = OutlineBuilder() if outlines else None

    def image(self, index: int, record: Any) -> None:
        where = _where("images", index, record)
        found = self._fields(record, where, ("id", "file_name", "height", "width"))
        if found is None:
            return
        number, name, height, width = found
        wrong = [
            self._whole(number, "id", where, "an image id", least=-_LARGEST_ID, most=_LARGEST_ID),
            self._whole(height, "height", where, "a height in pixels", least=1, most=_LARGEST_SIDE),
            self._whole(width, "width", where, "a width in pixels", least=1, most=_LARGEST_SIDE),
            self._name(name, where),
        ]
        if not any(wrong):
            self.image_ids.append(number)
            self.heights.append(height)
            self.widths.append(width)
            self.names.append(name)

    def category(self, index: int, record: Any) -> None:
        where = _where("categories", index, record)
        found = self._fields(record, where, ("id", "name"))
        if found is None:
            return
        number, name = found
        wrong = self._whole(number, "id", where, "a category id", least=-_LARGEST_ID, most=_LARGEST_ID)
        if not isinstance(name, str) or not name.strip():
            self.faults.add(f"Expected a class name, but got {name!r}.", record=where, field="name")
            wrong = True
        if not wrong:
            self.category_ids.append(number)
            self.classes.append(name)

    def annotation(self, index: int, record: Any) -> None:
        # Most records are sound: they are taken on the first try, and only the others are looked at closely.
        try:
            x, y, width, height = record["bbox"]
            number, image, category = record.get("id", -1), record["image_id"], record["category_id"]
            crowd, area = record.get("iscrowd", -1), record.get("area", math.nan)
            whole = type(number) is type(image) is type(category) is int and type(crowd) in (int, bool)
            plain = whole and {type(x), type(y), type(width), type(height), type(area)} <= {int, float}
            sound = plain and (crowd in (0, 1) or "iscrowd" not in record) and (area >= 0 or area != area)
            box = array("d", (x, y, width, height)) if sound else None
            areas = array("d", (area,)) if sound else None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            box = areas = None
        if (
            box is None
            or areas is None
            or ("area" in record and area != area)
            or not _fits(number, image, category)
        ):
            self._close_look(record, _where("annotations", index, record))
            return
        if self.outlines is not None:
            try:
                self.outlines.add(record.get("segmentation"))
            except ValueError as error:
                where = _where("annotations", index, record)
                self.dropped.add(str(error), record=where, field="segmentation")
                return
        self.place.append(index)
        self.ids.append(number)
        self.images.append(image)
        self.categories.append(category)
        self.boxes.extend(box)
        self.areas.extend(areas)
        self.crowd.append(int(crowd))

    def done(self) -> Records:
        return Records(
            image_ids=np.array(self.image_ids, dtype=np.int64),
            names=tuple(self.names),
            sizes=np.stack([np.array(self.heights, np.int64), np.array(self.widths, np.int64)], 1),
            category_ids=np.array(self.category_ids, dtype=np.int64),
            classes=tuple(self.classes),
            place=np.array(self.place, dtype=np.int64),
            ids=np.array(self.ids, dtype=np.int64),
            images=np.array(self.images, dtype=np.int64),
            categories=np.array(self.categories, dtype=np.int64),
            boxes=np.array(self.boxes, dtype=np.float64).reshape(-1, 4),
            areas=np.array(self.areas, dtype=np.float64),
            crowd=np.array(self.crowd, dtype=np.int8),
            outlines=None if self.outlines is None else self.outlines.done(),
        )

    def _close_look(self, record: Any, where: str) -> None:
        """Name what is wrong with an annotation that was not taken at once."""
        found = self._fields(record, where, ("image_id", "category_id", "bbox"))
        if found is None:
            return
        image, category, box = found
        ids = {"least": -_LARGEST_ID, "most": _LARGEST_ID}
        wrong = [
            self._whole(record.get("id", -1), "id", where, "an annotation id", **ids),
            self._whole(image, "image_id", where, "an image id", **ids),
            self._whole(category, "category_id", where, "a category id", **ids),
            self._box(box, where),
        ]
        area, crowd = record.get("area", 0), record.get("iscrowd", 0)
        if type(crowd) not in (int, bool) or crowd not in (0, 1):
            text = f"Expected iscrowd to be 0 or 1, but got {_short(crowd)}."
            self.faults.add(text, record=where, field="iscrowd")
            wrong.append(True)
        if type(area) not in (int, float) or not 0 <= area < 1e300:
            text = f"Expected an area in square pixels from 0 up, but got {_short(area)}."
            self.faults.add(text, record=where, field="area")
            wrong.append(True)
        if not any(wrong):
            text = f"Expected an annotation of numbers and lists, but got {_short(record)}."
            self.faults.add(text, record=where, field=None)

    def _box(self, box: Any, where: str) -> bool:
        if not isinstance(box, list) or len(box) != 4:
            text = f"Expected a box [x, y, width, height], but got {_short(box)}."
        elif any(type(value) not in (int, float) or abs(value) > 1e300 for value in box):
            # NaN and infinity are numbers: they are named with the boxes' values.
            if all(type(value) is float or (type(value) is int and abs(value) < 1e300) for value in box):
                return False
            text = f"Expected a box of four numbers, but got {_short(box)}."
        else:
            return False
        self.dropped.add(text, record=where, field="bbox")
        return True

    def _fields(self, record: Any, where: str, names: Sequence[str]) -> list[Any] | None:
        if not isinstance(record, dict):
            got = type(record).__name__
            self.faults.add(f"Expected an object, but got {got}.", record=where, field=None)
            return None
        missing = [name for name in names if name not in record]
        for name in missing:
            self.faults.add(
                f"Expected {name!r}, but it is missing among {', '.join(map(repr, record)) or 'nothing'}.",
                record=where,
                field=name,
                kind="missing",
            )
        return None if missing else [record[name] for name in names]

    def _whole(self, value: Any, field: str, where: str, what: str, *, least: int, most: int) -> bool:
        if type(value) is int and least <= value <= most:
            return False
        said = "a whole number" if type(value) is not int else f"at least {least} and at most {most}"
        text = f"Expected {what}, {said}, but got {_short(value)}."
        self.faults.add(text, record=where, field=field, kind="whole")
        return True

    def _name(self, name: Any, where: str) -> bool:
        wrong = _name_fault(name)
        if wrong:
            self.faults.add(wrong, record=where, field="file_name")
        return bool(wrong)


def _name_fault(name: Any) -> str | None:
    """Return what is wrong with a file name before any file is looked at."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return f"Expected a file name, but got {_short(name)}."
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"Expected a file name of characters, but got {_short(name)}: half of a surrogate pair."
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        return f"Expected a file name relative to the folder of the pictures, but got {_short(name)}."
    if ".." in windows.parts:
        return f"Expected a file inside the folder of the pictures, but {_short(name)} leads out of it."
    return None


def _where(section: str, index: int, record: Any) -> str:
    number = record.get("id") if isinstance(record, dict) else None
    return f"{section}[{index}]" if type(number) is not int else f"{section}[{index}] (id {number})"


def _fits(*numbers: int) -> bool:
    return all(-_LARGEST_ID <= number <= _LARGEST_ID for number in numbers)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
