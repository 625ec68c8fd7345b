"""`metrics_wide.csv`: a row a validation, with every value of it, the learning rates and the time."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path

from visionkit.files import write_atomic

__all__ = ["WideTable"]

_FIRST = ("epoch", "step", "images", "seconds")


class WideTable:
    """A row for each validation; the file is small, and written anew with each.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: dict[int, dict[str, str]] = {}  # by images
        self._before = 0.0
        self._began = time.monotonic()

    def rewind(self, images: int) -> None:
        """Begin with the rows of an earlier start up to `images` seen; time goes on from the last of them."""
        self._rows, self._before, self._began = {}, 0.0, time.monotonic()
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
                for row in csv.DictReader(file):
                    if str(row.get("images")).isdigit() and int(row["images"]) <= images:
                        self._rows[int(row["images"])] = {name: value for name, value in row.items() if value}
        for row in self._rows.values():
            self._before = max(self._before, float(row.get("seconds", 0)))
        self._write()

    def add(
        self, values: Mapping[str, float], rates: Mapping[str, float], *, epoch: int, step: int, images: int
    ) -> None:
        """Add the values of a validation, or of the training that ended with it.

        Args:
            values: "val/top1" and so on; those of training count only where a validation was made.
            rates: Learning rates by "lr/GROUP".
            epoch: Epochs that are done.
            step: Updates.
            images: Images seen.
        """
        if images not in self._rows and not any(name.startswith("val/") for name in values):
            return
        seconds = self._before + time.monotonic() - self._began
        new = {"epoch": str(epoch), "step": str(step), "images": str(images), "seconds": f"{seconds:.1f}"}
        row = self._rows.setdefault(images, new)
        row |= {name: repr(float(value)) for name, value in {**rates, **values}.items()}
        self._write()

    def _write(self) -> None:
        if not self._rows and not self.path.exists():
            return
        names = dict.fromkeys(name for row in self._rows.values() for name in row)
        order = sorted(names, key=lambda name: (name not in _FIRST, name.partition("/")[0] != "lr"))

        def write(part: Path) -> None:
            with part.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, order, restval="")
                writer.writeheader()
                writer.writerows(self._rows[images] for images in sorted(self._rows))

        write_atomic(self.path, write, durable=False)
