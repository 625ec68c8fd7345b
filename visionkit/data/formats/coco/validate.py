"""Validate a COCO file of detections: every error at once, each with its record and field."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionkit.data.boxes import BAD_BOXES, CUT, MAX_CUT, SLACK, box_error
from visionkit.data.error_list import ErrorList
from visionkit.data.formats.coco.records import (
    BAD_OUTLINES,
    NO_AREA,
    READ_NUMBERS,
    SHORT_PARTS,
    Records,
    read_records,
)
from visionkit.data.formats.coco.segmentations import NONE
from visionkit.data.read_image import MAX_PIXELS
from visionkit.errors import DataError
from visionkit.notices import Notice, NoticeCounter

__all__ = ["Scan", "scan_coco", "size_error"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
ORPHANS = "annotations of images or categories that the file does not list, left out"
PARENTS = "categories without annotations that stand above others or for the background, left out"
AGAIN = "images listed again, word for word"
_MASK_BYTES = 4_000_000_000  # of one image's masks together


@dataclass(frozen=True)
class Scan:
    """A COCO file, read and compared with itself.

    Args:
        path: The file.
        records: What it holds.
        image: `(A,)` the index of each annotation's image.
        label: `(A,)` the index of each annotation's category, by rising id.
        usable: `(A,)` whether the annotation can be trained on.
        scored: `(A,)` whether it counts in evaluation, as it does in COCO's own: its box is finite and not
            turned inside out, wherever it lies.
        outlined: `(A,)` whether the outline, if outlines were read, can be filled.
        corners: `(A, 4)` xyxy, cut at the border of the image.
        full: `(A, 4)` xyxy as the file has them.
        unique: `(I,)` whether an image's record is no repetition of an earlier one.
        parents: Ids of the categories that are parents of others, or the background, and have no annotation.
        errors: What makes the file unusable.
        dropped: Annotations left out.
        cut: Boxes that reach over the border and are cut there in training.
        notes: What this library does not mind, but COCO's own evaluation does.
        uncounted: Those of the notes that `counter` does not count.
        counter: The same, counted.
    """

    path: Path
    records: Records
    image: Ints
    label: Ints
    usable: Bools
    scored: Bools
    outlined: Bools
    corners: npt.NDArray[np.float64]
    full: npt.NDArray[np.float64]
    unique: Bools
    parents: frozenset[int]
    errors: tuple[DataError, ...]
    dropped: tuple[DataError, ...]
    cut: tuple[DataError, ...]
    notes: tuple[DataError, ...]
    uncounted: tuple[DataError, ...]
    counter: NoticeCounter

    def notices(self, *, masks: bool, max_dropped: float) -> tuple[Notice, ...]:
        """Return what was counted.

        Args:
            masks: Whether outlines are used; else what is wrong with them does not count.
            max_dropped: The limit of what is left out; boxes that are cut may be a half.
        """
        records = self.records
        images = len(records.image_ids)
        totals = {AGAIN: images, PARENTS: len(records.classes), READ_NUMBERS: images + records.count}
        counted = self.counter.notices(records.count)
        unused = () if masks else (BAD_OUTLINES, SHORT_PARTS)
        limits = {CUT: max(MAX_CUT, max_dropped)}
        return tuple(
            replace(
                each,
                total=totals.get(each.what, each.total),
                max_fraction=None if each.max_fraction is None else limits.get(each.what, max_dropped),
            )
            for each in counted
            if each.what not in unused
        )


def scan_coco(
    path: str | os.PathLike[str],
    *,
    masks: bool = False,
    outlines: bool = False,
) -> Scan:
    """Read a COCO file and find everything in it that cannot be right. No image is opened.

    Args:
        path: The JSON file.
        masks: Also look at the segmentations; an object without one is an error.
        outlines: Also look at the segmentations, where there are some.

    Raises:
        DataError: It is no JSON, or has no lists of images, annotations and categories.
    """
    return _scan(Path(path), outlines=masks or outlines, required=masks)


def size_error(declared: tuple[int, ...], actual: tuple[int, ...]) -> str:
    """Return the error text for an image of another size than its record."""
    text = (
        f"Expected an image of {declared[1]} x {declared[0]} pixels, as its record says, but it has "
        f"{actual[1]} x {actual[0]}: its boxes would be off."
    )
    if actual == declared[::-1]:
        return f"{text} It was annotated without its EXIF turn: save the image turned, without the tag."
    return f"{text} Correct width and height, or fetch the right image."


def _scan(path: Path, *, outlines: bool, required: bool) -> Scan:
    counter = NoticeCounter()
    errors, dropped, cut, notes = (ErrorList(path, counter=counter) for _ in range(4))
    records = read_records(path, outlines=outlines, errors=errors, dropped=dropped, notes=notes)
    unique = _images(records, errors, notes)
    if not len(records.category_ids) and not len(errors):
        errors.add("Expected at least one category, but there is none.", record=None, field="categories")
    _twice(records.category_ids, "categories", "category id", errors)
    parents = _parents(records)
    named = np.array([number not in parents for number in records.category_ids.tolist()], dtype=bool)
    _twice_names(records.classes, records.category_ids, named, "categories", "name", errors)
    order = np.argsort(records.category_ids, kind="stable")
    positions = np.flatnonzero(unique)
    image, known = _match_ids(records.images, records.image_ids[unique], positions)
    label, listed = _match_ids(records.categories, records.category_ids, np.argsort(order, kind="stable"))
    for row in np.flatnonzero(~known).tolist():
        text = f"Expected the id of an image, but there is no image with id {records.images[row]}."
        dropped.add(text, record=_record(records, row), field="image_id", notice=ORPHANS)
    for row in np.flatnonzero(known & ~listed).tolist():
        text = f"Expected the id of a category, but there is none with id {records.categories[row]}."
        dropped.add(text, record=_record(records, row), field="category_id", notice=ORPHANS)
    _annotation_ids(records, notes)
    with np.errstate(over="ignore", invalid="ignore"):
        full = np.concatenate((records.boxes[:, :2], records.boxes[:, :2] + records.boxes[:, 2:]), axis=1)
    corners, usable, scored = _boxes(records, full, image, known, dropped, cut)
    both = known & listed
    outlined = _outlines(records, image, known, required, errors, dropped)
    for number in sorted(parents):
        name = records.classes[records.category_ids.tolist().index(number)]
        counter.add(PARENTS, f"{path}, record categories (id {number}): {name!r}", harmless=True)
    return Scan(
        path=path,
        records=records,
        image=image,
        label=label,
        usable=usable & both,
        scored=scored & both,
        outlined=outlined,
        corners=corners,
        full=full,
        unique=unique,
        parents=parents,
        errors=tuple(errors.all()),
        dropped=tuple(dropped.all()),
        cut=tuple(cut.all()),
        notes=tuple(notes.all()),
        uncounted=tuple(notes.uncounted),
        counter=counter,
    )


def _images(records: Records, errors: ErrorList, notes: ErrorList) -> Bools:
    """Return which records of images are kept: all but exact repetitions."""
    unique = np.ones(len(records.image_ids), dtype=bool)
    values, counts = np.unique(records.image_ids, return_counts=True)
    if (counts > 1).any():
        seen: dict[int, int] = {}
        for row in np.flatnonzero(np.isin(records.image_ids, values[counts > 1])).tolist():
            first = seen.setdefault(int(records.image_ids[row]), row)
            same = records.names[first] == records.names[row]
            if row != first and same and (records.sizes[first] == records.sizes[row]).all():
                unique[row] = False
                text = f"Expected each image once, but {records.names[row]!r} is listed again."
                where = f"images (id {records.image_ids[row]})"
                notes.add(text, record=where, field="id", notice=AGAIN, harmless=True)
    _twice(records.image_ids[unique], "images", "image id", errors)
    _twice_names(records.names, records.image_ids, unique, "images", "file_name", errors)
    for row in np.flatnonzero(records.sizes.prod(axis=1) > MAX_PIXELS).tolist():
        height, width = records.sizes[row].tolist()
        text = f"Expected at most {MAX_PIXELS / 1e6:g} megapixels, but got {width} x {height}."
        errors.add(text, record=f"images (id {records.image_ids[row]})", field="size")
    return unique


def _parents(records: Records) -> frozenset[int]:
    """Return the ids of categories that only stand above others, or for the background, and are not used."""
    used = set(np.unique(records.categories).tolist())
    names = Counter(records.classes)
    both = zip(records.parents, records.classes, strict=True)
    above = {parent for parent, name in both if names[parent] > (parent == name)}
    return frozenset(
        number
        for number, name in zip(records.category_ids.tolist(), records.classes, strict=True)
        if number not in used and (name in above or name.strip("_").lower() == "background")
    )


def _twice(ids: Ints, section: str, what: str, errors: ErrorList) -> None:
    values, counts = np.unique(ids, return_counts=True)
    for value, count in zip(values[counts > 1].tolist(), counts[counts > 1].tolist()):
        text = f"Expected each {what} once, but {value} comes {count} times. Number them anew."
        errors.add(text, record=f"{section} (id {value})", field="id", kind="twice")


def _twice_names(
    names: Sequence[str], ids: Ints, unique: Bools, section: str, field: str, errors: ErrorList
) -> None:
    first: dict[str, int] = {}
    for row in np.flatnonzero(unique).tolist():
        name = names[row]
        if name in first:
            text = (
                f"Expected each {field} once, but {name!r} stands in the records with ids {ids[first[name]]}"
            )
            errors.add(
                f"{text} and {ids[row]}.", record=f"{section} (id {ids[row]})", field=field, kind="twice"
            )
        first.setdefault(name, row)


def _annotation_ids(records: Records, notes: ErrorList) -> None:
    given = records.ids != -1
    zero = np.flatnonzero(records.ids == 0)
    if len(zero) < 2:
        _twice(records.ids[given], "annotations", "annotation id", notes)
    else:
        _twice(records.ids[given & (records.ids != 0)], "annotations", "annotation id", notes)
    for row in zero.tolist():
        text = (
            "Expected an annotation id from 1 up, but got 0: COCO's own evaluation takes 0 for 'not matched' "
            "and counts a right detection as a miss. Number from 1."
        )
        notes.add(text, record=_record(records, row), field="id")
    gaps = {"id": ~given, "iscrowd": records.crowd == -1, "area": np.isnan(records.areas)}
    for field, where in gaps.items():
        rows = np.flatnonzero(where)
        if len(rows):
            if field == "area" and notes.counter is not None:
                missing = len(rows) - notes.counter.counts.get(NO_AREA, 0)
                where_ = f"{notes.path}, record {_record(records, int(rows[0]))}, field 'area'"
                notes.counter.add(NO_AREA, where_, count=max(0, missing), harmless=True)
            text = (
                f"Expected {field!r}, as COCO's own evaluation does, but {len(rows):,} annotations lack it."
            )
            notes.add(text, record=_record(records, int(rows[0])), field=field, counted=field == "area")


def _boxes(
    records: Records,
    full: npt.NDArray[np.float64],
    image: Ints,
    known: Bools,
    dropped: ErrorList,
    cut: ErrorList,
) -> tuple[npt.NDArray[np.float64], Bools, Bools]:
    """Return the boxes cut at the border, which of them have an area there, and which count in scores."""
    boxes = records.boxes
    sizes = records.sizes[image] if len(records.sizes) else np.zeros((len(boxes), 2), np.int64)
    limit = np.where(known[:, None], sizes[:, ::-1], 2**40).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.asarray(np.isfinite(full).all(1))
        scored = finite & (boxes[:, 2:] >= 0).all(1)
        inner = np.clip(full, 0, np.concatenate((limit, limit), axis=1)) if len(boxes) else full
        inner = np.where(finite[:, None], inner, 0.0)
        sound = np.asarray(
            scored & (inner[:, 2:].astype(np.float32) > inner[:, :2].astype(np.float32)).all(1)
        )
        over = sound & ((full[:, :2] < -SLACK).any(1) | (full[:, 2:] > limit + SLACK).any(1))
    for row in np.flatnonzero(~sound | over).tolist():
        size = (int(sizes[row, 0]), int(sizes[row, 1])) if known[row] else None
        width, height = boxes[row, 2:].tolist()
        if width <= 0 or height <= 0:
            text = f"Expected a box with an area, but its width and height are {width:g} and {height:g}."
        else:
            text = box_error(full[row].tolist(), size) or "Expected a box with an area in its image."
        text = f"{text} Boxes are x, y, width, height."
        if over[row]:
            cut.add(text, record=_record(records, row), field="bbox", notice=CUT)
        elif known[row]:
            dropped.add(text, record=_record(records, row), field="bbox", notice=BAD_BOXES)
    return inner, sound, scored


def _outlines(
    records: Records,
    image: Ints,
    known: npt.NDArray[np.bool_],
    required: bool,
    errors: ErrorList,
    dropped: ErrorList,
) -> npt.NDArray[np.bool_]:
    outlines = records.outlines
    sound = np.ones(len(records.ids), dtype=bool)
    if outlines is None or not len(sound):
        return sound
    sizes = np.zeros((len(sound), 2), np.int64)
    sizes[known] = records.sizes[image[known]]
    sound[records.bad_outlines] = False
    for row, text in outlines.errors(sizes):
        sound[row] = False
        dropped.add(text, record=_record(records, row), field="segmentation", notice=BAD_OUTLINES)
    if not required:
        return sound
    for row in np.flatnonzero((outlines.kind == NONE) & sound).tolist():
        text = "Expected polygons or run lengths, but there are none. Read the file without masks."
        errors.add(text, record=_record(records, row), field="segmentation", kind="none")
    count = np.bincount(image[known], minlength=len(records.sizes))
    for row in np.flatnonzero(count * records.sizes.prod(axis=1) > _MASK_BYTES).tolist():
        gigabytes = count[row] * int(records.sizes[row].prod()) / 1e9
        text = f"Expected at most 4 GB of masks of one image, but its {count[row]} take {gigabytes:.0f} GB."
        errors.add(text, record=f"images (id {records.image_ids[row]})", field="segmentation")
    return sound


def _match_ids(targets: Ints, ids: Ints, index: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return the `index` of the place of each wanted id in `ids` (0 without one), and whether it has one."""
    if not len(ids):
        return np.zeros(len(targets), np.int64), np.zeros(len(targets), bool)
    order = np.argsort(ids, kind="stable")
    position = np.minimum(np.searchsorted(ids[order], targets), len(ids) - 1)
    known = ids[order][position] == targets
    return np.where(known, index[order[position]], 0), known


def _record(records: Records, row: int) -> str:
    number = int(records.ids[row])
    where = f"annotations[{records.positions[row]}]"
    return where if number == -1 else f"{where} (id {number})"
