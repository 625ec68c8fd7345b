"""Stream the records of large JSON files: memory is bounded by one record, not by the file."""

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

    A section that is no list is yielded as one value, with the index -1; an empty one with the index -2
    and no record, so that it differs from a missing one. Other keys are read over.

    Args:
        path: A JSON file in UTF-8.
        sections: The keys of the lists.

    Raises:
        DataError: The file cannot be read, is no JSON, or holds a section twice; the text gives the position.
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
    """A window of text that slides over the file: `text[at:]` is read but not used yet.

    Args:
        stream: The open file.
        path: The file, for errors.
    """

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
            space = _SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more()

    def take(self, expected: str) -> str:
        """Use the next character that is no space; it must be one of `expected`."""
        char = self.peek()
        if not char or char not in expected:
            raise self.error(f"{' or '.join(map(repr, expected))}, but got {char or 'the end of the file'!r}")
        self.at += 1
        return char

    def value(self) -> Any:
        """Use the next value."""
        self.peek()
        while True:
            # 1. Decode at the current position; what is incomplete fails and is tried again with more text.
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self.ended:
                    tail = self.text[error.pos : error.pos + 20]
                    got = repr(tail) if tail.strip() else "the end of the file: it is cut short"
                    raise self.error(f"JSON, but got {got}") from None
            except (RecursionError, ValueError) as error:
                raise self.error(f"plain JSON, but {error}") from None
            else:
                # 2. A value that touches the end of the window may go on behind it: 12 of 123.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            # 3. Read more of the file.
            self._more()

    def error(self, text: str) -> DataError:
        """Return an error that says where in the file."""
        return DataError(f"Expected {text}.", path=self.path, record=self.where)

    def _more(self) -> None:
        # Reading as much again as did not suffice keeps the work linear in the size of a record.
        rest = self.text[self.at :]
        piece = self.stream.read(max(_STEP, len(rest)))
        self.ended = not piece
        self.text, self.at = rest + piece, 0


def _walk(window: _Window, sections: Collection[str]) -> Iterator[tuple[str, int, Any]]:
    # 1. The outermost value is an object.
    if window.peek() != "{":
        got = window.peek()
        what = {"": "an empty file", "[": "a list"}.get(got, f"{got!r} first")
        raise window.error(f"an object of {', '.join(sections)}, but got {what}")
    window.take("{")
    # 2. Its keys: lists of `sections` are streamed, other values are decoded and dropped.
    seen: set[str] = set()
    while window.peek() != "}":
        if seen:
            window.take(",")
        key = window.value()
        if not isinstance(key, str):
            raise window.error(f"a key, but got {key!r}")
        window.take(":")
        if key in seen and key in sections:
            raise window.error(f"one list of {key}, but there are two")
        seen.add(key)
        if key not in sections:
            window.where = key
            window.value()
        elif window.peek() != "[":
            yield key, -1, window.value()
        else:
            yield from _elements(window, key)
        window.where = "the outermost value"
    # 3. Nothing follows.
    window.take("}")
    if window.peek():
        raise window.error(f"nothing after the outermost object, but got {window.peek()!r}")


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
