"""Look through a data set of any format: every fault, and what training would leave out or assume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from visionkit.data.check import check_reader
from visionkit.data.formats.open import Format, OpenOptions, SceneSizes, detect_formats, open_dataset
from visionkit.data.notices import Notice, check_share
from visionkit.data.splits import Splits
from visionkit.errors import DataError

__all__ = ["DatasetReport", "check_dataset"]


@dataclass(frozen=True)
class DatasetReport:
    """What a check of a data set found.

    Args:
        root: What was checked.
        format: What it was read as.
        sizes: Images of the training, validation and test split; None where it cannot be read.
        faults: Every fault; training refuses the data set because of the first.
        notices: What training would leave out, change or assume.
    """

    root: str
    format: str
    sizes: tuple[int, int, int] | None
    faults: tuple[DataError, ...]
    notices: tuple[Notice, ...] = ()

    @property
    def ok(self) -> bool:
        """Return whether there is no fault."""
        return not self.faults

    def __str__(self) -> str:
        """Return a summary, then every notice and fault, one on a line."""
        return self.text()

    def text(self, max_faults: int | None = None) -> str:
        """Return a summary, then notices and faults, one on a line.

        Args:
            max_faults: Faults that are listed; all if not given.
        """
        sizes = "not readable"
        if self.sizes is not None:
            sizes = "{:,} train, {:,} val, {:,} test".format(*self.sizes)
        counts = f"{len(self.faults):,} faults, {len(self.notices):,} notices"
        lines = [f"notice: {notice}" for notice in self.notices]
        lines += [str(fault) for fault in self.faults[:max_faults]]
        more = len(self.faults) - len(self.faults[:max_faults])
        lines += [f"and {more:,} more (--most {len(self.faults)})"] if more else []
        return "\n  ".join([f"{self.root}: {self.format}, {sizes}: {counts}", *lines])


def check_dataset(
    root: str | Path,
    options: OpenOptions = OpenOptions(target=None),  # noqa: B008
) -> list[DatasetReport]:
    """Read every sample of a data set, whatever its format, and report all that is wrong or left out.

    Args:
        root: "scenes", a folder or a file.
        options: What the caller knows of it; what the targets of a table are is told by its cells without.

    Returns:
        A report for each format that the path holds (boxes and masks may lie in one folder).

    Raises:
        DataError: There is nothing by this name, or it is of no known format.
    """
    if str(root) == "scenes":
        splits = open_dataset("scenes", "classification", OpenOptions(scenes=SceneSizes(96, 100, 50)))
        readers = [reader for reader in (splits.train, splits.val, splits.test) if reader is not None]
        faults = tuple(fault for reader in readers for fault in check_reader(reader))
        return [DatasetReport("scenes", "embedded scenes", _sizes(splits), faults)]
    path = Path(root)
    found = detect_formats(path) if path.exists() else []
    if not found:
        open_dataset(path, "classification", options)  # names what is missing, or lists the formats
    return [_check(path, each, options) for each in found]


def _check(path: Path, each: Format, options: OpenOptions) -> DatasetReport:
    """Check a data set as one format."""
    faults = list(each.check(path, options))
    try:
        splits = each.open(path, each.tasks[0], replace(options, max_dropped=1.0))
    except DataError as fault:
        # A reader stops at its first fault, which the check lists; what only the reader refuses is added.
        return DatasetReport(str(path), each.name, None, tuple(faults or [fault]))
    for notice in splits.notices:
        if notice.max_share is not None:
            try:
                check_share([replace(notice, max_share=options.max_dropped)], path=str(path))
            except DataError as fault:
                faults.append(fault)
    return DatasetReport(str(path), each.name, _sizes(splits), tuple(faults), splits.notices)


def _sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.val), 0 if splits.test is None else len(splits.test)
