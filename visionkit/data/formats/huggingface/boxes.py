"""Hugging Face image folders of boxes: `metadata.jsonl` with `objects: {bbox, categories}`.

Source: https://huggingface.co/docs/datasets/image_dataset (object detection).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visionkit.data.boxes import CUT
from visionkit.data.formats.box_records import BoxCounts, BoxReader, BoxRecord, box_splits
from visionkit.data.formats.huggingface.reader import Metadata, MetadataRow, metadata_columns, read_metadata
from visionkit.data.formats.source import Source
from visionkit.data.read_image import read_image, read_size
from visionkit.data.splits import Splits, split_of
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED

__all__ = ["check_huggingface_boxes", "huggingface_boxes", "is_huggingface_boxes", "read_huggingface_boxes"]

_LARGEST = 1 << 53  # no box is larger, and every float holds it
_ROWS = "rows that cannot be right, left out"
_LABELS = ("categories", "category", "labels", "label")


def is_huggingface_boxes(root: str | os.PathLike[str]) -> bool:
    """Return whether a folder's metadata has a column `objects`; it never raises.

    Args:
        root: Any path.
    """
    return "objects" in metadata_columns(root)


def huggingface_boxes(
    root: str | os.PathLike[str], *, seed: int = 0, max_dropped: float = MAX_DROPPED
) -> Splits:
    """Return the splits of a Hugging Face image folder of boxes x, y, width, height in pixels.

    Classes are the categories that occur: numbers in their order, names sorted. Without a validation split a
    fifth of the training images is held out.

    Args:
        root: The folder.
        seed: Seed of the hold-out.
        max_dropped: Fraction of a split's objects, and of its rows, that may be left out.

    Raises:
        DataError: There is no metadata of objects, or too much would be left out.
    """
    return read_huggingface_boxes(root, seed=seed).splits(max_dropped)


def read_huggingface_boxes(root: str | os.PathLike[str], *, seed: int = 0) -> Source:
    """Read the metadata of a Hugging Face image folder of boxes.

    Args:
        root: The folder.
        seed: Seed of the hold-out.

    Raises:
        DataError: There is no metadata, or a file of it cannot be read.
    """
    metadata = read_metadata(root)
    return Source(
        lambda max_dropped: _splits(root, metadata, seed, max_dropped),
        lambda left_out: _errors(metadata, left_out),
    )


def _splits(root: str | os.PathLike[str], metadata: Metadata, seed: int, max_dropped: float) -> Splits:
    if "objects" not in metadata.columns:
        text = f"Expected a column 'objects', but there are {', '.join(metadata.columns) or 'none'}."
        raise DataError(text, path=metadata.files[0], field="objects")
    rows, errors = _objects(metadata.rows)
    categories = {name for _, boxes in rows for _, name in boxes}
    numbers = all(isinstance(name, int) for name in categories)
    # 1 and "1" are one class.
    classes = [str(name) for name in sorted(categories)] if numbers else sorted({str(n) for n in categories})
    number = {name: classes.index(str(name)) for name in categories}
    lines_of: dict[str, list[str]] = {}
    wrong = [(_split_of_error(error, metadata, lines_of), error) for error in metadata.errors]
    wrong += errors
    splits = dict.fromkeys(row.split for row, _ in rows)
    counts = {split: BoxCounts(max_dropped) for split in [*splits, *(split for split, _ in wrong)]}
    records: dict[str, list[BoxRecord]] = {split: [] for split in splits}
    for row, boxes in rows:
        record, cases = _record(row, boxes, number, metadata.root)
        records[row.split].append(record)
        counts[row.split].object_total += len(boxes)
        counts[row.split].image_total += 1
        for what, error in cases:
            counts[row.split].add(what, error)
    for split, error in wrong:
        counts[split].images.add(_ROWS, error)
        counts[split].image_total += 1
    readers = {split: BoxReader(metadata.root, of_split, classes) for split, of_split in records.items()}
    return box_splits(
        root,
        readers,
        classes,
        counts,
        seed=seed,
        max_dropped=max_dropped,
        notices=metadata.notices(max_dropped),
    )


def check_huggingface_boxes(root: str | os.PathLike[str], *, left_out: bool = True) -> list[DataError]:
    """Return every error of a Hugging Face image folder of boxes: rows, boxes, images.

    Args:
        root: The folder.
        left_out: Whether rows and boxes that `huggingface_boxes` leaves out are listed, too.
    """
    try:
        return read_huggingface_boxes(root).errors(left_out)
    except DataError as error:
        return [error]


def _errors(metadata: Metadata, left_out: bool) -> list[DataError]:
    rows, bad_rows = _objects(metadata.rows)
    errors = [*metadata.errors, *(error for _, error in bad_rows)] if left_out else []
    for row, boxes in rows:
        try:
            read_image(row.image, root=metadata.root)
            _, cases = _record(row, boxes, {name: 0 for _, name in boxes}, metadata.root)
            errors += [error for what, error in cases if what != CUT] if left_out else []
        except DataError as error:
            errors.append(error)
    return errors


def _split_of_error(error: DataError, metadata: Metadata, lines_of: dict[str, list[str]]) -> str:
    """Return the split that a wrong row is of: that of its folder, or of the folder of its image."""
    known = {row.split for row in metadata.rows}
    if known == {"train"}:
        return "train"
    folder = Path(error.path or "").parent
    named = _split_folder([folder.name]) if folder != metadata.root else None
    number = str(error.record).removeprefix("line ")
    if named is None and error.path and error.path.endswith(".jsonl") and number.isdecimal():
        if error.path not in lines_of:  # each file is read once, however many of its rows are wrong
            text = Path(error.path).read_text(encoding="utf-8-sig", errors="replace")
            lines_of[error.path] = text.split("\n")
        lines = lines_of[error.path]
        index = int(number) - 1
        matched = re.search(r'file_name"\s*:\s*"([^"]*)"', lines[index]) if index < len(lines) else None
        named = _split_folder(matched[1].split("/")[:-1]) if matched else None
    return named or "train"


def _split_folder(folders: Sequence[str]) -> str | None:
    first = next((name.lower() for name in folders if name not in ("data", ".", "")), "")
    return split_of(first)


def _objects(
    rows: tuple[MetadataRow, ...],
) -> tuple[list[tuple[MetadataRow, list[Any]]], list[tuple[str, DataError]]]:
    """Return the boxes and categories of each row, and the wrong rows with their splits."""
    good, errors = [], []
    for row in rows:
        try:
            good.append((row, _pairs(row)))
        except DataError as error:
            errors.append((row.split, error))
    return good, errors


def _pairs(row: MetadataRow) -> list[tuple[list[float], Any]]:
    objects = row.values.get("objects")
    if objects is None:
        return []
    if isinstance(objects, Mapping):
        column = next((name for name in _LABELS if name in objects), None)
        boxes, names = objects.get("bbox"), objects.get(column) if column else None
    elif isinstance(objects, list) and all(isinstance(each, Mapping) for each in objects):
        boxes = [each.get("bbox") for each in objects]
        names = [next((each[name] for name in _LABELS if name in each), None) for each in objects]
    else:
        boxes = names = None
    if not isinstance(boxes, list) or not isinstance(names, list) or len(boxes) != len(names):
        text = "Expected objects with as many 'bbox' as 'categories', but got others."
        raise row.error(text, "objects")
    for box, name in zip(boxes, names, strict=True):
        plain = (
            isinstance(box, list)
            and len(box) == 4
            and all(type(v) is float or (type(v) is int and abs(v) < _LARGEST) for v in box)
        )
        if not plain or type(name) not in (int, str):
            raise row.error(
                f"Expected x, y, width, height and a category, but got {repr(box)[:80]}, {repr(name)[:80]}.",
                "objects",
            )
    return list(zip(boxes, names, strict=True))


def _record(
    row: MetadataRow, boxes: list[Any], number: Mapping[Any, int], root: Any
) -> tuple[BoxRecord, list[tuple[str, DataError]]]:
    record = BoxRecord(row.image, row.image, row.file)
    size = read_size(row.image, root=root) if boxes else None
    cases = []
    for index, ((x, y, width, height), name) in enumerate(boxes):
        box = [float(x), float(y), float(x + width), float(y + height)]
        case = record.add(number[name], box, None, size, f"line {row.line}, object {index}")
        cases += [] if case is None else [case]
    return record, cases
