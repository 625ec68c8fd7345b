"""Notices: what a reader left out, changed or assumed, counted, and refused above a fraction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from visionkit.errors import DataError, InputError, expected

__all__ = ["MAX_DROPPED", "Notice", "NoticeCounter", "check_notices"]

MAX_DROPPED = 0.1  # the fraction of a split's objects, captions or labels that a reader may leave out


@dataclass(frozen=True)
class Notice:
    """One kind of thing that a reader left out, changed or assumed.

    A notice is printed before training and by `visionkit check`, and kept in `result.json`.

    Args:
        what: The kind, in the plural ("boxes without an area left out", "files that are no images ignored").
        count: How often it occurred.
        total: Out of how many; 0 for a choice, which has no fraction.
        first: The first case, with file, record, field and reason, such as the text of its `DataError`.
        max_fraction: The data set is refused when `count / total` is above this; None: never.
    """

    what: str
    count: int
    total: int
    first: str
    max_fraction: float | None = None

    @property
    def fraction(self) -> float:
        """Return `count / total`, 0 for a total of 0."""
        return self.count / self.total if self.total else 0.0

    def __str__(self) -> str:
        """Return one line: the kind, the count, the fraction and the first case."""
        if not self.total:
            count = f"{self.count:,}. First: " if self.count != 1 else ""
            return f"{self.what}: {count}{self.first}"
        return f"{self.what}: {self.count:,} of {self.total:,} ({self.fraction:.2%}). First: {self.first}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `result.json`."""
        return {"what": self.what, "count": self.count, "total": self.total, "first": self.first}


class NoticeCounter:
    """Counts cases by kind while a reader scans its files; `notices` turns the counts into `Notice`s.

    Args:
        max_fraction: The default limit of the kinds, see `Notice`.
    """

    def __init__(self, *, max_fraction: float | None = MAX_DROPPED) -> None:
        if max_fraction is not None and not 0 <= max_fraction <= 1:
            raise InputError(expected("the fraction that may be left out", "in 0 .. 1", max_fraction))
        self.max_fraction = max_fraction
        self.counts: dict[str, int] = {}
        self.first: dict[str, str] = {}
        self.limits: dict[str, float | None] = {}
        self.choices: set[str] = set()

    def add(
        self, what: str, first: object, *, count: int = 1, harmless: bool = False, choice: bool = False
    ) -> None:
        """Count a case.

        Args:
            what: Its kind.
            first: The case, recorded as text if it is the first of its kind.
            count: How many cases.
            harmless: Never a reason to refuse the data set, however many there are.
            choice: It concerns the data set, such as the folder that was chosen: harmless, without a
                fraction.
        """
        self.counts[what] = self.counts.get(what, 0) + count
        self.first.setdefault(what, str(first))
        self.limits.setdefault(what, None if harmless or choice else self.max_fraction)
        if choice:
            self.choices.add(what)

    def notices(self, total: int) -> tuple[Notice, ...]:
        """Return a notice for each kind.

        Args:
            total: Number of objects, files or rows that the cases are counted from.
        """
        return tuple(
            Notice(what, count, 0 if what in self.choices else total, self.first[what], self.limits[what])
            for what, count in self.counts.items()
        )


def check_notices(notices: Iterable[Notice], *, path: str | None = None) -> None:
    """Refuse a data set of which too much would be left out.

    Args:
        notices: What its reader counted.
        path: The file or folder that the error names.

    Raises:
        DataError: The fraction of a notice is above its limit; the text gives count, fraction and first case.
    """
    for notice in notices:
        if notice.max_fraction is not None and notice.fraction > notice.max_fraction:
            raise DataError(
                f"Expected at most {notice.max_fraction:.1%} to be left out or changed, but {notice}\n"
                "Repair the file, or raise the limit (max_dropped=..., --checks.max_dropped) if this "
                "is what it should be.",
                path=path,
            )
