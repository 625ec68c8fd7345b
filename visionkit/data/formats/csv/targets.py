"""Parse the target columns of a table: one class, several classes, or numbers."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from visionkit.data.formats.folder.notices import name_twins
from visionkit.errors import DataError, expected, nearest
from visionkit.notices import NoticeCounter

__all__ = ["Row", "TableKind", "Target", "table_kind", "target_parser"]

TableKind = Literal["single", "multi", "regression"]
Target: TypeAlias = "int | tuple[float, ...]"

_PAIRS = 20_000  # of names that are compared, for classes that may be mistyped
_DIGITS = re.compile(r"[0-9]+")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        file: The table.
        line: Its number in the file, from 1.
        image: The path of the image, relative to the folder of the images.
        split: "train", "val" or "test".
        values: The cells of the target columns.
    """

    file: Path
    line: int
    image: str
    split: str
    values: tuple[str, ...]

    def error(self, text: str, field: str) -> DataError:
        """Return the error that names this line.

        Args:
            text: What was expected, what came, what to do.
            field: The column.
        """
        return DataError(text, path=self.file, record=f"line {self.line}", field=field)


def table_kind(
    rows: Sequence[Sequence[str]], *, separator: str | None = None
) -> tuple[TableKind, str | None]:
    """Tell what the target columns of a table are by their cells; return the kind, and the separator.

    Several columns are multi-label where all cells are 0 or 1, else regression where all are numbers. One
    column is regression where it holds numbers with decimals, multi-label where its cells are made of names
    with a bar, semicolon or comma between them of which half occur in other cells too, else one class.

    Args:
        rows: The cells of the target columns, by row.
        separator: What stands between names, if that is known.
    """
    cells = [text for row in rows for text in row]
    numbers = all(_is_number(text) for text in cells if text)
    if rows and len(rows[0]) > 1:
        flags = all(_is_number(text) and float(text) in (0, 1) for text in cells if text)
        return ("multi" if flags else "regression" if numbers else "single"), None
    if separator is not None:
        return "multi", separator
    if numbers and not all(_INTEGER.fullmatch(text) for text in cells if text):
        return "regression", None
    for delimiter in ("|", ";", ","):
        cut = [[part.strip() for part in text.split(delimiter)] for text in cells]
        alone = {parts[0] for parts in cut if len(parts) == 1}
        counts = Counter(part for parts in cut for part in set(parts))
        joined = {part for parts in cut if len(parts) > 1 for part in parts if part}
        again = sum(counts[part] > 1 or part in alone for part in joined)
        if joined and 2 * again >= len(joined):
            return "multi", delimiter
    return "single", None


def target_parser(
    file: Path,
    kind: TableKind,
    columns: tuple[str, ...],
    separator: str | None,
    classes: Sequence[str] | None,
    rows: Sequence[Row],
    counter: NoticeCounter,
    *,
    unseen_classes: bool = False,
) -> tuple[tuple[str, ...], Callable[[Row], Target]]:
    """Return the classes, and the function that turns a row into its target.

    Without `classes` they are those of the training rows: in numeric order where all of them are whole
    numbers, else sorted as text.

    Args:
        file: The table, for errors.
        kind: What the targets are.
        columns: Names of the target columns.
        separator: What stands between names in the one column of a multi-label table.
        classes: The classes in order; labels that are whole numbers, and no names of them, are indices.
        rows: The rows.
        counter: Where what looks like a mistake is counted.
        unseen_classes: Whether rows of validation and test have classes that no training row has.

    Raises:
        DataError: One class is expected, but the column holds numbers with decimals.
    """
    if kind == "regression" or (kind == "multi" and separator is None):
        read = _number if kind == "regression" else _flag
        return columns, lambda row: tuple(
            read(row, name, text) for name, text in zip(columns, row.values, strict=True)
        )

    def parts(row: Row) -> list[str]:
        if kind == "single":
            return [row.values[0]]
        return [name.strip() for name in row.values[0].split(separator) if name.strip()]

    counted = [row for row in rows if row.split == "train" or unseen_classes]
    seen = Counter(name for row in counted for name in parts(row) if name)
    by_number = bool(seen) and all(_INTEGER.fullmatch(name) for name in seen)
    if kind == "single" and classes is None:
        _refuse_decimals(file, columns[0], seen)
    if classes is not None:
        names = tuple(classes)
    elif by_number:
        names = _numbers(seen)
    else:
        names = tuple(sorted(seen))
    for one, other in name_twins(names):
        text = f"{one!r} and {other!r} are two classes"
        counter.add("classes whose names differ by case or spaces only", text, choice=True)
    lone = [name for name, count in seen.items() if count == 1]
    if len(names) > 20 and 2 * len(lone) > len(names):
        text = f"{lone[0]!r}; numbers to predict, or identities? (target: regression)"
        counter.add("classes with one training row", text, count=len(lone), choice=True)
    elif classes is None and not by_number:
        _count_near(seen, lone, counter)
    index = {name: number for number, name in enumerate(names)}
    by_value = {
        _integer(name): number for name, number in index.items() if by_number and _INTEGER.fullmatch(name)
    }
    as_index = classes is not None and by_number and not any(name in index for name in seen)

    def parse(row: Row) -> Target:
        numbers = [
            _class_index(row, columns[0], name, index, by_value, as_index=as_index) for name in parts(row)
        ]
        if kind == "single":
            return numbers[0]
        return tuple(float(number in numbers) for number in range(len(names)))

    return names, parse


def _count_near(seen: Counter[str], lone: Sequence[str], counter: NoticeCounter) -> None:
    """Count the classes with one training row that are probably another class, mistyped.

    Names that differ by their digits alone are numbered, not mistyped. So many are looked at that no more
    than 20,000 pairs of names are compared.
    """
    bare = {name: _DIGITS.sub("", name) for name in seen}
    often = [name for name, count in seen.items() if count > 1]
    for name in lone[: _PAIRS // max(len(often), 1)]:
        pool = [other for other in often if bare[other] != bare[name]]
        for other in difflib.get_close_matches(name, pool, n=1, cutoff=0.75):
            text = f"{name!r} (1 row) is near {other!r} ({seen[other]:,} rows)"
            counter.add("classes with one row, perhaps another class mistyped", text, choice=True)


def _numbers(seen: Counter[str]) -> tuple[str, ...]:
    """Return the numbers that occur, in order; as written where each is written in one way."""
    spelled: dict[int, set[str]] = {}
    for name in seen:
        spelled.setdefault(_integer(name), set()).add(name)
    return tuple(
        next(iter(texts)) if len(texts) == 1 else str(number) for number, texts in sorted(spelled.items())
    )


def _integer(text: str) -> int:
    return int(text.partition(".")[0])


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _refuse_decimals(file: Path, column: str, seen: Counter[str]) -> None:
    """Refuse to take numbers such as 3.5 for classes."""
    if seen and all(map(_is_number, seen)) and not all(map(_INTEGER.fullmatch, seen)):
        first = next(name for name in seen if not _INTEGER.fullmatch(name))
        raise DataError(
            f'Expected classes, but found numbers with decimals ({first}). Use kind="regression" (--target '
            "regression) to predict numbers, or classes=... to take them for names.",
            path=file,
            field=column,
        )


def _class_index(
    row: Row, column: str, name: str, index: dict[str, int], numbered: dict[int, int], *, as_index: bool
) -> int:
    """Return the index of a class by its name, or by its number where labels are numbers."""
    if name in index:
        return index[name]
    if _INTEGER.fullmatch(name):
        number = _integer(name)
        if number in numbered:
            return numbered[number]
        if as_index:
            if 0 <= number < len(index):
                return number
            raise row.error(expected("the label", f"in 0 .. {len(index) - 1}", number), column)
    if not name:
        raise row.error("Expected a class, but the cell is empty.", column)
    close = nearest(name, index)
    text = f"Expected one of the {len(index)} classes of the training rows, but got {name!r}."
    text += f" Did you mean {close[0]!r}?" if close else f" They are: {', '.join(list(index)[:12])}."
    raise row.error(text, column)


def _number(row: Row, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        comma = text.count(",") == 1 and _is_number(text.replace(",", "."))
        fix = "Write a point for the comma." if comma else "Fill the cell in or remove the row."
        raise row.error(expected("the target", "a finite number", text, fix=fix), column)
    return value


def _flag(row: Row, column: str, text: str) -> float:
    value = _number(row, column, text)
    if value not in (0.0, 1.0):
        raise row.error(expected("the flag", "0 or 1", text), column)
    return value
