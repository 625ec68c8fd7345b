"""labelme: one JSON file an image, with shapes that are named by their classes.

`read_labelme` gives the shapes of one file; `labelme_boxes` reads a folder as boxes and outlines of objects.
Source: https://github.com/wkentaro/labelme (the fields of its files).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.data.boxes import CUT
from visionkit.data.formats.box_records import BoxCounts, BoxReader, BoxRecord, box_splits
from visionkit.data.formats.image_names import ImageFinder
from visionkit.data.formats.source import Source, read_each, sound
from visionkit.data.read_image import IMAGE_SUFFIXES, read_image, read_size
from visionkit.data.splits import Splits, split_of
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED

__all__ = [
    "LabelmeFile",
    "LabelmeShape",
    "check_labelme",
    "count_left_out",
    "is_labelme",
    "labelme_boxes",
    "labelme_errors",
    "labelme_files",
    "read_labelme",
    "read_labelme_boxes",
    "read_labelme_folder",
]

_LARGEST = 200_000_000  # bytes of a file: the image itself may be in it
_HEAD = 1 << 16
_CIRCLE = 36  # corners of the polygon that stands for a circle
_FOLDERS = ("annotations", "labels", "json", "jsons")
_SHAPES = "shapes without an area (points, lines), left out"
_MISSING = "annotations without an image, left out"


@dataclass(frozen=True)
class LabelmeShape:
    """One shape.

    Args:
        label: Its class.
        polygon: Corners x1, y1, x2, y2 ... in pixels; for a rectangle and a circle too.
        kind: "polygon", "rectangle", "circle", ...
        group: Shapes of one class with one number are parts of one object; None: it stands alone.
    """

    label: str
    polygon: list[float]
    kind: str
    group: int | None


@dataclass(frozen=True)
class LabelmeFile:
    """One file of labelme.

    Args:
        path: The file.
        image: The image, from the root that was given; None where there is none.
        size: `(H, W)` in the file; None where it is not given.
        shapes: Its shapes that have an area.
        others: How many other shapes it has (points, lines).
        errors: Shapes that cannot be right.
    """

    path: Path
    image: str | None
    size: tuple[int, int] | None
    shapes: tuple[LabelmeShape, ...]
    others: int
    errors: tuple[DataError, ...]


LabelmeResults = dict[str, list["LabelmeFile | DataError"]]


def is_labelme(root: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds files of labelme, by the first of its JSON files; it never raises.

    Args:
        root: Any path.
    """
    try:
        return any(files for files in labelme_files(root).values())
    except (OSError, DataError):
        return False


def labelme_files(root: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """Return the files of labelme by split: of folders of splits, or else all for training.

    Args:
        root: The folder. The files lie in it, or in `annotations/` or `labels/` of it, or of its splits.
    """
    top = Path(root)
    by_split: dict[str, list[Path]] = {}
    for folder in _folders(top):
        split = split_of(folder.name)
        if split is not None:
            by_split.setdefault(split, []).extend(_files(folder))
    if by_split.get("train"):
        return {split: files for split, files in by_split.items() if files}
    files = _files(top)
    return {"train": files} if files else {}


def read_labelme(path: str | os.PathLike[str], *, root: str | os.PathLike[str]) -> LabelmeFile:
    """Read one file; the image in it (`imageData`) is passed over.

    The image is the one beside the file, or in `images/`, that has its name; else the one `imagePath` names.

    Args:
        path: The file.
        root: The folder that the image must lie in.

    Raises:
        DataError: It cannot be read, or is no file of labelme.
    """
    return _read(Path(path), Path(root), ImageFinder(root))


def labelme_boxes(
    root: str | os.PathLike[str],
    *,
    masks: bool = False,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of a folder of labelme: rectangles, polygons and circles are objects.

    Shapes of one class and one `group_id` are one object. Classes are the labels that occur, sorted. Without
    a validation folder a fifth of the training images is held out.

    Args:
        root: The folder.
        masks: Also read outlines; every object has one.
        seed: Seed of the hold-out.
        max_dropped: Fraction of a split's objects, and of its files, that may be left out.

    Raises:
        DataError: There are no such files, one is wrong, or too much would be left out.
    """
    return read_labelme_boxes(root, masks=masks, seed=seed).splits(max_dropped)


def read_labelme_boxes(root: str | os.PathLike[str], *, masks: bool = False, seed: int = 0) -> Source:
    """Read the files of a folder of labelme; the arguments are those of `labelme_boxes`.

    Args:
        root: The folder.
        masks: Also read outlines.
        seed: Seed of the hold-out.

    Raises:
        DataError: There are no such files.
    """
    top = Path(root)
    read = read_labelme_folder(top)
    return Source(
        lambda max_dropped: _splits(top, read, masks, seed, max_dropped),
        lambda left_out: labelme_errors(top, read, left_out=left_out),
    )


def _splits(top: Path, results: LabelmeResults, masks: bool, seed: int, max_dropped: float) -> Splits:
    read = {split: sound(files) for split, files in results.items()}
    classes = sorted({shape.label for files in read.values() for file in files for shape in file.shapes})
    number = {name: index for index, name in enumerate(classes)}
    readers, counts = {}, {}
    for split, files in read.items():
        counted = counts[split] = BoxCounts(max_dropped)
        count_left_out(files, counted)
        records = []
        for file in files:
            record, cases = _record(file, top, number)
            records += [] if record is None else [record]
            for what, error in cases:
                counted.add(what, error)
        readers[split] = BoxReader(top, records, classes, masks=masks)
    return box_splits(top, readers, classes, counts, seed=seed, max_dropped=max_dropped)


def read_labelme_folder(root: Path) -> LabelmeResults:
    """Return what the files of a folder hold, by split; an error for one that cannot be read.

    Args:
        root: The folder.

    Raises:
        DataError: There are no such files.
    """
    finder = ImageFinder(root)
    parts = labelme_files(root)
    if not parts:
        raise DataError("Expected files of labelme (.json with shapes), but there is none.", path=root)
    return {split: read_each(files, lambda path: _read(path, root, finder)) for split, files in parts.items()}


def count_left_out(files: Sequence[LabelmeFile], counted: BoxCounts) -> None:
    """Count the shapes and files of a split that are left out.

    Args:
        files: The files of the split.
        counted: Takes the cases, and how many shapes and files there are.
    """
    for file in files:
        for error in file.errors:
            counted.add("shapes that cannot be right, left out", error)
        if file.others:
            counted.objects.add(_SHAPES, f"{file.path}: {file.others}", count=file.others, harmless=True)
        if file.image is None:
            counted.images.add(_MISSING, _no_image(file))
    counted.object_total = sum(len(file.shapes) + file.others + len(file.errors) for file in files)
    counted.image_total = len(files)


def _no_image(file: LabelmeFile) -> DataError:
    return DataError("Expected the image of this file, but there is none.", path=file.path)


def check_labelme(root: str | os.PathLike[str], *, left_out: bool = True) -> list[DataError]:
    """Return every error of a folder of labelme.

    Args:
        root: The folder.
        left_out: Whether what `labelme_boxes` leaves out is listed, too.
    """
    try:
        return read_labelme_boxes(root).errors(left_out)
    except DataError as error:
        return [error]


def labelme_errors(top: Path, read: LabelmeResults, *, left_out: bool) -> list[DataError]:
    """Return everything that is wrong with files of labelme that were read, and with their images.

    Args:
        top: The folder.
        read: The files of each split.
        left_out: Whether shapes and files that are left out are listed, too.
    """
    errors: list[DataError] = []
    for file in [file for files in read.values() for file in files]:
        if isinstance(file, DataError):
            errors.append(file)
            continue
        try:
            record, cases = _record(file, top, {shape.label: 0 for shape in file.shapes})
            if left_out:
                errors += [*file.errors, *([_no_image(file)] if file.image is None else [])]
                errors += [error for what, error in cases if what != CUT]
            if record is not None:
                actual = tuple(int(side) for side in read_image(record.image, root=top).shape[-2:])
                if record.size not in (None, actual):
                    text = f"Expected the size of the image, {actual}, but got {record.size} (height, width)."
                    errors.append(DataError(text, path=file.path, field="imageHeight"))
        except DataError as error:
            errors.append(error)
    return errors


def _record(
    file: LabelmeFile, root: Path, number: Mapping[str, int]
) -> tuple[BoxRecord | None, list[tuple[str, DataError]]]:
    """Return the objects of a file, None when its image is missing, and the boxes cut or left out."""
    cases: list[tuple[str, DataError]] = []
    if file.image is None:
        return None, cases
    size = file.size or read_size(file.image, root=root)
    record = BoxRecord(file.image, file.image, file.path, file.size)
    objects: dict[Any, list[LabelmeShape]] = {}
    for index, shape in enumerate(file.shapes):
        key = (shape.label, shape.group) if shape.group is not None else index
        objects.setdefault(key, []).append(shape)
    for index, shapes in enumerate(objects.values()):
        xs = [value for shape in shapes for value in shape.polygon[::2]]
        ys = [value for shape in shapes for value in shape.polygon[1::2]]
        box = [min(xs), min(ys), max(xs), max(ys)]
        drawn = any(shape.kind == "mask" for shape in shapes)  # its outline is an image, which is not read
        polygons = None if drawn else [shape.polygon for shape in shapes]
        case = record.add(number[shapes[0].label], box, polygons, size, f"object {index}")
        cases += [] if case is None else [case]
    return record, cases


def _read(path: Path, root: Path, finder: ImageFinder) -> LabelmeFile:
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"Expected a file of at most {_LARGEST / 1e6:g} MB.", path=path)
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Expected JSON in UTF-8, but {error}.", path=path) from None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError("Expected an object with a list of shapes, but there is none.", path=path)
    shapes, others, errors = [], 0, []
    for index, shape in enumerate(content["shapes"]):
        try:
            made = _shape(shape)
        except ValueError as error:
            errors.append(DataError(str(error), path=path, record=f"shapes[{index}]", field="points"))
            continue
        others += made is None
        shapes += [] if made is None else [made]
    sides = (content.get("imageHeight"), content.get("imageWidth"))
    for side in sides:
        if isinstance(side, float) and not side.is_integer():  # NaN and infinity are no integers either
            raise DataError(
                f"Expected a whole number of pixels, but got {side}.", path=path, field="imageHeight"
            )
    known = [int(side) for side in sides if isinstance(side, int | float) and side >= 1]
    size = (known[0], known[1]) if len(known) == 2 else None
    image = _image(path, content.get("imagePath"), root, finder)
    return LabelmeFile(path, image, size, tuple(shapes), others, tuple(errors))


def _shape(shape: Any) -> LabelmeShape | None:
    """Return a shape with an area, None for one without, or raise `ValueError`."""
    if not isinstance(shape, dict):
        raise ValueError(f"Expected a shape, an object, but got a {type(shape).__name__}.")
    label, points, kind = shape.get("label"), shape.get("points"), shape.get("shape_type") or "polygon"
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"Expected a label, but got {label!r}.")
    try:
        corners = [(float(x), float(y)) for x, y in points or ()]
    except (TypeError, ValueError, OverflowError):
        raise ValueError("Expected points [[x, y], ...], but got others.") from None
    if not all(math.isfinite(value) for corner in corners for value in corner):
        raise ValueError("Expected finite points, but got NaN or infinity.")
    if kind in ("point", "points", "line", "linestrip"):
        return None
    min_points = {"rectangle": 2, "circle": 2, "mask": 2}.get(kind, 3)
    if len(corners) < min_points:
        raise ValueError(f"Expected at least {min_points} points of a {kind}, but got {len(corners)}.")
    if kind in ("rectangle", "mask") and len(corners) == 2:
        (x1, y1), (x2, y2) = corners
        corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    elif kind == "circle":
        (x, y), edge = corners[0], corners[1]
        radius = math.dist((x, y), edge)
        turns = [2 * math.pi * step / _CIRCLE for step in range(_CIRCLE)]
        corners = [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
    group = shape.get("group_id")
    polygon = [value for corner in corners for value in corner]
    return LabelmeShape(label.strip(), polygon, kind, group if type(group) is int else None)


def _image(path: Path, named: Any, root: Path, finder: ImageFinder) -> str | None:
    """Return the image of a file, from the root."""
    base = Path(os.path.relpath(path.parent, root)).as_posix()
    above = Path(base).parent.as_posix()
    folders = [base, *(f"{above}/{name}" for name in ("images", "JPEGImages", "imgs")), above]
    folders += [f"{base}/{name}" for name in ("images", "JPEGImages", "imgs")]
    folders = ["" if folder == "." else folder.removeprefix("./") for folder in folders]
    for folder in dict.fromkeys(folders):
        for suffix in sorted(IMAGE_SUFFIXES):
            for name in (path.stem + suffix, path.stem + suffix.upper()):
                if name in finder.listed(folder):
                    return f"{folder}/{name}" if folder else name
    last = str(named or "").replace("\\", "/").rsplit("/", 1)[-1]
    for folder in dict.fromkeys(folders):
        if last and last in finder.listed(folder):
            return f"{folder}/{last}" if folder else last
    return None


def _files(folder: Path) -> list[Path]:
    """Return the files of labelme in a folder, or in its folder of annotations."""
    for directory in (folder, *(each for each in _folders(folder) if each.name.lower() in _FOLDERS)):
        files = sorted(
            file for file in directory.iterdir() if file.suffix.lower() == ".json" and file.is_file()
        )
        if files and _is_labelme_file(files[0]):
            return [file for file in files if _is_labelme_file(file)]
    return []


def _is_labelme_file(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
        stream.seek(max(len(head), file.stat().st_size - _HEAD))
        text = head + stream.read()
    return b'"shapes"' in text and (b'"imagePath"' in text or b'"imageData"' in text)


def _folders(top: Path) -> list[Path]:
    return sorted(entry for entry in top.iterdir() if entry.is_dir()) if top.is_dir() else []
