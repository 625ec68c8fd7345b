"""Reading of text and JSON files: UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from visionkit.errors import DataError

__all__ = ["decode_text", "read_json", "read_lines", "read_text"]

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is the start of this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_text(path: str | Path) -> str:
    r"""Read a text file in UTF-8, or in the encoding of its byte order mark, which is not part of the text.

    Line ends `\r\n` and `\r` become `\n`.

    Args:
        path: The file.

    Raises:
        DataError: The file cannot be read, or it is not in one of these encodings; file and line are named.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = getattr(error, "strerror", None) or error
        what = "there is none by this name" if missing else f"it cannot be read ({reason})"
        raise DataError(f"Expected a text file, but {what}.", path=path) from error
    return decode_text(data, path=path)


def decode_text(data: bytes, *, path: str | Path) -> str:
    """Decode the bytes of a text file as `read_text` does.

    Args:
        data: All of the file, or its start up to a line end.
        path: What errors name.

    Raises:
        DataError: As `read_text`.
    """
    bom, encoding = next((pair for pair in _BOMS if data.startswith(pair[0])), (b"", "utf-8"))
    try:
        text = data[len(bom) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data[len(bom) : len(bom) + error.start].decode(encoding, "replace").count("\n") + 1
        raise DataError(
            f"Expected text in UTF-8, but line {line} holds the byte 0x{data[len(bom) + error.start]:02x}, "
            f"which is none in {encoding.upper()}. Save the file as UTF-8.",
            path=path,
            record=line,
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"Expected text in UTF-8, but line {line} holds a zero byte: a binary file, or UTF-16 without "
            "a byte order mark. Save the file as UTF-8.",
            path=path,
            record=line,
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path) -> list[str]:
    """Read a text file as lines, without their ends.

    Only line feeds and carriage returns end a line, as editors count them; Unicode's separators do not.

    Args:
        path: The file.

    Raises:
        DataError: As `read_text`.
    """
    lines = read_text(path).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_json(path: str | Path) -> Any:
    """Read a JSON file as `read_text` reads text.

    Args:
        path: The file.

    Raises:
        DataError: As `read_text`, or the text is no JSON; line and column are named.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"Expected JSON, but line {error.lineno}, column {error.colno} says: {error.msg}.",
            path=path,
            record=error.lineno,
        ) from error
    except RecursionError as error:
        raise DataError("Expected JSON, but it is nested too deeply.", path=path) from error
