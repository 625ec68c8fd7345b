"""The list of the errors of one file, which also counts them as notices."""

from __future__ import annotations

from pathlib import Path

from visionkit.errors import DataError
from visionkit.notices import NoticeCounter

__all__ = ["ErrorList"]


class ErrorList:
    """Errors in the order they are added; of one kind the first thousand, and how many more there are.

    Args:
        path: The file they are in.
        counter: Counts the errors that are notices.
        max_of_kind: How many of a kind are listed.
    """

    def __init__(self, path: Path, *, counter: NoticeCounter | None = None, max_of_kind: int = 1000) -> None:
        self.path = path
        self.counter = counter
        self.max_of_kind = max_of_kind
        self._items: list[DataError] = []
        self.uncounted: list[DataError] = []
        self._count: dict[str, int] = {}

    def add(
        self,
        message: str,
        *,
        record: str | None,
        field: str | None,
        kind: str = "",
        notice: str = "",
        harmless: bool = False,
        counted: bool = False,
    ) -> None:
        """Add an error.

        Args:
            message: What was expected, what came.
            record: The record that has the error.
            field: The field that has the error.
            kind: Errors of one kind and field are counted together.
            notice: What is counted, in the plural; "" if the error is no notice.
            harmless: Whether it is never a reason to refuse the file.
            counted: Whether the caller has counted it.
        """
        if notice and self.counter is not None:
            first = self.counter.first.get(notice)
            text = first or DataError(message, path=self.path, record=record, field=field)
            self.counter.add(notice, text, harmless=harmless)
        key = f"{field}|{kind}"
        self._count[key] = self._count.get(key, 0) + 1
        if self._count[key] <= self.max_of_kind:
            item = DataError(message, path=self.path, record=record, field=field)
            self._items.append(item)
            self.uncounted += [] if notice or counted else [item]

    def all(self) -> list[DataError]:
        """Return the listed errors, and for each kind with more of them how many more."""
        rest = [
            DataError(
                f"And {count - self.max_of_kind:,} more of this kind.",
                path=self.path,
                field=key.split("|")[0],
            )
            for key, count in self._count.items()
            if count > self.max_of_kind
        ]
        return self._items + rest

    def __len__(self) -> int:
        return sum(self._count.values())
