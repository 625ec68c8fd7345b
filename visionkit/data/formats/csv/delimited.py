"""Text tables: CSV, TSV and their like as a header and numbered lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from visionkit.errors import DataError, expected
from visionkit.text.read_text import decode_text, read_text

__all__ = ["DELIMITERS", "TABLE_SUFFIXES", "Delimited", "read_delimited", "read_header"]

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""What may stand between the columns of a table."""

TABLE_SUFFIXES = (".csv", ".tsv")
"""File endings of tables (lower case)."""

_MAX_FIELD = 1_000_000
_HEAD = 65_536  # bytes that hold the first line


@dataclass(frozen=True)
class Delimited:
    """The text of a table.

    Args:
        header: Names of the columns, stripped.
        lines: For each line that is not empty, its number in the file from 1 and its cells.
        delimiter: What stands between the columns.
    """

    header: list[str]
    lines: list[tuple[int, list[str]]]
    delimiter: str


def read_delimited(file: Path, *, known: Collection[str] = ()) -> Delimited:
    """Read a text table with a header line, in UTF-8 or what its byte order mark says.

    The delimiter is the one that cuts the header into at least two columns; where several do, the one that
    brings out a known column.

    Args:
        file: The table.
        known: Names of columns of which one is expected (compared in lower case).

    Raises:
        DataError: The file cannot be read, has no header or no lines, names a column twice, or its delimiter
            cannot be told.
    """
    csv.field_size_limit(_MAX_FIELD)
    text, line = read_text(file), 0
    delimiter = _delimiter(file, text.partition("\n")[0], known)
    reader = csv.reader(io.StringIO(text), strict=True, delimiter=delimiter)
    lines = []
    try:
        header = [name.strip() for name in next(reader, [])]
        line = reader.line_num
        for row in reader:
            line = reader.line_num
            if any(cell.strip() for cell in row):
                lines.append((line, row))
    except csv.Error as error:
        text = f"Expected a line of a CSV file, but {error}. A quotation mark may be open or doubled wrongly."
        raise DataError(text, path=file, record=f"line {line + 1}") from error
    if not any(header) or not lines:
        raise DataError("Expected a header line and at least one row, but the table is empty.", path=file)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"Expected every column once, but {twice} stand twice.", path=file, record="line 1")
    return Delimited(header, lines, delimiter)


def read_header(file: Path) -> list[str]:
    """Return the columns of a table from its first line, [] where it cannot be read; it never raises.

    Args:
        file: Any file.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
        text = _decoded_start(head, file)
        columns = {char: _cells(text.partition("\n")[0], char) for char in DELIMITERS}
    except (OSError, ValueError, csv.Error):
        return []
    return max(columns.values(), key=len)


def _decoded_start(head: bytes, file: Path) -> str:
    """Decode the start of a file, which may end within a character."""
    for cut in range(3):
        try:
            return decode_text(head[: len(head) - cut], path=file)
        except DataError:
            continue
    return decode_text(head[: max(len(head) - 3, 0)], path=file)


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _delimiter(file: Path, first: str, known: Collection[str]) -> str:
    """Return what stands between the columns of a header line."""
    fits = {char: cells for char in DELIMITERS if len(cells := _cells(first, char)) > 1}
    if len(fits) > 1:
        names = {name.lower() for name in known}
        better = [char for char, cells in fits.items() if names & {cell.lower() for cell in cells}]
        if len(better) != 1:
            counts = ", ".join(f"{len(cells)} with the {DELIMITERS[char]}" for char, cells in fits.items())
            rule = "told by its header (one mark between the columns: comma, semicolon, tab or bar)"
            text = expected("the columns of the table", rule, first.strip()[:200], fix=f"It has {counts}.")
            raise DataError(text, path=file, record="line 1")
        return better[0]
    return next(iter(fits), ",")
