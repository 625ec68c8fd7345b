"""Errors and their texts: what was expected, what came, the nearest valid value, what to do.

What a user can correct is an `InputError` (a `ValueError`; exit status 2). What fails in a run
is a `RunError` (a `RuntimeError`; status 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from visionkit.printable import printable

__all__ = [
    "DataError",
    "InputError",
    "PreemptedError",
    "RunError",
    "expected",
    "first_line",
    "install_extra",
    "nearest",
    "printable",
    "unknown_name",
]


class InputError(ValueError):
    """Wrong input; the text names what is wrong, why, and what to do."""


class RunError(RuntimeError):
    """A failure while running; the text names what failed, why, and what to do."""


class PreemptedError(RunError):
    """The run was asked to stop, saved its state and can be continued by the same command.

    Attributes:
        by_keyboard: Whether it was Ctrl-C.
    """

    by_keyboard = False


class DataError(InputError):
    """An error in a data set, with its file, record and field.

    Args:
        message: What was expected, what came, what to do.
        path: The file with the error.
        record: The record in the file (annotation id, line number, object index), if there is one.
        field: The field with the error ("bbox", "label", "mask", "header"), if there is one.
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
        where = [] if path is None else [printable(str(path)).replace("\n", "\\n")]
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


def expected(what: str, valid: object, got: object, *, fix: str = "") -> str:
    """Return a sentence: expected `what` to be `valid`, but got `got`; then the fix."""
    text = f"Expected {what} to be {valid}, but got {got!r}."
    return f"{text} {fix}" if fix else text


def first_line(error: BaseException, *, prefer: tuple[str, ...] = (), limit: int = 200) -> str:
    """Return the first line of an error's text, or its class if it has no text.

    Args:
        error: Any exception; texts of libraries may have many lines.
        prefer: The first line with one of these words is taken instead, if there is one.
        limit: Maximum number of characters.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = next((line for line in lines if any(word in line for word in prefer)), lines[0])
    return line.strip()[:limit]


def install_extra(extra: str) -> str:
    """Return the command that installs an extra: from a checkout, as no package index has this one.

    Args:
        extra: A name of `[project.optional-dependencies]` in `pyproject.toml`.
    """
    return f'pip install ".[{extra}]" in a checkout of visionkit'


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return the known names nearest to `name`, best first."""
    pool = list(known)
    close = difflib.get_close_matches(name, pool, n=limit, cutoff=0.6)
    return close or difflib.get_close_matches(name.lower(), pool, n=limit, cutoff=0.4)


def unknown_name(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> InputError:
    """Return the error for an unknown name, with the nearest names, or all if they are few.

    Args:
        kind: Kind of thing, in the singular ("backbone", "optimizer").
        name: The unknown name.
        known: Every valid name.
        hint: A sentence on where valid names are listed.
    """
    pool = sorted(known)
    close = nearest(name, pool)
    text = f"Unknown {kind} {name!r}."
    if close:
        text += " Did you mean " + " or ".join(repr(c) for c in close) + "?"
    elif len(pool) <= 12:
        text += f" Known: {', '.join(pool)}."
    return InputError(f"{text} {hint}" if hint else text)
