"""`metrics.csv` of a run that may be writing it: read on from where the last reading ended."""

from __future__ import annotations

import csv
import math
from pathlib import Path

__all__ = ["MetricsFile"]

_COLUMNS = 6
_MAX_STEP = 8 * 2**20  # bytes of one reading; the rest is taken by the next


class MetricsFile:
    """The rows of `metrics.csv`, as many as are complete.

    A resumed run writes the file anew: then all is read again under another `generation`.

    Args:
        path: The file; it need not be there yet.

    Attributes:
        rows: `(name, images, value)` in the order of the file; values that are not finite are left out.
        generation: Counts how often the file was begun anew.
        unreadable: Rows that were left out because they are no rows of the table.
        images: The largest number of images seen.
        epoch: The epoch of the last row.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.generation = 0
        self._begin()

    def _begin(self) -> None:
        self.rows: list[tuple[str, int, float]] = []
        self.unreadable = 0
        self.images = 0
        self.epoch = 0
        self._offset = 0
        self._inode = 0

    def update(self) -> bool:
        """Read what was added; return whether something was. A last line without its end waits for it."""
        try:
            with self.path.open("rb") as file:
                status = self.path.stat()
                # A file that is written anew is another one (it is renamed into place), or shorter.
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self.generation += self._offset > 0
                    self._begin()
                    self._inode = status.st_ino
                file.seek(self._offset)
                chunk = file.read(_MAX_STEP)
        except OSError:
            return False
        complete = chunk[: chunk.rfind(b"\n") + 1]
        if not complete:
            return False
        if self._offset == 0:
            complete_rows = complete.decode("utf-8", "replace").splitlines()[1:]
        else:
            complete_rows = complete.decode("utf-8", "replace").splitlines()
        self._offset += len(complete)
        for row in csv.reader(complete_rows):
            self._add(row)
        return True

    def _add(self, row: list[str]) -> None:
        if not row:
            return
        try:
            if len(row) != _COLUMNS:
                raise ValueError
            epoch, images, value = int(row[1]), int(row[2]), float(row[5])
        except ValueError:
            self.unreadable += 1
            return
        self.epoch, self.images = epoch, max(self.images, images)
        if math.isfinite(value):
            self.rows.append((f"{row[3]}/{row[4]}", images, value))
