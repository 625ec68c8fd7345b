"""The lines of a table of paths and targets, understood one by one: no fault hides another."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from visionkit.data.read_image import inside
from visionkit.errors import DataError, InputError, expected, nearest, unknown_name

__all__ = ["Row", "TableKind", "TableRows", "read_table"]

TableKind = Literal["single", "multi", "regression"]
Target: TypeAlias = "int | tuple[float, ...]"

_KINDS = ("multi", "regression", "single")
_IMAGE_COLUMNS = ("path", "image", "file", "filename", "file_name", "image_path", "id")
_SPLIT_COLUMN = "split"
_SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
_SPLIT_NAMES |= {"dev": "val", "test": "test", "testing": "test"}
_MOST_FIELD = 1_000_000


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        line: Its number in the file, from 1.
        image: The path of the picture as written.
        split: "train", "val" or "test".
        values: The cells of the target columns.
    """

    line: int
    image: str
    split: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class TableRows:
    """A table whose lines are understood.

    Args:
        file: The CSV file.
        root: The folder of the pictures.
        classes: Names of the classes, or of the numbers to regress.
        rows: The lines without a fault.
        targets: The target of each of them: an int, or a tuple of floats.
        faults: Every fault, by line.
    """

    file: Path
    root: Path
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    targets: tuple[Target, ...]
    faults: tuple[DataError, ...]


def read_table(
    path: str | os.PathLike[str],
    *,
    kind: TableKind = "single",
    image: str | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    classes: Sequence[str] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> TableRows:
    """Read a CSV file of picture paths and targets; the arguments are those of `image_table`.

    Raises:
        DataError: The file is no CSV file with a header and rows.
        InputError: An unknown column or kind.
    """
    if kind not in _KINDS:
        raise unknown_name("kind of table", kind, _KINDS)
    file = Path(path)
    top = file.parent if root is None else Path(root)
    header, lines = _read(file)
    picture = _image_column(file, header, image)
    columns = _target_columns(file, header, picture, target)
    _check_columns(file, kind, columns, separator)
    faults: list[DataError] = []
    rows: list[Row] = []
    for line, cells in lines:
        try:
            row = _row(file, header, line, cells, picture, columns)
            _check_picture(file, row, picture, top)
            rows.append(row)
        except DataError as fault:
            faults.append(fault)
    names, understand = _understanding(file, kind, columns, separator, classes, rows)
    good: list[tuple[Row, Target]] = []
    for row in rows:
        try:
            good.append((row, understand(row)))
        except DataError as fault:
            faults.append(fault)
    return TableRows(
        file,
        top,
        names,
        tuple(row for row, _ in good),
        tuple(value for _, value in good),
        tuple(sorted(faults, key=lambda fault: int(str(fault.record).split()[-1]))),
    )


def _read(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the numbered lines of a CSV file."""
    csv.field_size_limit(_MOST_FIELD)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError as error:
        raise DataError("Expected a CSV file, but there is none by this name.", path=file) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Expected a CSV file in UTF-8, but {error}.", path=file) from error
    if not header or not lines:
        raise DataError("Expected a header line and at least one row, but the table is empty.", path=file)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"Expected every column once, but {twice} stand twice.", path=file, record="line 1")
    return header, lines


def _image_column(file: Path, header: list[str], image: str | None) -> str:
    if image is not None:
        if image not in header:
            raise unknown_name("column", image, header, hint=f"{file} has {header}.")
        return image
    for name in _IMAGE_COLUMNS:
        for column in header:
            if column.lower() == name:
                return column
    raise InputError(
        f"Expected a column of paths in {file} (one of {', '.join(_IMAGE_COLUMNS)}), but found {header}. "
        "Name it with image=..."
    )


def _target_columns(
    file: Path, header: list[str], image: str, target: str | Sequence[str] | None
) -> tuple[str, ...]:
    if target is None:
        found = tuple(name for name in header if name not in (image, _SPLIT_COLUMN))
        if not found:
            raise InputError(f"Expected a column of targets in {file}, but found only {header}.")
        return found
    wanted = (target,) if isinstance(target, str) else tuple(target)
    for name in wanted:
        if name not in header:
            raise unknown_name("column", name, header, hint=f"{file} has {header}.")
    return wanted


def _check_columns(file: Path, kind: str, columns: tuple[str, ...], separator: str | None) -> None:
    if kind == "single" and len(columns) != 1:
        raise InputError(
            f"Expected one column of classes in {file}, but found {list(columns)}. Name it with target=..., "
            'or use kind="multi" or kind="regression".'
        )
    if kind != "multi":
        return
    if separator == "":
        raise InputError(expected("the separator", "a character", separator))
    if separator is None and len(columns) == 1:
        raise InputError(
            f"Expected several 0/1 columns in {file}, or one column of names and a separator, but found the "
            f"one column {columns[0]!r} and no separator. Give separator=... (such as '|')."
        )
    if separator is not None and len(columns) != 1:
        raise InputError(
            f"Expected one column to cut at {separator!r} in {file}, but found {list(columns)}. Name it with "
            "target=..."
        )


def _row(
    file: Path, header: list[str], line: int, cells: list[str], image: str, columns: tuple[str, ...]
) -> Row:
    where = f"line {line}"
    if len(cells) != len(header):
        text = f"Expected {len(header)} values, as in the header, but found {len(cells)}."
        raise DataError(text, path=file, record=where)
    cell = {name: text.strip() for name, text in zip(header, cells, strict=True)}
    said = cell.get(_SPLIT_COLUMN, "train").lower()
    if said not in _SPLIT_NAMES:
        text = expected("the split", "train, val or test", said)
        raise DataError(text, path=file, record=where, field=_SPLIT_COLUMN)
    return Row(line, cell[image], _SPLIT_NAMES[said], tuple(cell[name] for name in columns))


def _check_picture(file: Path, row: Row, column: str, root: Path) -> None:
    where = f"line {row.line}"
    try:
        found = inside(root, row.image)
    except DataError as error:
        raise DataError(error.message, path=file, record=where, field=column) from error
    if not found.is_file():
        raise DataError(
            f"Expected a picture at {found}, but there is none. Paths are taken from {root}; name another "
            "folder with root=...",
            path=file,
            record=where,
            field=column,
        )


def _understanding(
    file: Path,
    kind: TableKind,
    columns: tuple[str, ...],
    separator: str | None,
    classes: Sequence[str] | None,
    rows: Sequence[Row],
) -> tuple[tuple[str, ...], Callable[[Row], Target]]:
    """Return the classes and the function that turns a row into its target."""
    if kind == "regression" or (kind == "multi" and separator is None):
        read = _number if kind == "regression" else _flag
        return columns, lambda row: tuple(
            read(file, row, name, text) for name, text in zip(columns, row.values, strict=True)
        )

    def parts(row: Row) -> list[str]:
        if kind == "single":
            return [row.values[0]]
        return [name.strip() for name in row.values[0].split(separator) if name.strip()]

    seen = {name for row in rows if row.split == "train" for name in parts(row) if name}
    by_number = kind == "single" and bool(seen) and all(_whole(name) for name in seen)
    if classes is not None:
        names = tuple(classes)
    elif by_number:
        names = tuple(str(number) for number in range(max(map(int, seen)) + 1))
    else:
        names = tuple(sorted(seen))
    index = {name: place for place, name in enumerate(names)}

    def understand(row: Row) -> Target:
        places = [_place(file, row, columns[0], name, index, by_number=by_number) for name in parts(row)]
        if kind == "single":
            return places[0]
        return tuple(float(place in places) for place in range(len(names)))

    return names, understand


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6


def _place(file: Path, row: Row, column: str, name: str, index: dict[str, int], *, by_number: bool) -> int:
    """Return the index of a class by its name, or by its number where labels are numbers."""
    if name in index:
        return index[name]
    negative = name[:1] == "-" and _whole(name[1:])
    if by_number and (_whole(name) or negative):
        if 0 <= int(name) < len(index):
            return int(name)
        text = expected("the label", f"in 0 .. {len(index) - 1}", int(name))
    elif not name:
        text = "Expected a class, but the cell is empty."
    else:
        close = nearest(name, index)
        text = f"Expected one of the {len(index)} classes of the training rows, but got {name!r}."
        text += f" Did you mean {close[0]!r}?" if close else f" They are: {', '.join(list(index)[:12])}."
    raise DataError(text, path=file, record=f"line {row.line}", field=column)


def _number(file: Path, row: Row, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        fix = "Fill the cell in or remove the row."
        said = expected("the target", "a finite number", text, fix=fix)
        raise DataError(said, path=file, record=f"line {row.line}", field=column)
    return value


def _flag(file: Path, row: Row, column: str, text: str) -> float:
    value = _number(file, row, column, text)
    if value not in (0.0, 1.0):
        said = expected("the flag", "0 or 1", text)
        raise DataError(said, path=file, record=f"line {row.line}", field=column)
    return value
