"""The annotation files of a data set, read once for both its splits and its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from visionkit.data.splits import Splits
from visionkit.errors import DataError
from visionkit.notices import Notice
from visionkit.types import Reader

__all__ = ["Source", "check_reader", "read_each", "sound", "with_limit"]

Item = TypeVar("Item")
Record = TypeVar("Record")


@dataclass(frozen=True)
class Source:
    """The annotation files of a data set, read but not yet split or checked.

    Args:
        splits: Makes the splits; the argument is the fraction that may be left out (`max_dropped`). Raises
            the first error.
        errors: Decodes every image and returns all errors; the argument is whether to list what the splits
            leave out, too.
        notes: What the splits do not mind but a user may want to know.
        reading: How the targets were read, where they are not one class an image.
    """

    splits: Callable[[float], Splits]
    errors: Callable[[bool], list[DataError]]
    notes: Callable[[], Sequence[Notice]] = tuple
    reading: Callable[[], str] = str


def read_each(items: Iterable[Item], read: Callable[[Item], Record]) -> list[Record | DataError]:
    """Return what was read of each item, or its error: none hides another.

    Args:
        items: Files, say.
        read: Reads one.
    """
    results: list[Record | DataError] = []
    for item in items:
        try:
            results.append(read(item))
        except DataError as error:
            results.append(error)
    return results


def sound(results: Iterable[Record | DataError]) -> list[Record]:
    """Return what could be read.

    Args:
        results: Of `read_each`.

    Raises:
        DataError: The first error among the results.
    """
    records: list[Record] = []
    for each in results:
        if isinstance(each, DataError):
            raise each
        records.append(each)
    return records


def with_limit(notices: Iterable[Notice], max_dropped: float) -> tuple[Notice, ...]:
    """Return notices with another limit; those without one stay as they are.

    Args:
        notices: Any.
        max_dropped: The limit.
    """
    return tuple(
        each if each.max_fraction is None else replace(each, max_fraction=max_dropped) for each in notices
    )


def check_reader(reader: Reader) -> list[DataError]:
    """Read every sample of a reader and return the errors.

    Args:
        reader: Any reader, one of yours too.
    """
    errors = []
    for index in range(len(reader)):
        try:
            reader[index]
        except DataError as error:
            errors.append(error)
    return errors
