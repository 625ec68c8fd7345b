"""Label maps: the class of each value or colour in mask files, from a text file or given as names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visionkit.errors import DataError, InputError
from visionkit.text.read_text import read_lines

__all__ = ["IGNORE", "LABEL_FILES", "LabelMap", "read_label_map"]

IGNORE = 255
"""The value of pixels that do not count, in every mask that a reader gives."""

LABEL_FILES = ("classes.txt", "labelmap.txt", "label_colors.txt", "class_dict.csv")
"""Names of label map files that are looked for in a data set's folder, the first that is there is taken."""

Colour = tuple[int, int, int]

_HOW = (
    "Each line names one class: 'name', 'value name', 'name red green blue' or 'value name red green blue'; "
    "the name 'ignore' marks values that do not count."
)
_CVAT = re.compile(r"(?P<name>[^:]+):(?P<colour>\d+,\d+,\d+)?:[^:]*:[^:]*")  # name:colour:parts:actions
_COLOUR_FIRST = re.compile(r"(\d+)\s+(\d+)\s+(\d+)\s+(\S.*)")
_COLUMNS = {
    "name": ("name", "class", "label", "class_name"),
    "value": ("value", "id", "index", "class_id"),
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
}


@dataclass(frozen=True)
class LabelMap:
    """Classes and the file values (or colours) that stand for them.

    Args:
        classes: Names of the classes, by class number.
        values: Class number of each value in the files; `IGNORE` for values that do not count.
        colours: Class number of each colour, for masks drawn in colours.
        numbered: Whether the values were given. Otherwise they count the lines of a list of colours, and a
            palette file is read by the colours of its palette where the list has them all.
        assumed: Values that are ignored by default, as the list does not name them.

    Raises:
        InputError: There is no class, there are more than 255, or two share a name.
    """

    classes: tuple[str, ...]
    values: Mapping[int, int]
    colours: Mapping[Colour, int] = field(default_factory=dict)
    numbered: bool = True
    assumed: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= IGNORE:
            raise InputError(f"Expected 1 to {IGNORE} classes, but got {len(self.classes)}.")
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise InputError(f"Expected each class once, but got {', '.join(twice)} more than once.")

    @classmethod
    def of(cls, classes: Sequence[str], *, ignore: Sequence[int] | None = None) -> LabelMap:
        """Make the map of files whose values are the class numbers.

        Args:
            classes: Names of the classes: value 0, value 1, ...
            ignore: Values that do not count; 255 if nothing is given.

        Raises:
            InputError: As the class.
        """
        ignored = (IGNORE,) if ignore is None else ignore
        values = {index: index for index in range(len(classes))} | dict.fromkeys(ignored, IGNORE)
        return cls(tuple(classes), values, assumed=frozenset(ignored if ignore is None else ()))

    @cached_property
    def table(self) -> np.ndarray:
        """Class number of each 16-bit value; -1 for a value that is not listed."""
        table = np.full(65536, -1, dtype=np.int16)
        for value, index in self.values.items():
            table[value] = index
        return table

    @cached_property
    def colour_table(self) -> np.ndarray:
        """Class number of each 24-bit colour; -1 for a colour that is not listed."""
        table = np.full(1 << 24, -1, dtype=np.int16)
        for (red, green, blue), index in self.colours.items():
            table[(red << 16) | (green << 8) | blue] = index
        return table


class _Line(NamedTuple):
    """One class as a line names it."""

    number: int  # of the line, from 1
    name: str
    value: int | None = None
    colour: Colour | None = None


def read_label_map(path: str | Path) -> LabelMap:
    """Read a list of classes: one a line, `#` (first in the line, or after a space) starts a comment.

    A line is `name` (values count from 0), `value name`, `name red green blue` or `value name red green
    blue`. The name `ignore` may stand on several lines, and so may any name that comes with a value or a
    colour. The value 255 is ignored unless it is listed. Files of other tools are read as they are: CVAT's
    `labelmap.txt` (`name:red,green,blue::`), `class_dict.csv` (columns name, r, g, b) and CamVid's
    `label_colors.txt` (`red green blue name`); in the latter two `Void` is ignored.

    Args:
        path: The file, in UTF-8, or UTF-16 with a byte order mark.

    Raises:
        DataError: The file cannot be read, or a line cannot be understood; file and line are named.
    """
    classes: list[str] = []
    values: dict[int, int] = {}
    colours: dict[Colour, int] = {}
    numbered = True
    for line in _lines(path):
        numbered = numbered and (line.value is not None or line.colour is None)
        value = len(values) if line.value is None else line.value
        if line.name == "ignore":
            index = IGNORE
        elif line.name in classes and (line.value is not None or line.colour is not None):
            index = classes.index(line.name)
        else:
            index = len(classes)
            classes.append(line.name)
        _check_line(line, path)
        if value in values or (line.colour is not None and line.colour in colours):
            raise DataError(
                f"Expected each value and colour once, but line {line.number} repeats one: "
                f"{_written(line)!r}.",
                path=path,
                record=line.number,
            )
        values[value] = index
        if line.colour is not None:
            colours[line.colour] = index
    assumed = frozenset() if IGNORE in values else frozenset({IGNORE})
    values.setdefault(IGNORE, IGNORE)
    try:
        return LabelMap(tuple(classes), values, colours, numbered, assumed)
    except InputError as error:
        raise DataError(f"{error} {_HOW}", path=path) from error


def _lines(path: str | Path) -> Iterator[_Line]:
    """Yield the classes of a file, in whichever way it names them."""
    try:
        written = read_lines(path)
    except DataError as error:
        raise DataError(f"{error.message} {_HOW}", path=error.path, record=error.record) from error
    lines = [(number, _without_comment(line)) for number, line in enumerate(written, start=1)]
    lines = [(number, line) for number, line in lines if line]
    columns = _columns(lines[0][1]) if lines else None
    if columns is not None:
        yield from _csv_lines(lines[1:], columns, path)
    elif lines and all(_CVAT.fullmatch(line) for _, line in lines):
        for number, line in lines:
            name, _, rest = line.partition(":")
            words = rest.partition(":")[0].split(",")
            yield _Line(number, name.strip(), None, _colour(words) if words != [""] else None)
    elif lines and all(_COLOUR_FIRST.fullmatch(line) for _, line in lines):
        for number, line in lines:
            red, green, blue, name = line.split(None, 3)
            yield _Line(number, _void(name), None, _colour([red, green, blue]))
    else:
        for number, line in lines:
            yield _words(number, line.split())


def _without_comment(line: str) -> str:
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()


def _words(number: int, words: list[str]) -> _Line:
    """Return what a line of our own form names: [value] name [red green blue]."""
    value = int(words[0]) if re.fullmatch(r"-?\d+", words[0], re.ASCII) and len(words) > 1 else None
    rest = words if value is None else words[1:]
    colour = None
    if len(rest) >= 4 and all(re.fullmatch(r"\d+", word, re.ASCII) for word in rest[-3:]):
        colour, rest = _colour(rest[-3:]), rest[:-3]
    return _Line(number, " ".join(rest), value, colour)


def _columns(header: str) -> dict[str, int] | None:
    """Return the places of name, red, green and blue in a header of comma-separated values, if it is one."""
    names = [cell.strip().lower() for cell in header.split(",")]
    indices = {
        key: next(names.index(alias) for alias in aliases if alias in names)
        for key, aliases in _COLUMNS.items()
        if any(alias in names for alias in aliases)
    }
    required = {"name", "red", "green", "blue"}
    return indices if required <= set(indices) or set(indices) == {"name", "value"} else None


def _csv_lines(
    lines: Sequence[tuple[int, str]], columns: Mapping[str, int], path: str | Path
) -> Iterator[_Line]:
    """Yield the classes of a table with a header."""
    for number, line in lines:
        cells = [cell.strip() for cell in next(csv.reader([line]))]
        try:
            value = int(cells[columns["value"]]) if "value" in columns else None
            colour = _colour([cells[columns[key]] for key in ("red", "green", "blue") if key in columns])
            yield _Line(number, _void(cells[columns["name"]]), value, colour)
        except (IndexError, ValueError) as error:
            raise DataError(
                f"Expected the columns {', '.join(columns)}, but line {number} has {line!r}.",
                path=path,
                record=number,
            ) from error


def _colour(words: Sequence[str]) -> Colour | None:
    if not words:
        return None
    red, green, blue = (int(word) for word in words)
    return red, green, blue


def _void(name: str) -> str:
    """Return "ignore" for the class that CamVid's own lists have for pixels that do not count."""
    return "ignore" if name.lower() == "void" else name


def _check_line(line: _Line, path: str | Path) -> None:
    """Refuse a value or a colour that no file can hold."""
    in_range = (line.value is None or 0 <= line.value <= 65535) and max(line.colour or (0,)) <= 255
    if not in_range or not line.name:
        raise DataError(
            f"Expected a name, a value from 0 to 65535 and a colour from 0 to 255, but line {line.number} "
            f"has {_written(line)!r}. {_HOW}",
            path=path,
            record=line.number,
        )


def _written(line: _Line) -> str:
    parts = [*(() if line.value is None else (line.value,)), line.name, *(line.colour or ())]
    return " ".join(map(str, parts))
