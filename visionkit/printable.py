"""Text that every file, terminal and figure can show: bytes of file names that are no UTF-8 are escaped."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["for_terminal", "printable", "printable_values"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line break


def printable(text: str) -> str:
    r"""Return `text` with every byte of a file name that is no UTF-8 written out: the file `caf\xe9.jpg`.

    Python has such bytes as lone surrogates, which no encoding takes.
    """
    if text.isascii():
        return text
    return "".join(_escaped(char) if "\ud800" <= char <= "\udfff" else char for char in text)


def for_terminal(text: str) -> str:
    r"""Return `text` as a terminal can show it: control characters, which file names may hold, as `\x1b`."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", printable(text))


def _escaped(surrogate: str) -> str:
    r"""Return `\xe9` for a byte of a file name, `\ud83d` for any other surrogate (from a JSON file)."""
    code = ord(surrogate)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def printable_values(value: Any) -> Any:
    """Return plain values with `printable` done to every text, keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(key)): printable_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(item) for item in value]
    return value
