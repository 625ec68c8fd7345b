"""Records of COCO files into flat arrays; every record that is not as it must be is named."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.data.boxes import BAD_BOXES
from visionkit.data.error_list import ErrorList
from visionkit.data.formats.coco.json_stream import stream_records
from visionkit.data.formats.coco.segmentations import OutlineBuilder, Outlines
from visionkit.errors import DataError

__all__ = ["Records", "integer", "read_records"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SECTIONS = ("images", "annotations", "categories")
BAD_OUTLINES = "outlines that cannot be right, left out with their objects"
BAD_CROWD = "objects of which iscrowd is neither 0 nor 1, left out"
INCOMPLETE = "annotations without a usable image_id, category_id or bbox, left out"
SHORT_PARTS = "outlines with polygons of fewer than three points, which are left out"
NO_AREA = "objects without an area, for which that of their box or mask is taken"
CROWD_READ = "values of iscrowd that are no number, read as 0 or 1"
TEXT_BOXES = "boxes of texts, read as numbers"
READ_NUMBERS = "ids and sizes that are no whole numbers, read as such"
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\s*")
_LARGEST_SIDE = 2**24
_LARGEST_ID = 2**62


@dataclass(frozen=True)
class Records:
    """What a file holds, record by record, not yet compared with one another.

    Args:
        image_ids: `(I,)`.
        names: File names of the images.
        sizes: `(I, 2)` declared height and width.
        category_ids: `(C,)`.
        classes: Names of the categories.
        parents: Supercategories of the categories, "" without one.
        positions: `(A,)` the index of each annotation in the file's list.
        ids: `(A,)`, -1 where there is none.
        images: `(A,)` the id of each annotation's image.
        categories: `(A,)` the id of each annotation's category.
        boxes: `(A, 4)` x, y, width, height.
        areas: `(A,)`, NaN where there is none.
        crowd: `(A,)` 0 or 1; -1 where it is not given.
        outlines: The segmentations, if they were asked for.
        bad_outlines: Indices of the annotations whose segmentation cannot be read.
        count: How many annotations the file lists, those left out included.
    """

    image_ids: Ints
    names: tuple[str, ...]
    sizes: Ints
    category_ids: Ints
    classes: tuple[str, ...]
    parents: tuple[str, ...]
    positions: Ints
    ids: Ints
    images: Ints
    categories: Ints
    boxes: Floats
    areas: Floats
    crowd: npt.NDArray[np.int8]
    outlines: Outlines | None
    bad_outlines: Ints
    count: int


def read_records(
    path: Path, *, outlines: bool, errors: ErrorList, dropped: ErrorList, notes: ErrorList
) -> Records:
    """Read a file, record by record, in memory for the arrays alone.

    Args:
        path: A COCO file of detections: `images`, `annotations`, `categories`.
        outlines: Also keep the segmentations.
        errors: Takes images and categories that cannot be used, and what is no annotation at all.
        dropped: Takes annotations that cannot be used; these are left out of the result.
        notes: Takes what could be read although it is not as it should be.

    Raises:
        DataError: The file is no JSON, or lacks one of the lists.
    """
    builder = _Builder(errors, dropped, notes, outlines)
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

    def __init__(self, errors: ErrorList, dropped: ErrorList, notes: ErrorList, outlines: bool) -> None:
        self.errors, self.dropped, self.notes = errors, dropped, notes
        self.count = 0
        self._read = ""
        self.image_ids, self.heights, self.widths = array("q"), array("q"), array("q")
        self.names: list[str] = []
        self.category_ids = array("q")
        self.classes: list[str] = []
        self.parents: list[str] = []
        self.positions, self.ids, self.images = array("q"), array("q"), array("q")
        self.categories, self.boxes, self.areas = array("q"), array("d"), array("d")
        self.crowd = array("b")
        self.outlines = OutlineBuilder() if outlines else None
        self.bad_outlines = array("q")

    def image(self, index: int, record: Any) -> None:
        where = _where("images", index, record)
        values = self._fields(record, where, ("id", "file_name", "height", "width"), self.errors)
        if values is None:
            return
        number, name, height, width = values
        ids = {"min_value": -_LARGEST_ID, "max_value": _LARGEST_ID}
        sides = {"min_value": 1, "max_value": _LARGEST_SIDE}
        number = self._integer(number, "id", where, "an image id", self.errors, **ids)
        height = self._integer(height, "height", where, "a height in pixels", self.errors, **sides)
        width = self._integer(width, "width", where, "a width in pixels", self.errors, **sides)
        if self._name(name, where) or number is None or height is None or width is None:
            return
        self.image_ids.append(number)
        self.heights.append(height)
        self.widths.append(width)
        self.names.append(name)

    def category(self, index: int, record: Any) -> None:
        where = _where("categories", index, record)
        values = self._fields(record, where, ("id", "name"), self.errors)
        if values is None:
            return
        number, name = values
        ids = {"min_value": -_LARGEST_ID, "max_value": _LARGEST_ID}
        number = self._integer(number, "id", where, "a category id", self.errors, **ids)
        if not isinstance(name, str) or not name.strip():
            self.errors.add(f"Expected a class name, but got {name!r}.", record=where, field="name")
            number = None
        if number is not None:
            parent = record.get("supercategory")
            self.category_ids.append(number)
            self.classes.append(name)
            self.parents.append(parent if isinstance(parent, str) else "")

    def annotation(self, index: int, record: Any) -> None:
        self.count += 1
        if not self._take(index, record):
            where = _where("annotations", index, record)
            plain = self._plain_record(record, where)
            if plain is not None and not self._take(index, plain):
                text = f"Expected an annotation of numbers and lists, but got {_short(record)}."
                self.dropped.add(text, record=where, field=None, notice=INCOMPLETE)

    def _take(self, index: int, record: Any) -> bool:
        """Keep an annotation and return True, or return False for one that is not as it should be."""
        # Most records are sound: they are taken on the first try, and only the others are looked at closely.
        try:
            x, y, width, height = record["bbox"]
            number, image, category = record.get("id", -1), record["image_id"], record["category_id"]
            crowd, area = record.get("iscrowd", -1), record.get("area", math.nan)
            integers = type(number) is type(image) is type(category) is int and type(crowd) in (int, bool)
            plain = integers and {type(x), type(y), type(width), type(height), type(area)} <= {int, float}
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
            return False
        if self.outlines is not None:
            try:
                short = self.outlines.add(record.get("segmentation"))
            except ValueError as error:
                where = _where("annotations", index, record)
                self.dropped.add(str(error), record=where, field="segmentation", notice=BAD_OUTLINES)
                self.outlines.skip()
                self.bad_outlines.append(len(self.ids))
                short = None
            if short:
                where = _where("annotations", index, record)
                self.notes.add(short, record=where, field="segmentation", notice=SHORT_PARTS)
        self.positions.append(index)
        self.ids.append(number)
        self.images.append(image)
        self.categories.append(category)
        self.boxes.extend(box)
        self.areas.extend(areas)
        self.crowd.append(int(crowd))
        return True

    def done(self) -> Records:
        return Records(
            image_ids=np.array(self.image_ids, dtype=np.int64),
            names=tuple(self.names),
            sizes=np.stack([np.array(self.heights, np.int64), np.array(self.widths, np.int64)], 1),
            category_ids=np.array(self.category_ids, dtype=np.int64),
            classes=tuple(self.classes),
            parents=tuple(self.parents),
            positions=np.array(self.positions, dtype=np.int64),
            ids=np.array(self.ids, dtype=np.int64),
            images=np.array(self.images, dtype=np.int64),
            categories=np.array(self.categories, dtype=np.int64),
            boxes=np.array(self.boxes, dtype=np.float64).reshape(-1, 4),
            areas=np.array(self.areas, dtype=np.float64),
            crowd=np.array(self.crowd, dtype=np.int8),
            outlines=None if self.outlines is None else self.outlines.done(),
            bad_outlines=np.array(self.bad_outlines, dtype=np.int64),
            count=self.count,
        )

    def _plain_record(self, record: Any, where: str) -> dict[str, Any] | None:
        """Return an annotation in plain numbers, or name what is wrong with it and return None."""
        values = self._fields(record, where, ("image_id", "category_id", "bbox"), self.dropped)
        if values is None:
            return None
        ids = {"min_value": -_LARGEST_ID, "max_value": _LARGEST_ID}
        image = self._integer(values[0], "image_id", where, "an image id", self.dropped, **ids)
        category = self._integer(values[1], "category_id", where, "a category id", self.dropped, **ids)
        box = self._box(values[2], where)
        plain: dict[str, Any] = {"image_id": image, "category_id": category, "bbox": box}
        if "id" in record and not (type(record["id"]) is int and _fits(record["id"])):
            text = f"Expected an annotation id, a whole number, but got {_short(record['id'])}."
            if type(record["id"]) is int:
                text = f"Expected an annotation id of at most {_LARGEST_ID}, but got {_short(record['id'])}."
            self.notes.add(text, record=where, field="id", kind="integer")
        elif "id" in record:
            plain["id"] = record["id"]
        if "area" in record:
            area = _plain_number(record["area"])
            if area is None or not 0 <= area < 1e300:
                text = f"Expected an area in square pixels from 0 up, but got {_short(record['area'])}."
                self.notes.add(text, record=where, field="area", notice=NO_AREA, harmless=True)
            else:
                plain["area"] = area
                if isinstance(record["area"], str | bool):
                    text = f"Expected an area, a number from 0 up, but got {_short(record['area'])}."
                    self.notes.add(text, record=where, field="area")
        if "iscrowd" in record:
            crowd = _plain_number(record["iscrowd"] or 0) if record["iscrowd"] is not None else 0
            text = f"Expected iscrowd to be 0 or 1, but got {_short(record['iscrowd'])}."
            if crowd not in (0, 1):
                self.dropped.add(text, record=where, field="iscrowd", notice=BAD_CROWD)
                return None
            plain["iscrowd"] = int(crowd)
            if type(record["iscrowd"]) not in (int, bool):
                self.notes.add(text, record=where, field="iscrowd", notice=CROWD_READ, harmless=True)
        if self.outlines is not None:
            plain["segmentation"] = record.get("segmentation")
        return None if image is None or category is None or box is None else plain

    def _box(self, box: Any, where: str) -> list[float] | None:
        if not isinstance(box, list) or len(box) != 4:
            text = f"Expected a box [x, y, width, height], but got {_short(box)}."
            self.dropped.add(text, record=where, field="bbox", notice=BAD_BOXES)
            return None
        numbers = [_plain_number(value) for value in box]
        if any(number is None for number in numbers):
            text = f"Expected a box of four numbers, but got {_short(box)}."
            self.dropped.add(text, record=where, field="bbox", notice=BAD_BOXES)
            return None
        if any(isinstance(value, str) for value in box):
            text = f"Expected a box of four numbers, but got {_short(box)}: texts, read as numbers."
            self.notes.add(text, record=where, field="bbox", notice=TEXT_BOXES, harmless=True)
        return [float(number) for number in numbers if number is not None]

    def _fields(self, record: Any, where: str, names: Sequence[str], errors: ErrorList) -> list[Any] | None:
        if not isinstance(record, dict):
            got = type(record).__name__
            self.errors.add(f"Expected an object, but got {got}.", record=where, field=None)
            return None
        missing = [name for name in names if name not in record]
        for name in missing:
            errors.add(
                f"Expected {name!r}, but it is missing among {', '.join(map(repr, record)) or 'nothing'}.",
                record=where,
                field=name,
                kind="missing",
                notice=INCOMPLETE,
            )
        return None if missing else [record[name] for name in names]

    def _integer(
        self,
        value: Any,
        field: str,
        where: str,
        what: str,
        errors: ErrorList,
        *,
        min_value: int,
        max_value: int,
    ) -> int | None:
        number = integer(value)
        if number is None or not min_value <= number <= max_value:
            limits = "a whole number" if number is None else f"at least {min_value} and at most {max_value}"
            text = f"Expected {what}, {limits}, but got {_short(value)}."
            errors.add(text, record=where, field=field, kind="integer", notice=INCOMPLETE)
            return None
        if type(value) is not int:
            notice, self._read = ("" if self._read == where else READ_NUMBERS), where
            text = f"Expected {what}, a whole number, but got {_short(value)}, which is read as {number}."
            self.notes.add(text, record=where, field=field, kind="read", notice=notice, harmless=True)
        return number

    def _name(self, name: Any, where: str) -> bool:
        wrong = _name_error(name)
        if wrong:
            self.errors.add(wrong, record=where, field="file_name")
        return bool(wrong)


def integer(value: Any) -> int | None:
    """Return a whole number, also one written as 7.0 or "7"; None for anything else.

    Args:
        value: A value of a JSON file.
    """
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return int(value)
    return None


def _plain_number(value: Any) -> float | None:
    """Return a number, also one written as a text; None for anything else, and for what is no float."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    if type(value) is bool or not isinstance(value, int | float):
        return float(value) if type(value) is bool else None
    try:
        return float(value)
    except OverflowError:
        return None


def _name_error(name: Any) -> str | None:
    """Return what is wrong with a file name before any file is looked at."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return f"Expected a file name, but got {_short(name)}."
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"Expected a file name of characters, but got {_short(name)}: half of a surrogate pair."
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        return f"Expected a file name relative to the folder of the images, but got {_short(name)}."
    if ".." in windows.parts:
        return f"Expected a file inside the folder of the images, but {_short(name)} leads out of it."
    return None


def _where(section: str, index: int, record: Any) -> str:
    number = record.get("id") if isinstance(record, dict) else None
    return f"{section}[{index}]" if type(number) is not int else f"{section}[{index}] (id {number})"


def _fits(*numbers: int) -> bool:
    return all(-_LARGEST_ID <= number <= _LARGEST_ID for number in numbers)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
