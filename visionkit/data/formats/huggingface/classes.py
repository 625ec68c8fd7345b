"""Hugging Face image folders whose metadata has a column of classes, as a data set for classification."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionkit.data.formats.csv.detect import table_source
from visionkit.data.formats.csv.reader import table_splits
from visionkit.data.formats.csv.rows import LABEL_COLUMNS, TableRows, row_notices, targets_of
from visionkit.data.formats.csv.targets import Row, TableKind, table_kind
from visionkit.data.formats.folder.layout import images_below
from visionkit.data.formats.huggingface.reader import MetadataRow, metadata_columns, read_metadata
from visionkit.data.formats.source import Source
from visionkit.data.formats.split_notices import unread_folder_notices
from visionkit.data.formats.validate import check_rows
from visionkit.data.splits import HOLDOUT, Splits
from visionkit.errors import DataError, printable, unknown_name
from visionkit.notices import MAX_DROPPED, NoticeCounter

__all__ = [
    "check_huggingface_classes",
    "huggingface_classes",
    "is_huggingface_classes",
    "read_huggingface_classes",
]

_BETWEEN = "\x1f"  # the unit separator: no name of a class has it


def is_huggingface_classes(root: str | os.PathLike[str]) -> bool:
    """Return whether a folder has Hugging Face metadata with a column of classes; it never raises.

    Args:
        root: Any path.
    """
    return any(name.lower() in LABEL_COLUMNS for name in metadata_columns(root))


def huggingface_classes(
    root: str | os.PathLike[str],
    *,
    kind: TableKind | None = "single",
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    classes: Sequence[str] | None = None,
    held_out: float = HOLDOUT,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of an image folder with `metadata.jsonl` or `metadata.csv` that names classes.

    The splits are those of the images' folders (train, validation, test). The targets mean what they mean in
    a table (`image_table`); a list of names is several classes. Images that no row names are left out.

    Args:
        root: The folder.
        kind: What the targets are; None: detected from the values.
        target: The column or columns of targets; the one called label, class or the like if not given.
        separator: What stands between names, where several stand in one text.
        classes: The classes in order.
        held_out: Fraction of the training rows that is held out where there is no folder of validation.
        seed: Seed of the hold-out.
        max_dropped: Largest fraction of the images that may be left out.

    Raises:
        DataError: A row that is wrong, or too many images that no row names.
        InputError: An unknown column.
    """
    table = _read(Path(root), kind, target, separator, classes, max_dropped)
    return table_splits(table, held_out=held_out, seed=seed)


def check_huggingface_classes(
    root: str | os.PathLike[str], *, kind: TableKind | None = None, max_dropped: float = MAX_DROPPED
) -> list[DataError]:
    """Check what `huggingface_classes` would read: every row, and every image.

    Args:
        root: The folder.
        kind: What the targets are; detected from the values if not given.
        max_dropped: To leave out a larger fraction of the images is an error.
    """
    try:
        return check_rows(_read(Path(root), kind, None, None, None, max_dropped))
    except DataError as error:
        return [error]


def read_huggingface_classes(
    root: Path, *, kind: TableKind | None, target: Sequence[str] | None, separator: str | None, seed: int
) -> Source:
    """Read the metadata of an image folder; the arguments are those of `huggingface_classes`.

    Args:
        root: The folder.
        kind: What the targets are; None: detected from the values.
        target: The columns of targets.
        separator: What stands between names.
        seed: Seed of the hold-out.

    Raises:
        DataError: The metadata cannot be read.
    """
    return table_source(_read(root, kind, target, separator, None, MAX_DROPPED), seed)


def _read(
    root: Path,
    kind: TableKind | None,
    target: str | Sequence[str] | None,
    separator: str | None,
    classes: Sequence[str] | None,
    max_dropped: float,
) -> TableRows:
    """Return the metadata as the rows of a table."""
    metadata = read_metadata(root)
    if not metadata.rows:
        raise metadata.errors[0]
    columns = _columns(root, metadata.columns, target)
    errors = list(metadata.errors)
    counter = NoticeCounter(max_fraction=max_dropped)
    rows: list[Row] = []
    lists = False
    for row in metadata.rows:
        try:
            values = tuple(_text(row, name) for name in columns)
        except DataError as error:
            errors.append(error)
            continue
        lists = lists or any(isinstance(row.values.get(name), list) for name in columns)
        rows.append(Row(row.file, row.line, row.image, row.split, values))
    if lists:
        separator = _BETWEEN
    if kind is None:
        kind, separator = table_kind([row.values for row in rows], separator=separator)
    if lists and kind != "multi":
        text = f"Expected one value of {columns[0]!r} an image, but there are lists: use kind='multi'."
        raise DataError(text, path=metadata.files[0], field=columns[0])
    if kind == "multi" and separator is None and len(columns) == 1:
        text = f"Expected lists in {columns[0]!r}, or a separator, but it holds single values."
        raise DataError(text, path=metadata.files[0], field=columns[0])
    names, good, targets = targets_of(
        rows, metadata.files[0], kind, columns, separator, classes, counter, errors
    )
    _count_unlisted(root, {row.image for row in (*metadata.rows, *metadata.unread)}, counter)
    notices = row_notices(good, targets, root, counter, max_dropped) + metadata.notices(max_dropped)
    files: dict[str, list[str]] = {}
    for each in good:
        files.setdefault(each.split, []).append(str(root / each.image))
    notices += unread_folder_notices(root, files)
    return TableRows(
        metadata.files[0], root, names, tuple(good), tuple(targets), tuple(errors), kind, notices
    )


def _columns(root: Path, known: Sequence[str], target: str | Sequence[str] | None) -> tuple[str, ...]:
    if target:
        columns = (target,) if isinstance(target, str) else tuple(target)
        for name in columns:
            if name not in known:
                raise unknown_name("column", name, known, hint=f"The metadata of {root} has {list(known)}.")
        return columns
    labels = [name for name in known if name.lower() in LABEL_COLUMNS]
    if len(labels) != 1:
        raise DataError(
            f"Expected one column of classes ({', '.join(LABEL_COLUMNS)}) in the metadata, but found "
            f"{list(known)}. Name it with target=... (--table.target)",
            path=root,
        )
    return (labels[0],)


def _text(row: MetadataRow, column: str) -> str:
    """Return a value as a cell of a table has it."""
    value: Any = row.values.get(column)
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        return _BETWEEN.join(str(each) for each in value)
    if isinstance(value, dict | list):
        raise row.error(f"Expected a class, a number or a list of classes, but got {value!r}.", column)
    return str(value).strip()


def _count_unlisted(root: Path, named: set[str], counter: NoticeCounter) -> None:
    """Count the images of a folder that its metadata does not name."""
    images, _, _ = images_below(root)
    rest = [name for file in images if (name := Path(os.path.relpath(file, root)).as_posix()) not in named]
    if rest:
        text = f"{printable(rest[0])} stands in no metadata file"
        counter.add("images without metadata left out", text, count=len(rest))
