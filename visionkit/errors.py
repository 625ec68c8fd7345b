"""The house error texts: what was expected, what came, the nearest valid value, what to do.

Everything a user can put right is an `InputError` (a `ValueError`; the command line ends with status 2).
Everything that goes wrong in a run is a `RunError` (a `RuntimeError`; status 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "DataError",
    "InputError",
    "PreemptedError",
    "RunError",
    "expected",
    "first_line",
    "nearest",
    "printable",
    "unknown_name",
]


class InputError(ValueError):
    """Something the user gave is wrong; the text says what, why, and what to do."""


class RunError(RuntimeError):
    """Something failed while running; the text says what, why, and what to do."""


class PreemptedError(RunError):
    """The run was asked to stop, saved its state and can be continued by the same command.

    Attributes:
        by_keyboard: Whether Ctrl-C asked.
    """

    by_keyboard = False


class DataError(InputError):
    """A fault in a data set, named by file, record and field.

    Args:
        message: What was expected, what came, what to do.
        path: The file at fault.
        record: The record in the file (annotation id, line number, object index), if there is one.
        field: The field at fault ("bbox", "label", "mask", "header"), if there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        record: str | int | None = None,
        field: str | None = None,
    ) -> None:
        self.message = message
        self.path = None if path is None else str(path)
        self.record = record
        self.field = field
        where = [] if path is None else [printable(str(path))]
        where += [] if record is None else [f"record {record}"]
        where += [] if field is None else [f"field '{field}'"]
        message = printable(message)
        super().__init__(f"{', '.join(where)}: {message}" if where else message)

    def __reduce__(self) -> tuple[object, ...]:
        # Worker processes pickle exceptions by their positional arguments; keep the fields instead.
        return (_rebuild_data_error, (self.message, self.path, self.record, self.field))


def _rebuild_data_error(
    message: str, path: str | None, record: str | int | None, field: str | None
) -> DataError:
    return DataError(message, path=path, record=record, field=field)


def expected(what: str, wanted: object, got: object, *, fix: str = "") -> str:
    """One sentence: expected `what` to be `wanted`, but got `got`; then the fix."""
    text = f"Expected {what} to be {wanted}, but got {got!r}."
    return f"{text} {fix}" if fix else text


def printable(text: str) -> str:
    r"""Return a text that can be printed and written: a byte of a file name that is no UTF-8 becomes `\xe9`.

    Args:
        text: A name as the operating system gives it, or a text with such names.
    """
    if text.isascii():
        return text
    return "".join(_shown(char) if "\ud800" <= char <= "\udfff" else char for char in text)


def _shown(surrogate: str) -> str:
    """Write half of a surrogate pair: one for a byte of a file name, or one from a JSON file."""
    code = ord(surrogate)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def first_line(error: BaseException, *, prefer: tuple[str, ...] = (), limit: int = 200) -> str:
    """Return the first line of an error's text, cut at `limit`; the error's class where it has no text.

    Args:
        error: Any exception; those of libraries may go over many lines.
        prefer: The first line that holds one of these words is taken instead, if there is one.
        limit: Most characters.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = next((line for line in lines if any(word in line for word in prefer)), lines[0])
    return line.strip()[:limit]


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return the known names nearest to `name`, best first."""
    pool = list(known)
    close = difflib.get_close_matches(name, pool, n=limit, cutoff=0.6)
    return close or difflib.get_close_matches(name.lower(), pool, n=limit, cutoff=0.4)


def unknown_name(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> InputError:
    """Return the error for a name that is not known: the nearest names, or all of them when few.

    Args:
        kind: What is named, in the singular ("backbone", "optimizer").
        name: What came.
        known: Every valid name.
        hint: One more sentence on where to find names.
    """
    pool = sorted(known)
    close = nearest(name, pool)
    text = f"Unknown {kind} {name!r}."
    if close:
        text += " Did you mean " + " or ".join(repr(c) for c in close) + "?"
    elif len(pool) <= 12:
        text += f" Known: {', '.join(pool)}."
    return InputError(f"{text} {hint}" if hint else text)
