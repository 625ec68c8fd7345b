"""What the values in mask files mean: a list of classes, as a text file or given by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from visionkit.errors import DataError, InputError

__all__ = ["IGNORE", "LabelMap", "read_label_map"]

IGNORE = 255
"""The value of pixels that do not count, in every mask that a reader gives."""

_HOW = (
    "Each line names one class: 'name', or 'value name', or 'value name red green blue'; "
    "the name 'ignore' marks values that do not count."
)


@dataclass(frozen=True)
class LabelMap:
    """Classes and the file values (or colours) that stand for them.

    Args:
        classes: Names of the classes, by class number.
        values: Class number of each value in the files; `IGNORE` for values that do not count.
        colours: Class number of each colour, for masks drawn in colours.

    Raises:
        InputError: There is no class, there are more than 255, or two share a name.
    """

    classes: tuple[str, ...]
    values: Mapping[int, int]
    colours: Mapping[tuple[int, int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= IGNORE:
            raise InputError(f"Expected 1 to {IGNORE} classes, but got {len(self.classes)}.")
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise InputError(f"Expected each class once, but got {', '.join(twice)} more than once.")

    @classmethod
    def of(cls, classes: Sequence[str], *, ignore: Sequence[int] = (IGNORE,)) -> LabelMap:
        """Make the map of files whose values are the class numbers.

        Args:
            classes: Names of the classes: value 0, value 1, ...
            ignore: Values that do not count.

        Raises:
            InputError: As the class.
        """
        values = {index: index for index in range(len(classes))} | dict.fromkeys(ignore, IGNORE)
        return cls(tuple(classes), values)

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


def read_label_map(path: str | Path) -> LabelMap:
    """Read a list of classes: one a line, `#` starts a comment.

    A line is `name` (values count from 0), `value name`, or `value name red green blue`. The name `ignore`
    may
    stand on several lines. The value 255 is ignored unless it is listed.

    Args:
        path: The text file.

    Raises:
        DataError: The file cannot be read, or a line cannot be understood; file and line are named.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Expected a text file of class names, but {error}. {_HOW}", path=path) from error
    classes: list[str] = []
    values: dict[int, int] = {}
    colours: dict[tuple[int, int, int], int] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        value, name, colour = _entry(words, len(values), path, number)
        if name == "ignore":
            index = IGNORE
        else:
            index = len(classes)
            classes.append(name)
        if value in values or (colour is not None and colour in colours):
            raise DataError(
                f"Expected each value and colour once, but line {number} repeats one: {line!r}.",
                path=path,
                record=number,
            )
        values[value] = index
        if colour is not None:
            colours[colour] = index
    values.setdefault(IGNORE, IGNORE)
    try:
        return LabelMap(tuple(classes), values, colours)
    except InputError as error:
        raise DataError(f"{error} {_HOW}", path=path) from error


def _entry(
    words: list[str], count: int, path: str | Path, number: int
) -> tuple[int, str, tuple[int, int, int] | None]:
    """Return value, name and colour of one line."""
    try:
        value = int(words[0]) if words[0].lstrip("-").isdigit() and len(words) > 1 else None
        colour = None
        if value is not None and len(words) >= 5 and all(word.isdigit() for word in words[-3:]):
            red, green, blue = (int(word) for word in words[-3:])
            colour = (red, green, blue)
            words = words[:-3]
        in_range = (value is None or 0 <= value <= 65535) and all(0 <= part <= 255 for part in colour or ())
    except ValueError:
        in_range, value, colour = False, None, None
    if not in_range:
        raise DataError(
            f"Expected a value from 0 to 65535 and a colour from 0 to 255, but line {number} has "
            f"{' '.join(words)!r}. {_HOW}",
            path=path,
            record=number,
        )
    name = " ".join(words if value is None else words[1:])
    return (count if value is None else value), name, colour
