"""The logger of `metrics.csv`, which every run writes: a row a value, exact after any number of resumes.

It also keeps `metrics_wide.csv`, the same for spreadsheets: a row a validation.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from visionkit.files import write_atomic
from visionkit.run.callbacks.wide_table import WideTable

__all__ = ["MetricsCSVLogger"]

HEADER = ("step", "epoch", "images", "split", "name", "value")


class MetricsCSVLogger(Logger):
    """Writes `metrics.csv`: step, epoch, images, split, name, value. Learning rates have the split "lr".

    Args:
        path: The file.
        images: Returns the images seen so far.
        rates: Returns the learning rates by name.

    Attributes:
        latest: The latest value of each name.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        images: Callable[[], int],
        rates: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.images = images
        self.rates = rates
        self.wide = WideTable(self.path.with_name(f"{self.path.stem}_wide.csv"))
        self.latest: dict[str, float] = {}
        self._epoch = 0

    @property
    def name(self) -> str:
        """The name of the logger, for Lightning."""
        return "table"

    @property
    def version(self) -> str:
        """The version, for Lightning; a run has one table."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any) -> None:
        """Do nothing: `config.yaml` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row for each value."""
        self._epoch = int(metrics.get("epoch", self._epoch))
        self.latest.update(metrics)
        images, rates = self.images(), self.rates()
        trained = any(name.startswith("train/") for name in metrics)
        with self._open("a") as handle:
            writer = csv.writer(handle)
            for key, value in {**metrics, **(rates if trained else {})}.items():
                split, slash, name = key.partition("/")
                if slash and split in ("train", "val", "test", "lr"):
                    writer.writerow((step or 0, self._epoch, images, split, name, repr(float(value))))
        rows = {name: value for name, value in metrics.items() if name.startswith(("train/", "val/"))}
        self.wide.add(rows, rates, epoch=self._epoch + 1, step=step or 0, images=images)

    @rank_zero_only
    def rewind(self, images: int) -> None:
        """Drop the rows after `images` seen and those of the test split: a resumed run writes them again."""
        rows = [HEADER]
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as handle:
                table = [tuple(row) for row in csv.reader(handle)][1:]
            # Rows that a kill or a full disk cut short are dropped too.
            complete = [row for row in table if len(row) == 6 and row[2].isdigit()]
            rows += [row for row in complete if int(row[2]) <= images and row[3] != "test"]

        def write(part: Path) -> None:
            with part.open("w", newline="", encoding="utf-8") as handle:
                csv.writer(handle).writerows(rows)

        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, write)
        self.wide.rewind(images)

    def _open(self, mode: str) -> Any:
        if not self.path.exists():
            self.rewind(0)
        return self.path.open(mode, newline="", encoding="utf-8")
