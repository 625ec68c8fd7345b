"""Parse the lines of a table of paths and targets one by one, so that no error hides another."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionkit.data.formats.csv.delimited import TABLE_SUFFIXES, read_delimited, read_header
from visionkit.data.formats.csv.images import TableImages, image_root
from visionkit.data.formats.csv.targets import Row, TableKind, Target, table_kind, target_parser
from visionkit.data.formats.folder.notices import count_dark
from visionkit.data.splits import split_of
from visionkit.errors import DataError, InputError, expected, unknown_name
from visionkit.notices import MAX_DROPPED, Notice, NoticeCounter

__all__ = [
    "LABEL_COLUMNS",
    "Row",
    "TableKind",
    "TableRows",
    "column_cells",
    "is_image_table",
    "may_be_image_table",
    "read_table",
    "row_notices",
    "targets_of",
]

LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")
"""Names by which the column of classes is found among others (lower case)."""

_KINDS = ("multi", "regression", "single")
IMAGE_COLUMNS = (
    "path", "image", "file", "filename", "file_name", "image_path", "image_name", "image_id", "filepath",
    "file_path", "image_file", "img", "img_path", "id_code", "id",
)  # fmt: skip
_SPLIT_COLUMN = "split"
_CAPTIONS = frozenset({"caption", "captions", "comment", "comment_number", "sentence"})
_BOXES = frozenset({"xmin", "x1", "x_min", "bbox", "bbox_x1", "roi.x1"})


@dataclass(frozen=True)
class TableRows:
    """A table whose lines are understood.

    Args:
        file: The CSV file.
        root: The folder of the images.
        classes: Names of the classes, or of the numbers to regress.
        rows: The lines without an error.
        targets: The target of each of them: an int, or a tuple of floats.
        errors: Every error, by line.
        kind: What the targets are.
        notices: What was assumed, or looks like a mistake.
        separator: What stands between the names of a label, where it holds several.
    """

    file: Path
    root: Path
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    targets: tuple[Target, ...]
    errors: tuple[DataError, ...]
    kind: TableKind = "single"
    notices: tuple[Notice, ...] = ()
    separator: str | None = None


def is_image_table(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a table of image paths and targets, by its ending and header; never raises.

    Args:
        path: Any path.
    """
    if not may_be_image_table(path):
        return False
    names = {name.lower() for name in read_header(Path(path))}
    return bool(names.intersection(IMAGE_COLUMNS))


def may_be_image_table(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a table of several columns, but none of captions or boxes; it never raises.

    Args:
        path: Any path.
    """
    file = Path(path)
    if file.suffix.lower() not in TABLE_SUFFIXES or not file.is_file():
        return False
    names = {name.lower() for name in read_header(file)}
    return not names & (_CAPTIONS | _BOXES) and len(names) > 1


def read_table(
    path: str | os.PathLike[str],
    *,
    kind: TableKind | None = "single",
    image: str | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    classes: Sequence[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    max_dropped: float = MAX_DROPPED,
    unseen_classes: bool = False,
) -> TableRows:
    """Read a table of image paths and targets; the other arguments are those of `image_table`.

    A `kind` of None is detected from the cells. With `unseen_classes` the rows of any split have classes.

    Raises:
        DataError: The file is no CSV file with a header and rows.
        InputError: An unknown column or kind.
    """
    if kind is not None and kind not in _KINDS:
        raise unknown_name("kind of table", kind, _KINDS)
    file = Path(path)
    table = read_delimited(file, known=(image or "", *IMAGE_COLUMNS))
    counter = NoticeCounter(max_fraction=max_dropped)
    header, lines = table.header, table.lines
    image_column = _image_column(file, header, image)
    columns = _target_columns(file, header, image_column, target, kind, counter)
    index = header.index(image_column)
    names = [cells[index].strip() for _, cells in lines if len(cells) == len(header)]
    top = image_root(file, names, counter) if root is None else Path(root)
    finder = TableImages(top, counter)
    errors: list[DataError] = []
    rows: list[Row] = []
    for line, cells in lines:
        try:
            rows.append(_row(file, header, line, cells, image_column, columns, finder))
        except DataError as error:
            errors.append(error)
    detected, delimiter = table_kind([row.values for row in rows], separator=separator)
    if kind is None:
        kind, separator = detected, delimiter
    if kind == "single" and detected == "multi" and len(columns) == 1 and classes is None:
        joined = [row.values[0] for row in rows if delimiter and delimiter in row.values[0]]
        if joined:
            text = f"{joined[0]!r} is one class (--target multi --table.separator '{delimiter}' for several)"
            counter.add("labels that may be several names", text, count=len(joined), harmless=True)
    _check_columns(file, kind, columns, separator)
    known, good, targets = targets_of(
        rows, file, kind, columns, separator, classes, counter, errors, unseen_classes=unseen_classes
    )
    _count_unused(header, lines, {image_column, *columns, _split_column(header)}, counter)
    notices = row_notices(good, targets, top, counter, max_dropped)
    ordered = tuple(sorted(errors, key=lambda error: int(str(error.record).split()[-1])))
    return TableRows(file, top, known, tuple(good), tuple(targets), ordered, kind, notices, separator)


def targets_of(
    rows: Sequence[Row],
    file: Path,
    kind: TableKind,
    columns: tuple[str, ...],
    separator: str | None,
    classes: Sequence[str] | None,
    counter: NoticeCounter,
    errors: list[DataError],
    *,
    unseen_classes: bool = False,
) -> tuple[tuple[str, ...], list[Row], list[Target]]:
    """Return the classes, the rows whose target is understood, and their targets.

    Args:
        rows: The rows.
        file: The table, for errors.
        kind: What the targets are.
        columns: Names of the target columns.
        separator: What stands between names.
        classes: The classes in order.
        counter: Where what looks like a mistake is counted.
        errors: Where the errors of the other rows go.
        unseen_classes: See `target_parser`.
    """
    names, parse = target_parser(
        file, kind, columns, separator, classes, rows, counter, unseen_classes=unseen_classes
    )
    good: list[Row] = []
    targets: list[Target] = []
    for row in rows:
        try:
            targets.append(parse(row))
            good.append(row)
        except DataError as error:
            errors.append(error)
    return names, good, targets


def column_cells(table: TableRows, name: str) -> list[str] | None:
    """Return the stripped cell of each row in a column of the file; None where it has no such column.

    Args:
        table: Its rows.
        name: The column, as in the header.

    Raises:
        DataError: The file has changed since it was read.
    """
    if table.file.suffix.lower() not in TABLE_SUFFIXES:
        return None
    read = read_delimited(table.file, known=(name, *IMAGE_COLUMNS))
    if name not in read.header:
        return None
    index, lines = read.header.index(name), dict(read.lines)
    try:
        return [lines[row.line][index].strip() for row in table.rows]
    except (KeyError, IndexError) as error:
        raise DataError("The table changed while it was read. Start again.", path=table.file) from error


def row_notices(
    rows: Sequence[Row],
    targets: Sequence[Target],
    root: Path,
    counter: NoticeCounter,
    max_dropped: float,
) -> tuple[Notice, ...]:
    """Return what is said of the rows of a table: images that are named again, in one split or in two.

    Args:
        rows: The rows.
        targets: The target of each.
        root: The folder of the images.
        counter: What was counted before.
        max_dropped: Largest fraction of the rows that may contradict another row.
    """
    first: dict[str, tuple[Row, Target]] = {}
    leaks = NoticeCounter(max_fraction=max_dropped)
    for row, target in zip(rows, targets, strict=True):
        name = os.path.normpath(row.image)
        if name not in first:
            first[name] = (row, target)
            continue
        before, other = first[name]
        text = f"{row.image!r} in line {before.line} and line {row.line} of {row.file.name}"
        if before.split != row.split:
            leaks.add("images that are in two splits", text)
        elif target != other and isinstance(target, int):
            counter.add("images with two classes", text)
        else:
            counter.add("images named again in their split", text, harmless=True)
    count_dark(counter, [str(root / row.image) for row in rows], root=root)
    held = sum(row.split != "train" for row in rows)
    return (*counter.notices(len(rows)), *leaks.notices(max(held, 1)))


def _image_column(file: Path, header: list[str], image: str | None) -> str:
    if image is not None:
        if image not in header:
            raise unknown_name("column", image, header, hint=f"{file} has {header}.")
        return image
    for name in IMAGE_COLUMNS:
        for column in header:
            if column.lower() == name:
                return column
    raise DataError(
        f"Expected a column of paths (one of {', '.join(IMAGE_COLUMNS)}), but found {header}. "
        "Name it with image=... (--table.image)",
        path=file,
        record="line 1",
    )


def _split_column(header: Collection[str]) -> str:
    return next((name for name in header if name.lower() == _SPLIT_COLUMN), _SPLIT_COLUMN)


def _target_columns(
    file: Path,
    header: list[str],
    image: str,
    target: str | Sequence[str] | None,
    kind: TableKind | None,
    counter: NoticeCounter,
) -> tuple[str, ...]:
    if target is None:
        rows = [name for name in header if not name or name.lower().startswith("unnamed:")]
        columns = tuple(name for name in header if name not in (image, _split_column(header), *rows))
        if not columns:
            text = f"Expected a column of targets, but found only {header}."
            raise DataError(text, path=file, record="line 1")
        labels = [name for name in columns if name.lower() in LABEL_COLUMNS]
        if kind in ("single", None) and len(columns) > 1 and len(labels) == 1:
            rest = [name for name in columns if name != labels[0]]
            text = (
                f"{rest[0]!r}: {labels[0]!r} is taken for the column of classes (target=..., --table.target)"
            )
            counter.add("columns not read", text, count=len(rest), choice=True)
            return (labels[0],)
        return columns
    columns = (target,) if isinstance(target, str) else tuple(target)
    for name in columns:
        if name not in header:
            raise unknown_name("column", name, header, hint=f"{file} has {header}.")
    return columns


def _count_unused(
    header: list[str], lines: Sequence[tuple[int, list[str]]], used: Collection[str], counter: NoticeCounter
) -> None:
    """Count the columns that look like splits but are not called so."""
    for index, name in enumerate(header):
        if name in used:
            continue
        values = {cells[index].strip().lower() for _, cells in lines if len(cells) == len(header)}
        if len(values) > 1 and all(map(split_of, values)):
            text = f"{name!r} holds {', '.join(sorted(values))}: call it {_SPLIT_COLUMN!r} to have it used"
            counter.add("columns of splits by another name, not used", text, choice=True)


def _check_columns(file: Path, kind: str, columns: tuple[str, ...], separator: str | None) -> None:
    if kind == "single" and len(columns) != 1:
        raise DataError(
            f"Expected one column of classes, but found {list(columns)}. Name it with target=... "
            '(--table.target), or use kind="multi" or kind="regression" (--target).',
            path=file,
            record="line 1",
        )
    if kind != "multi":
        return
    if separator == "":
        raise InputError(expected("the separator", "a character", separator))
    if separator is None and len(columns) == 1:
        raise DataError(
            "Expected several 0/1 columns, or a column of names and a separator, but found one column, "
            f"{columns[0]!r}, and no separator. Give separator=... (--table.separator), such as '|'.",
            path=file,
            record="line 1",
        )
    if separator is not None and len(columns) != 1:
        raise DataError(
            f"Expected one column to cut at {separator!r}, but found {list(columns)}. Name it with "
            "target=... (--table.target)",
            path=file,
            record="line 1",
        )


def _row(
    file: Path,
    header: list[str],
    line: int,
    cells: list[str],
    image: str,
    columns: tuple[str, ...],
    finder: TableImages,
) -> Row:
    where = f"line {line}"
    if len(cells) != len(header):
        text = f"Expected {len(header)} values, as in the header, but found {len(cells)}."
        raise DataError(text, path=file, record=where)
    cell: Mapping[str, str] = {name: text.strip() for name, text in zip(header, cells, strict=True)}
    column = _split_column(header)
    split = split_of(cell.get(column, "train"))
    if split is None:
        text = expected("the split", "train, val or test", cell[column].lower())
        raise DataError(text, path=file, record=where, field=column)
    try:
        name = finder.find(cell[image])
    except DataError as error:
        raise DataError(error.message, path=file, record=where, field=image) from error
    return Row(file, line, name, split, tuple(cell[name] for name in columns))
