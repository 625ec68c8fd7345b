"""Text tables: CSV, TSV and their like as a header and numbered lines; the header tells the delimiter."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from visionkit.errors import DataError, expected

__all__ = ["DELIMITERS", "TABLE_SUFFIXES", "Delimited", "read_delimited", "read_header"]

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""What may stand between the columns of a table."""

TABLE_SUFFIXES = (".csv", ".tsv")
"""File endings of tables (lower case)."""

_MAX_FIELD = 1_000_000
_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


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
    """Read a text table in UTF-8 (with or without byte order mark), with a header line.

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
    line = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            delimiter = _delimiter(file, stream.readline(_MAX_FIELD), known)
            stream.seek(0)
            reader = csv.reader(stream, strict=True, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            line = reader.line_num
            lines = []
            for row in reader:
                line = reader.line_num
                if any(cell.strip() for cell in row):
                    lines.append((line, row))
    except FileNotFoundError as error:
        raise DataError("Expected a CSV file, but there is none by this name.", path=file) from error
    except UnicodeDecodeError as error:
        raise DataError(_encoding(file, error), path=file) from error
    except csv.Error as error:
        text = (
            f"Expected a line of a CSV file, but {error}. A quotation mark may be open, or doubled wrongly."
        )
        raise DataError(text, path=file, record=f"line {line + 1}") from error
    except OSError as error:
        raise DataError(f"Expected a readable CSV file, but {error.strerror or error}.", path=file) from error
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
        with file.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline(_MAX_FIELD)
        columns = {mark: _cells(first, mark) for mark in DELIMITERS}
    except (OSError, ValueError, csv.Error):
        return []
    return max(columns.values(), key=len)


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _delimiter(file: Path, first: str, known: Collection[str]) -> str:
    """Return what stands between the columns of a header line."""
    fits = {mark: cells for mark in DELIMITERS if len(cells := _cells(first, mark)) > 1}
    if len(fits) > 1:
        names = {name.lower() for name in known}
        better = [mark for mark, cells in fits.items() if names & {cell.lower() for cell in cells}]
        if len(better) != 1:
            counts = ", ".join(f"{len(cells)} with the {DELIMITERS[mark]}" for mark, cells in fits.items())
            wanted = "told by its header (one mark between the columns: comma, semicolon, tab or bar)"
            text = expected("the columns of the table", wanted, first.strip()[:200], fix=f"It has {counts}.")
            raise DataError(text, path=file, record="line 1")
        return better[0]
    return next(iter(fits), ",")


def _encoding(file: Path, error: UnicodeDecodeError) -> str:
    with file.open("rb") as stream:
        mark = stream.read(2)
    found = _BOMS.get(mark, f"byte {error.start} is {error.object[error.start : error.start + 1]!r}")
    return (
        f"Expected a CSV file in UTF-8, but found {found}. Save it as UTF-8 "
        "(`iconv -f ENCODING -t UTF-8`, or 'CSV UTF-8' in a spreadsheet)."
    )
