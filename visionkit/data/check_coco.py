"""Everything that is wrong with a COCO file of detections, at once, each with its record and field."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionkit.data.boxes import box_fault
from visionkit.data.coco_masks import NONE
from visionkit.data.coco_records import FaultList, Records, read_records
from visionkit.data.read_image import MAX_PIXELS, read_image
from visionkit.errors import DataError

__all__ = ["Scan", "check_coco_file", "scan_coco"]

Ints = npt.NDArray[np.int64]
_MASK_BYTES = 4_000_000_000  # of one picture's masks together


@dataclass(frozen=True)
class Scan:
    """A COCO file, read and compared with itself.

    Args:
        records: What it holds.
        picture: `(A,)` the index of each annotation's picture.
        label: `(A,)` the index of each annotation's category, by rising id.
        usable: `(A,)` whether nothing is wrong with the annotation.
        corners: `(A, 4)` xyxy.
        faults: What makes the file unusable.
        dropped: Boxes and outlines that can be left out.
        notes: What this library does not mind, but COCO's own evaluation does.
    """

    records: Records
    picture: Ints
    label: Ints
    usable: npt.NDArray[np.bool_]
    corners: npt.NDArray[np.float64]
    faults: tuple[DataError, ...]
    dropped: tuple[DataError, ...]
    notes: tuple[DataError, ...]


def scan_coco(path: str | os.PathLike[str], *, masks: bool = False) -> Scan:
    """Read a COCO file and find everything in it that cannot be right. No picture is opened.

    Args:
        path: The JSON file.
        masks: Also look at the segmentations; an object without one is a fault.

    Raises:
        DataError: It is no JSON, or has no lists of images, annotations and categories.
    """
    return _scan(Path(path), outlines=masks, required=masks)


def check_coco_file(
    path: str | os.PathLike[str], root: str | os.PathLike[str], *, masks: bool = False
) -> tuple[int, list[DataError]]:
    """Check a COCO file, its segmentations where there are some, and every picture it names.

    Args:
        path: The JSON file.
        root: The folder of the pictures.
        masks: Whether an object without a segmentation is a fault.

    Returns:
        How many annotations could be read, and every fault.
    """
    try:
        scan = _scan(Path(path), outlines=True, required=masks)
    except DataError as fault:
        return 0, [fault]
    records = scan.records
    faults = FaultList(Path(path))
    for index, name in enumerate(records.names):
        where = f"images (id {records.image_ids[index]}), {name}"
        declared = (int(records.sizes[index, 0]), int(records.sizes[index, 1]))
        try:
            found = tuple(int(side) for side in read_image(name, root=root).shape[-2:])
        except DataError as fault:
            field = "file_name" if fault.field == "path" else fault.field
            faults.add(fault.message, record=where, field=field)
            continue
        if found != declared:
            faults.add(size_fault(declared, found), record=where, field="size")
    return len(records.ids), [*scan.faults, *scan.dropped, *scan.notes, *faults.all()]


def size_fault(declared: tuple[int, ...], found: tuple[int, ...]) -> str:
    """Say that a picture has another size than its record."""
    text = (
        f"Expected a picture of {declared[1]} x {declared[0]} pixels, as its record says, but it has "
        f"{found[1]} x {found[0]}: its boxes would be off."
    )
    if found == declared[::-1]:
        return f"{text} It was annotated without its EXIF turn: save the picture turned, without the tag."
    return f"{text} Correct width and height, or fetch the right picture."


def _scan(path: Path, *, outlines: bool, required: bool) -> Scan:
    faults, dropped, notes = FaultList(path), FaultList(path), FaultList(path)
    records = read_records(path, outlines=outlines, faults=faults, dropped=dropped)
    _images(records, faults)
    if not len(records.category_ids) and not len(faults):
        faults.add("Expected at least one category, but there is none.", record=None, field="categories")
    _twice(records.category_ids, "categories", "category id", faults)
    _twice_names(records.classes, records.category_ids, "categories", "name", faults)
    order = np.argsort(records.category_ids, kind="stable")
    picture, known = _look_up(records.images, records.image_ids, np.arange(len(records.image_ids)))
    label, listed = _look_up(records.categories, records.category_ids, np.argsort(order, kind="stable"))
    usable = known & listed
    for row in np.flatnonzero(~known).tolist():
        text = f"Expected the id of a picture, but there is no picture with id {records.images[row]}."
        faults.add(text, record=_record(records, row), field="image_id")
    for row in np.flatnonzero(~listed).tolist():
        text = f"Expected the id of a category, but there is none with id {records.categories[row]}."
        faults.add(text, record=_record(records, row), field="category_id")
    _annotation_ids(records, faults, notes)
    corners, sound = _boxes(records, picture, known, dropped)
    usable &= sound
    if records.outlines is not None:
        usable &= _outlines(records, picture, known, required, faults, dropped)
    named = [tuple(each.all()) for each in (faults, dropped, notes)]
    return Scan(records, picture, label, usable, corners, *named)


def _images(records: Records, faults: FaultList) -> None:
    _twice(records.image_ids, "images", "image id", faults)
    _twice_names(records.names, records.image_ids, "images", "file_name", faults)
    for row in np.flatnonzero(records.sizes.prod(axis=1) > MAX_PIXELS).tolist():
        height, width = records.sizes[row].tolist()
        text = f"Expected at most {MAX_PIXELS / 1e6:g} megapixels, but got {width} x {height}."
        faults.add(text, record=f"images (id {records.image_ids[row]})", field="size")


def _twice(ids: Ints, section: str, what: str, faults: FaultList) -> None:
    values, counts = np.unique(ids, return_counts=True)
    for value, count in zip(values[counts > 1].tolist(), counts[counts > 1].tolist()):
        text = f"Expected each {what} once, but {value} comes {count} times. Number them anew."
        faults.add(text, record=f"{section} (id {value})", field="id", kind="twice")


def _twice_names(names: Sequence[str], ids: Ints, section: str, field: str, faults: FaultList) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in first:
            text = (
                f"Expected each {field} once, but {name!r} stands in the records with ids {ids[first[name]]}"
            )
            faults.add(
                f"{text} and {ids[row]}.", record=f"{section} (id {ids[row]})", field=field, kind="twice"
            )
        first.setdefault(name, row)


def _annotation_ids(records: Records, faults: FaultList, notes: FaultList) -> None:
    given = records.ids != -1
    _twice(records.ids[given], "annotations", "annotation id", faults)
    for row in np.flatnonzero(records.ids == 0).tolist():
        text = (
            "Expected an annotation id from 1 up, but got 0: COCO's own evaluation takes 0 for 'not matched' "
            "and counts a right detection as a miss. Number from 1."
        )
        notes.add(text, record=_record(records, row), field="id")
    gaps = {"id": ~given, "iscrowd": records.crowd == -1, "area": np.isnan(records.areas)}
    for field, where in gaps.items():
        rows = np.flatnonzero(where)
        if len(rows):
            text = (
                f"Expected {field!r}, as COCO's own evaluation does, but {len(rows):,} annotations lack it."
            )
            notes.add(text, record=_record(records, int(rows[0])), field=field)


def _boxes(
    records: Records, picture: Ints, known: npt.NDArray[np.bool_], dropped: FaultList
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    boxes = records.boxes
    with np.errstate(invalid="ignore", over="ignore"):
        corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
        sizes = records.sizes[picture] if len(records.sizes) else np.zeros((len(boxes), 2), np.int64)
        limit = np.where(known[:, None], sizes[:, ::-1], 2**40)
        sound = np.asarray(np.isfinite(corners).all(1) & (corners[:, 2:] > corners[:, :2]).all(1))
        sound &= (corners[:, :2] >= -1).all(1) & (corners[:, 2:] <= limit + 1).all(1)
        sound &= (corners[:, 2:] > 0).all(1) & (corners[:, :2] < limit).all(1)
    for row in np.flatnonzero(~sound).tolist():
        size = (int(sizes[row, 0]), int(sizes[row, 1])) if known[row] else None
        width, height = boxes[row, 2:].tolist()
        if width <= 0 or height <= 0:
            text = f"Expected a box with an area, but its width and height are {width:g} and {height:g}."
        else:
            text = box_fault(corners[row].tolist(), size) or "Expected a box inside its picture."
        dropped.add(f"{text} Boxes are x, y, width, height.", record=_record(records, row), field="bbox")
    inner = np.clip(corners, 0, np.concatenate((limit, limit), axis=1)) if len(boxes) else corners
    return inner, sound


def _outlines(
    records: Records,
    picture: Ints,
    known: npt.NDArray[np.bool_],
    required: bool,
    faults: FaultList,
    dropped: FaultList,
) -> npt.NDArray[np.bool_]:
    outlines = records.outlines
    sound = np.ones(len(records.ids), dtype=bool)
    if outlines is None or not len(sound):
        return sound
    sizes = np.zeros((len(sound), 2), np.int64)
    sizes[known] = records.sizes[picture[known]]
    for row, text in outlines.faults(sizes):
        sound[row] = False
        dropped.add(text, record=_record(records, row), field="segmentation")
    if not required:
        return sound
    for row in np.flatnonzero(outlines.kind == NONE).tolist():
        text = "Expected polygons or run lengths, but there are none. Read the file without masks."
        faults.add(text, record=_record(records, row), field="segmentation", kind="none")
    count = np.bincount(picture[known], minlength=len(records.sizes))
    for row in np.flatnonzero(count * records.sizes.prod(axis=1) > _MASK_BYTES).tolist():
        gigabytes = count[row] * int(records.sizes[row].prod()) / 1e9
        text = f"Expected at most 4 GB of masks of one picture, but its {count[row]} take {gigabytes:.0f} GB."
        faults.add(text, record=f"images (id {records.image_ids[row]})", field="segmentation")
    return sound


def _look_up(wanted: Ints, ids: Ints, index: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return the `index` of the place of each wanted id in `ids` (0 without one), and whether it has one."""
    if not len(ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    order = np.argsort(ids, kind="stable")
    place = np.minimum(np.searchsorted(ids[order], wanted), len(ids) - 1)
    known = ids[order][place] == wanted
    return np.where(known, index[order[place]], 0), known


def _record(records: Records, row: int) -> str:
    number = int(records.ids[row])
    where = f"annotations[{records.place[row]}]"
    return where if number == -1 else f"{where} (id {number})"
