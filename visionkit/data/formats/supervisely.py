"""Supervisely projects: `ann/photo.jpg.json` beside `img/photo.jpg`, and the classes in meta.json.

Rectangles and polygons are read as boxes, polygons as outlines too; bitmaps are left out and counted.
Source: https://docs.supervisely.com (Annotation JSON format).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionkit.data.boxes import CUT
from visionkit.data.formats.box_records import BoxCounts, BoxReader, BoxRecord, box_splits
from visionkit.data.formats.source import Source, read_each, sound
from visionkit.data.read_image import read_image
from visionkit.data.splits import Splits, split_of
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED

__all__ = ["check_supervisely", "is_supervisely", "read_supervisely", "supervisely_boxes"]

_MAX_BYTES = 200_000_000  # of one annotation
_BITMAPS = "objects that are no rectangles or polygons (bitmaps, points, lines), left out"
_BAD_OBJECTS = "objects that cannot be right, left out"
_NO_IMAGE = "annotations without an image, left out"


_Results = dict[str, list["tuple[Path, dict[str, Any]] | DataError"]]


@dataclass
class _Annotation:
    """One annotation: its record, None without an image; how many objects; the cases to be counted."""

    record: BoxRecord | None
    count: int = 0
    cases: list[tuple[str, DataError]] = field(default_factory=list)


def is_supervisely(root: str | os.PathLike[str]) -> bool:
    """Return whether a folder is a Supervisely project, or one data set of it; it never raises.

    Args:
        root: Any path.
    """
    try:
        return any(any((folder / "ann").glob("*.json")) for folder in _datasets(Path(root)))
    except OSError:
        return False


def supervisely_boxes(
    root: str | os.PathLike[str], *, masks: bool = False, seed: int = 0, max_dropped: float = MAX_DROPPED
) -> Splits:
    """Return the splits of a Supervisely project.

    A data set of the project with the name of a split (train, val, test and their usual spellings) is that
    split, all others are for training. Without a validation split a fifth of the training images is held out.
    Classes are those of `meta.json` in its order, or the titles that occur, sorted.

    Args:
        root: The folder of the project, or of one data set.
        masks: Also read outlines; every object must be a polygon.
        seed: Seed of the hold-out.
        max_dropped: Fraction of a split's objects, and of its annotations, that may be left out.

    Raises:
        DataError: There is no such project, a file cannot be read, or too much would be left out.
    """
    return read_supervisely(root, masks=masks, seed=seed).splits(max_dropped)


def read_supervisely(root: str | os.PathLike[str], *, masks: bool = False, seed: int = 0) -> Source:
    """Read the annotations of a Supervisely project; the arguments are those of `supervisely_boxes`.

    Args:
        root: The folder.
        masks: Also read outlines.
        seed: Seed of the hold-out.

    Raises:
        DataError: There is no such project.
    """
    top = Path(root)
    read = {split: read_each(paths, lambda path: (path, _json(path))) for split, paths in _files(top).items()}
    return Source(
        lambda max_dropped: _splits(top, read, masks, seed, max_dropped),
        lambda left_out: _errors(top, read, left_out),
    )


def _splits(top: Path, results: _Results, masks: bool, seed: int, max_dropped: float) -> Splits:
    contents = {split: sound(pairs) for split, pairs in results.items()}
    classes = _classes(top, [content for each in contents.values() for _, content in each])
    numbers = {name: index for index, name in enumerate(classes)}
    readers: dict[str, BoxReader] = {}
    counts: dict[str, BoxCounts] = {}
    for split, pairs in contents.items():
        counted = counts[split] = BoxCounts(max_dropped)
        read = [_annotation(top, path, content, numbers) for path, content in pairs]
        for each in read:
            for what, error in each.cases:
                (counted.images if what == _NO_IMAGE else counted.objects).add(what, error)
        counted.image_total, counted.object_total = len(read), sum(each.count for each in read)
        records = [each.record for each in read if each.record is not None]
        readers[split] = BoxReader(top, records, classes, masks=masks)
    return box_splits(top, readers, classes, counts, seed=seed, max_dropped=max_dropped)


def check_supervisely(root: str | os.PathLike[str], *, left_out: bool = True) -> list[DataError]:
    """Return everything that is wrong with a Supervisely project: annotations, objects, images.

    Args:
        root: The folder.
        left_out: Whether what `supervisely_boxes` leaves out is listed, too.
    """
    try:
        return read_supervisely(root).errors(left_out)
    except DataError as error:
        return [error]


def _errors(top: Path, results: _Results, left_out: bool) -> list[DataError]:
    errors: list[DataError] = []
    for each in [each for pairs in results.values() for each in pairs]:
        if isinstance(each, DataError):
            errors.append(each)
            continue
        path, content = each
        try:
            annotation = _annotation(top, path, content, dict.fromkeys(_titles([content]), 0))
            errors += [error for what, error in annotation.cases if what != CUT] if left_out else []
            if annotation.record is not None:
                size = tuple(int(side) for side in read_image(annotation.record.image, root=top).shape[-2:])
                if annotation.record.size not in (None, size):
                    text = f"Expected the size of the image, {size}, but got {annotation.record.size}."
                    errors.append(DataError(text, path=path, field="size"))
        except DataError as error:
            errors.append(error)
    return errors


def _datasets(root: Path) -> list[Path]:
    """Return the folders that hold `ann` and `img`: the project's, or the folder itself."""
    if not root.is_dir():
        return []
    folders = [root, *sorted(entry for entry in root.iterdir() if entry.is_dir())]
    return [folder for folder in folders if (folder / "ann").is_dir() and (folder / "img").is_dir()]


def _files(root: Path) -> dict[str, list[Path]]:
    """Return the annotations of each split."""
    files: dict[str, list[Path]] = {}
    for folder in _datasets(root):
        split = (None if folder == root else split_of(folder.name)) or "train"
        files.setdefault(split, []).extend(sorted((folder / "ann").glob("*.json")))
    files = {split: paths for split, paths in files.items() if paths}
    if not files:
        raise DataError("Expected ann/*.json beside img/, but there is none.", path=root)
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"Expected a file of at most {_MAX_BYTES / 1e6:g} MB.", path=path)
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Expected JSON in UTF-8, but {error}.", path=path) from None
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise DataError("Expected an object with a list of objects, but there is none.", path=path)
    return content


def _titles(contents: list[dict[str, Any]]) -> list[str]:
    """Return the class titles that occur, sorted."""
    titles = {
        each.get("classTitle")
        for content in contents
        for each in content["objects"]
        if isinstance(each, dict)
    }
    return sorted(title for title in titles if isinstance(title, str) and title.strip())


def _classes(root: Path, contents: list[dict[str, Any]]) -> list[str]:
    """Return the classes: those of meta.json that occur, in its order, and then any others that occur."""
    titles = _titles(contents)
    meta = next((file for file in (root / "meta.json", root.parent / "meta.json") if file.is_file()), None)
    try:
        listed = json.loads(meta.read_text(encoding="utf-8-sig"))["classes"] if meta is not None else []
        names = [each["title"] for each in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"Expected classes with titles, but got {error}.", path=meta, field="classes"
        ) from None
    return [name for name in dict.fromkeys(names) if name in titles] + [t for t in titles if t not in names]


def _annotation(root: Path, path: Path, content: dict[str, Any], numbers: Mapping[str, int]) -> _Annotation:
    image = path.parent.parent / "img" / path.name.removesuffix(".json")
    size = content.get("size")
    sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else []
    integers = [side for side in sides if type(side) is int]
    known = (integers[0], integers[1]) if len(integers) == 2 else None
    if not image.is_file():
        error = DataError(f"Expected the image {image.name!r} in img/, but there is none.", path=path)
        return _Annotation(None, len(content["objects"]), [(_NO_IMAGE, error)])
    name = image.relative_to(root).as_posix()
    record = BoxRecord(name, name, path, known)
    result = _Annotation(record, len(content["objects"]))
    for index, each in enumerate(content["objects"]):
        where = f"objects[{index}]"
        try:
            kind, points = each["geometryType"], each.get("points")
            if kind not in ("rectangle", "polygon"):
                text = f"Expected a rectangle or a polygon, but got {kind!r}."
                result.cases.append(
                    (_BITMAPS, DataError(text, path=path, record=where, field="geometryType"))
                )
                continue
            corners = [(float(x), float(y)) for x, y in points["exterior"]]
            xs, ys = zip(*corners, strict=True)
            box = [min(xs), min(ys), max(xs), max(ys)]
            outline = [value for corner in corners for value in corner] if kind == "polygon" else None
            label = numbers[each["classTitle"]]
        except (KeyError, TypeError, ValueError, OverflowError) as reason:
            text = f"Expected classTitle, geometryType and points of an object, but {reason!r}."
            result.cases.append((_BAD_OBJECTS, DataError(text, path=path, record=where, field="points")))
            continue
        case = record.add(label, box, None if outline is None else [outline], known, where)
        result.cases += [] if case is None else [case]
    return result
