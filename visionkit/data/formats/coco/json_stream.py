"""Large JSON files, one record at a time: what is read is as large as a record, not as the file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from io import TextIOBase
from pathlib import Path
from typing import Any

from visionkit.errors import DataError

__all__ = ["stream_records"]

_STEP = 1 << 20  # characters read at once
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def stream_records(path: Path, sections: Collection[str]) -> Iterator[tuple[str, int, Any]]:
    """Yield `(section, index, record)` of the lists that stand under some keys of the outermost object.

    A section that is no list is yielded whole, with the index -1; an empty one is yielded with the index -2
    and no record, so that it differs from a missing one. Other keys are read over.

    Args:
        path: A JSON file in UTF-8.
        sections: The keys of the lists.

    Raises:
        DataError: The file cannot be read, is no JSON, or holds a section twice; the text says where.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            yield from _walk(_Window(stream, path), sections)
    except FileNotFoundError:
        raise DataError("Expected a JSON file, but there is none by this name.", path=path) from None
    except UnicodeDecodeError as error:
        raise DataError(f"Expected JSON in UTF-8, but {error.reason}.", path=path) from error
    except OSError as error:
        raise DataError(
            f"Expected a readable JSON file, but {error.strerror or error}.", path=path
        ) from error


class _Window:
    """A stretch of the file's text, and how far it has been used."""

    def __init__(self, stream: TextIOBase | Any, path: Path) -> None:
        self.stream = stream
        self.path = path
        self.where = "the outermost value"
        self.text = ""
        self.at = 0
        self.ended = False

    def peek(self) -> str:
        """Return the next character that is no space, "" at the end."""
        while True:
            found = _SPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more()

    def take(self, wanted: str) -> str:
        """Use the next character, which must be one of `wanted`."""
        found = self.peek()
        if not found or found not in wanted:
            raise self.fault(f"{' or '.join(map(repr, wanted))}, but got {found or 'the end of the file'!r}")
        self.at += 1
        return found

    def value(self) -> Any:
        """Use the next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self.ended:
                    tail = self.text[error.pos : error.pos + 20]
                    got = repr(tail) if tail.strip() else "the end of the file: it is cut short"
                    raise self.fault(f"JSON, but got {got}") from None
            except (RecursionError, ValueError) as error:
                raise self.fault(f"plain JSON, but {error}") from None
            else:
                # What touches the end of the window may go on behind it.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            self._more()

    def fault(self, text: str) -> DataError:
        """Return an error that says where in the file."""
        return DataError(f"Expected {text}.", path=self.path, record=self.where)

    def _more(self) -> None:
        # Reading as much again as did not suffice keeps the work linear in the size of a record.
        rest = self.text[self.at :]
        piece = self.stream.read(max(_STEP, len(rest)))
        self.ended = not piece
        self.text, self.at = rest + piece, 0


def _walk(window: _Window, sections: Collection[str]) -> Iterator[tuple[str, int, Any]]:
    if window.peek() != "{":
        got = window.peek()
        what = {"": "an empty file", "[": "a list"}.get(got, f"{got!r} first")
        raise window.fault(f"an object of {', '.join(sections)}, but got {what}")
    window.take("{")
    seen: set[str] = set()
    while window.peek() != "}":
        if seen:
            window.take(",")
        key = window.value()
        if not isinstance(key, str):
            raise window.fault(f"a key, but got {key!r}")
        window.take(":")
        if key in seen and key in sections:
            raise window.fault(f"one list of {key}, but there are two")
        seen.add(key)
        if key not in sections:
            window.where = key
            window.value()
        elif window.peek() != "[":
            yield key, -1, window.value()
        else:
            yield from _elements(window, key)
        window.where = "the outermost value"
    window.take("}")
    if window.peek():
        raise window.fault(f"nothing after the outermost object, but got {window.peek()!r}")


def _elements(window: _Window, key: str) -> Iterator[tuple[str, int, Any]]:
    window.take("[")
    if window.peek() == "]":
        window.take("]")
        yield key, -2, None
        return
    index = 0
    while True:
        window.where = f"{key}[{index}]"
        yield key, index, window.value()
        index += 1
        if window.take(",]") == "]":
            return
