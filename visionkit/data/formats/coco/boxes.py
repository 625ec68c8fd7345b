"""COCO files of detections as a data set: a JSON file a split, read once for the splits and their errors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.data.error_list import ErrorList
from visionkit.data.formats.box_splits import validation_split
from visionkit.data.formats.coco.layout import coco_files
from visionkit.data.formats.coco.reader import BadBoxes, CocoReader
from visionkit.data.formats.coco.validate import Scan, scan_coco, size_error
from visionkit.data.formats.image_names import ImageFinder
from visionkit.data.formats.source import Source, read_each, sound
from visionkit.data.formats.split_notices import split_notices
from visionkit.data.read_image import read_image
from visionkit.data.splits import Splits
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED, Notice

__all__ = ["check_coco", "check_coco_file", "coco", "image_errors", "read_coco"]


def coco(
    root: str | os.PathLike[str],
    *,
    masks: bool = False,
    bad_boxes: BadBoxes = "drop",
    keep_empty: bool = True,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of a folder of COCO files, or of one file.

    The layouts are COCO's own (`annotations/instances_train2017.json` beside `train2017/` or
    `images/train2017/`), those of exports (`train/_annotations.coco.json` among the images,
    `train/labels.json` beside `train/data/`), plain `train.json` beside `images/`, and a single file
    (`result.json`, `labels.json`, `annotations/instances_default.json`). Without a validation file a fifth of
    the training images is held out. A test file without annotations is left out: it cannot be scored.

    Args:
        root: The folder, or a JSON file whose images lie beside it, in `images/` or in `data/`.
        masks: See `CocoReader`.
        bad_boxes: See `CocoReader`.
        keep_empty: Keep training images without objects. Validation and test images stay in any case:
            a detection in an empty one is a false positive.
        seed: Seed of the hold-out.
        max_dropped: Fraction of a split's annotations, or of its images, that may be left out.

    Raises:
        DataError: There is no such layout, a file is wrong, too much of it would be left out, there is no
            object to learn, or splits differ in their categories.
    """
    return read_coco(root, masks=masks, bad_boxes=bad_boxes, keep_empty=keep_empty, seed=seed).splits(
        max_dropped
    )


def read_coco(
    root: str | os.PathLike[str],
    *,
    masks: bool = False,
    bad_boxes: BadBoxes = "drop",
    keep_empty: bool = True,
    seed: int = 0,
    outlines: bool = False,
    keypoints: bool = False,
) -> Source:
    """Read a folder of COCO files, or one file; the arguments are those of `coco`.

    Args:
        root: The folder or the file.
        masks: See `CocoReader`.
        bad_boxes: See `CocoReader`.
        keep_empty: See `coco`.
        seed: Seed of the hold-out.
        outlines: Also read outlines to list what is wrong with them.
        keypoints: Take the files of keypoints where there are some.

    Raises:
        DataError: There is no such layout.
    """
    top = Path(root)
    files = coco_files(top, keypoints=keypoints)
    read = dict(
        zip(
            files,
            read_each(files.values(), lambda pair: scan_coco(pair[0], masks=masks, outlines=outlines)),
            strict=True,
        )
    )
    folders = {split: images for split, (_, images) in files.items()}
    return Source(
        lambda max_dropped: _splits(top, folders, read, masks, bad_boxes, keep_empty, seed, max_dropped),
        lambda left_out: _errors(folders, read, left_out),
        lambda: _notes(read),
    )


def _splits(
    top: Path,
    folders: Mapping[str, Path],
    read: Mapping[str, Scan | DataError],
    masks: bool,
    bad_boxes: BadBoxes,
    keep_empty: bool,
    seed: int,
    max_dropped: float,
) -> Splits:
    readers: dict[str, CocoReader] = {}
    notices: list[Notice] = []
    for split, scan in read.items():
        keep = keep_empty or split != "train"
        try:
            (known_scan,) = sound([scan])
            reader = CocoReader.of_scan(
                known_scan,
                folders[split],
                masks=masks,
                bad_boxes=bad_boxes,
                keep_empty=keep,
                max_dropped=max_dropped,
            )
        except DataError as error:
            if split != "test" or error.field != "annotations":
                raise
            notices.append(Notice("test files without annotations, left out", 1, 1, str(error)))
            continue
        readers[split] = reader
        notices += [replace(each, what=f"{split}: {each.what}") for each in reader.notices]
    notices += split_notices(top, readers, max_dropped=max_dropped)
    first = readers["train"]
    parents = frozenset.intersection(*(reader.parents for reader in readers.values()))
    for split, reader in readers.items():
        reader.leave_out(parents)
        if (reader.category_ids, reader.classes) != (first.category_ids, first.classes):
            ours = dict(zip(first.category_ids, first.classes, strict=True))
            theirs = dict(zip(reader.category_ids, reader.classes, strict=True))
            odd = sorted(set(ours.items()) ^ set(theirs.items()))[0]
            text = (
                f"Expected the categories of {first.path.name}, but {split} differs in {odd[0]}: {odd[1]!r}."
            )
            raise DataError(text, path=reader.path, field="categories")
    if not (first._crowd == 0).any():
        text = "Expected objects to learn in the training file, but it has none that could be read"
        text += ": only crowds." if len(first._row) else "."
        raise DataError(text, path=first.path, field="annotations")
    known = readers.get("val")
    train, val, held = validation_split(
        first, known, (first if known is None else known).path, seed=seed, what="file"
    )
    facts: dict[str, Any] = {"root": str(top), "category_ids": list(first.category_ids), **held}
    name = top.resolve().stem
    return Splits(train, val, readers.get("test"), first.classes, name, facts, tuple(notices))


def _errors(
    folders: Mapping[str, Path], read: Mapping[str, Scan | DataError], left_out: bool
) -> list[DataError]:
    """Return everything that is wrong with scanned files and their images."""
    errors: list[DataError] = []
    for split, scan in read.items():
        if isinstance(scan, DataError):
            errors.append(scan)
            continue
        errors += [*scan.errors, *((*scan.dropped, *scan.cut) if left_out else ())]
        errors += image_errors(scan, folders[split])
    return errors


def _notes(read: Mapping[str, Scan | DataError]) -> list[Notice]:
    """Return what COCO's own evaluation minds and this library does not, by split and field."""
    notices = []
    for split, scan in read.items():
        by_field: dict[str | None, list[DataError]] = {}
        for note in () if isinstance(scan, DataError) else scan.uncounted:
            by_field.setdefault(note.field, []).append(note)
        for field, notes in by_field.items():
            what = f"{split}: notes on {field!r}, for other programs"
            notices.append(Notice(what, len(notes), 0, str(notes[0])))
    return notices


def check_coco(
    root: str | os.PathLike[str], *, masks: bool = False, left_out: bool = True
) -> tuple[int, list[DataError]]:
    """Return how many annotations of a folder of COCO files, or of one, could be read, and every error.

    Args:
        root: As in `coco`.
        masks: Whether an object without an outline is an error.
        left_out: Whether what `coco` leaves out or cuts is listed, too.
    """
    try:
        files = coco_files(Path(root))
    except DataError as error:
        return 0, [error]
    errors: list[DataError] = []
    count = 0
    for file, images in files.values():
        number, of_file = check_coco_file(file, images, masks=masks, left_out=left_out)
        count += number
        errors += of_file
    return count, errors


def check_coco_file(
    path: str | os.PathLike[str], root: str | os.PathLike[str], *, masks: bool = False, left_out: bool = True
) -> tuple[int, list[DataError]]:
    """Check a COCO file, its segmentations where there are some, and every image it names.

    Args:
        path: The JSON file.
        root: The folder of the images.
        masks: Whether an object without a segmentation is an error.
        left_out: Whether annotations that are left out, and boxes that are cut, are listed, too.

    Returns:
        How many annotations could be read, and every error.
    """
    try:
        scan = scan_coco(path, masks=masks, outlines=True)
    except DataError as error:
        return 0, [error]
    minor = (*scan.dropped, *scan.cut) if left_out else ()
    return len(scan.records.ids), [*scan.errors, *minor, *scan.notes, *image_errors(scan, root)]


def image_errors(scan: Scan, root: str | os.PathLike[str]) -> list[DataError]:
    """Decode every image of a COCO file; return those that cannot be read or have another size.

    Args:
        scan: The file.
        root: The folder of the images.
    """
    records = scan.records
    errors = ErrorList(scan.path)
    finder = ImageFinder(root)
    for index in np.flatnonzero(scan.unique).tolist():
        name = records.names[index]
        where = f"images (id {records.image_ids[index]}), {name}"
        declared = (int(records.sizes[index, 0]), int(records.sizes[index, 1]))
        try:
            actual = tuple(
                int(side) for side in read_image(finder.find(name)[0] or name, root=root).shape[-2:]
            )
        except DataError as error:
            field = "file_name" if error.field == "path" else error.field
            errors.add(error.message, record=where, field=field)
            continue
        if actual != declared:
            errors.add(size_error(declared, actual), record=where, field="size")
    return errors.all()
