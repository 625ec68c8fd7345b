"""Hugging Face image folders: images, and a `metadata.jsonl` or `metadata.csv` with a row for each.

The file has a column `file_name`, relative to its own folder, and any others: `label` is a class, `text` a
caption, `objects` boxes. It stands in the folder of the data set or in the folder of each split.
Source: https://huggingface.co/docs/datasets/image_dataset (ImageFolder with metadata).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from visionkit.data.formats.csv.delimited import read_delimited, read_header
from visionkit.data.read_image import inside
from visionkit.data.splits import split_of
from visionkit.errors import DataError, expected, nearest
from visionkit.notices import Notice
from visionkit.text.read_text import read_lines

__all__ = ["METADATA_FILES", "Metadata", "MetadataRow", "metadata_columns", "metadata_files", "read_metadata"]

METADATA_FILES = ("metadata.jsonl", "metadata.csv")
"""Names of the file that has a row for each image."""

_FILE_COLUMN = "file_name"
_MAX_LINE = 16_000_000  # characters: a line with the objects of one image is far below


@dataclass(frozen=True)
class MetadataRow:
    """One row of a metadata file.

    Args:
        file: The metadata file.
        line: The line in it, from 1.
        image: The image, relative to the folder of the data set, with slashes.
        split: "train", "val" or "test".
        values: The other columns: JSON values from a .jsonl file, text from a .csv file.
    """

    file: Path
    line: int
    image: str
    split: str
    values: Mapping[str, Any]

    def error(self, text: str, field: str) -> DataError:
        """Return the error that names this row.

        Args:
            text: What was expected, what came, what to do.
            field: The column.
        """
        return DataError(text, path=self.file, record=f"line {self.line}", field=field)


@dataclass(frozen=True)
class Metadata:
    """The metadata of an image folder.

    Args:
        root: The folder of the data set.
        files: The metadata files.
        columns: The columns that occur, in order, without `file_name`.
        rows: The row of each image, without the wrong ones.
        errors: Every wrong row: no JSON object, no `file_name`, an image that is missing, outside the
            folder, or named twice.
        unread: Rows whose images lie in a folder with the name of no split, beside folders of splits.
    """

    root: Path
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    rows: tuple[MetadataRow, ...]
    errors: tuple[DataError, ...]
    unread: tuple[MetadataRow, ...] = ()

    def notices(self, max_dropped: float) -> tuple[Notice, ...]:
        """Return the notice of the rows that were not read, if there are any.

        Args:
            max_dropped: Fraction of the rows that they may be.
        """
        if not self.unread:
            return ()
        text = f"{self.unread[0].image!r} lies in a folder with the name of no split (train, val, test)"
        what, total = "images beside the splits ignored", len(self.rows) + len(self.unread)
        return (Notice(what, len(self.unread), total, text, max_dropped),)


def metadata_files(root: str | os.PathLike[str]) -> list[Path]:
    """Return the metadata files of a folder: in it, in `data/`, or in its folders of splits; it never raises.

    Args:
        root: A folder.
    """
    top = Path(root)
    folders = [top, top / "data"]
    for folder in (top, top / "data"):
        try:
            folders += sorted(entry for entry in folder.iterdir() if split_of(entry.name))
        except OSError:
            continue
    return [file for folder in folders for name in METADATA_FILES if (file := folder / name).is_file()]


def metadata_columns(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the columns of a folder's metadata from the first line of its files; it never raises.

    () means that the folder is no Hugging Face image folder: there is no metadata file with a `file_name`.

    Args:
        root: A folder.
    """
    for file in metadata_files(root):
        columns = _jsonl_header(file) if file.suffix == ".jsonl" else read_header(file)
        if any(_is_file_column(name) for name in columns):
            return tuple(columns)
    return ()


def read_metadata(root: str | os.PathLike[str]) -> Metadata:
    """Read every row of a Hugging Face image folder's metadata; a wrong row hides no other.

    The split of an image is detected by the first folder of its path, where one of them is that of a training
    split (train, validation, test and their usual spellings); images in folders of other names are then left
    out. Else every image is for training.

    Args:
        root: The folder of the data set.

    Raises:
        DataError: There is no metadata file, one cannot be read, or it has no `file_name`.
    """
    top = Path(root)
    files = metadata_files(top)
    if not files:
        names = " or ".join(METADATA_FILES)
        also = ""
        if any(top.glob("*.parquet")) or any(top.glob("*/*.parquet")):
            also = " Parquet is not read: write it as metadata.jsonl (`datasets`: `to_json`)."
        raise DataError(f"Expected a {names}, but there is none.{also}", path=top)
    errors: list[DataError] = []
    rows: list[MetadataRow] = []
    columns: dict[str, None] = {}
    first: dict[str, MetadataRow] = {}
    for file in files:
        before = len(rows) + len(errors)
        for line, values in _records(file, errors):
            try:
                row = _row(top, file, line, values)
                if row.image in first:
                    other = first[row.image]
                    text = f"Expected every image once, but {row.image!r} stands in line {other.line} of "
                    raise row.error(f"{text}{other.file} too. Remove one of them.", _FILE_COLUMN)
            except DataError as error:
                errors.append(error)
                continue
            first[row.image] = row
            columns.update(dict.fromkeys(row.values))
            rows.append(row)
        if len(rows) + len(errors) == before:
            raise DataError("Expected at least one row, but the file is empty.", path=file)
    placed = _with_splits(rows)
    known = tuple(row for row in placed if row.split)
    unread = tuple(row for row in placed if not row.split)
    return Metadata(top, tuple(files), tuple(columns), known, tuple(errors), unread)


def _row(root: Path, file: Path, line: int, values: Mapping[str, Any]) -> MetadataRow:
    """Return a row whose image is there; its split is not known yet."""
    row = MetadataRow(file, line, "", "train", {})
    column = _file_column(values)
    if column is None:
        close = nearest(_FILE_COLUMN, values)
        hint = f" Did you mean it by {close[0]!r}?" if close else ""
        raise row.error(f"Expected {_FILE_COLUMN!r}, but found {list(values)}.{hint}", _FILE_COLUMN)
    name = values[column]
    if not isinstance(name, str) or not name:
        raise row.error(expected(_FILE_COLUMN, "the path of an image", name), column)
    try:
        folder = os.path.abspath(file.parent)  # noqa: PTH100 (`inside` takes relative paths from the root)
        image_file = inside(root, Path(folder) / name.replace("\\", "/"))
    except DataError as error:
        raise row.error(error.message, column) from error
    if not image_file.is_file():
        text = f"Expected an image at {image_file}, but there is none. Paths are taken from {file.parent}."
        raise row.error(text, column)
    shown = PurePosixPath(os.path.relpath(file.parent, root)) / name.replace("\\", "/")
    image = PurePosixPath(os.path.normpath(shown)).as_posix()
    return MetadataRow(file, line, image, "train", {k: v for k, v in values.items() if k != column})


def _with_splits(rows: list[MetadataRow]) -> list[MetadataRow]:
    """Give each row the split that its folder names, "" where it names none beside a training split."""
    named = [split_of(_split_folder(row.image)) for row in rows]
    known = "train" in named or None not in named
    return [replace(row, split=(split or "") if known else "train") for row, split in zip(rows, named)]


def _split_folder(image: str) -> str:
    """Return the first folder of a path (behind `data/`), in lower case; "" if there is none."""
    parts = [part.lower() for part in image.split("/")[:-1]]
    return next((part for part in parts if part != "data"), "")


def _is_file_column(name: str) -> bool:
    return name == _FILE_COLUMN or name.endswith(f"_{_FILE_COLUMN}")


def _file_column(values: Mapping[str, Any]) -> str | None:
    """Return the column of the image's path: `file_name`, or the one that ends so (`image_file_name`)."""
    if _FILE_COLUMN in values:
        return _FILE_COLUMN
    named = [name for name in values if _is_file_column(name)]
    return named[0] if len(named) == 1 else None


def _records(file: Path, errors: list[DataError]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the numbered rows of a file; lines that are none go to `errors`."""
    if file.suffix == ".jsonl":
        yield from _jsonl_records(file, errors)
        return
    table = read_delimited(file, known=(_FILE_COLUMN,))
    for line, cells in table.lines:
        if len(cells) == len(table.header):
            yield line, dict(zip(table.header, cells, strict=True))
            continue
        text = f"Expected {len(table.header)} values, as in the header, but found {len(cells)}."
        errors.append(DataError(text, path=file, record=f"line {line}"))


def _jsonl_records(file: Path, errors: list[DataError]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(read_lines(file), start=1):
        if not text.strip():
            continue
        try:
            yield line, _json_object(text)
        except DataError as error:
            errors.append(DataError(error.message, path=file, record=f"line {line}"))


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected a JSON object on each line, but {error}.") from error
    if not isinstance(value, dict):
        raise DataError(expected("each line", "a JSON object", type(value).__name__))
    return value


def _jsonl_header(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as stream:
            return list(_json_object(stream.readline(_MAX_LINE)))
    except (OSError, ValueError):
        return []
