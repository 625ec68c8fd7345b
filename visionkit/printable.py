"""Text that every file, terminal and figure can show: bytes of file names that are no UTF-8 are escaped."""

from __future__ import annotations

from typing import Any

__all__ = ["printable", "printable_values"]


def printable(text: str) -> str:
    r"""Return `text` with every byte that is no UTF-8 written out: the file caf\xe9.jpg reads so.

    Python gives such bytes of a file's name as lone surrogates, which no encoding takes.
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte of a file name
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable_values(value: Any) -> Any:
    """Return plain values with `printable` done to every text, keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(key)): printable_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(item) for item in value]
    return value
