"""Look through a data set of any format: every fault, and what training would leave out or assume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from visionkit.data.formats.csv.detect import table_reading
from visionkit.data.formats.open import Format, Task, detect_formats, open_dataset
from visionkit.data.formats.options import OpenOptions, SceneSizes
from visionkit.data.formats.validate import check_reader
from visionkit.data.splits import Splits
from visionkit.errors import DataError, InputError
from visionkit.notices import Notice, check_notices

__all__ = ["DatasetReport", "check_dataset", "counted"]


@dataclass(frozen=True)
class DatasetReport:
    """What a check of a data set found.

    Args:
        root: What was checked.
        format: What it was read as.
        sizes: Images of the training, validation and test split; None where it cannot be read.
        faults: Every fault; training refuses the data set because of the first.
        notices: What training would leave out, change or assume.
        reading: How the targets of a table were read, where they are not one class an image.
    """

    root: str
    format: str
    sizes: tuple[int, int, int] | None
    faults: tuple[DataError, ...]
    notices: tuple[Notice, ...] = ()
    reading: str = ""

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
        counts = f"{counted(len(self.faults), 'fault')}, {counted(len(self.notices), 'notice')}"
        told = f"{self.format}, {self.reading}" if self.reading else self.format
        lines = [f"notice: {notice}" for notice in self.notices]
        lines += [str(fault) for fault in self.faults[:max_faults]]
        more = len(self.faults) - len(self.faults[:max_faults])
        lines += [f"and {more:,} more (--most {len(self.faults)})"] if more else []
        return "\n  ".join([f"{self.root}: {told}, {sizes}: {counts}", *lines])


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
    found = detect_formats(root)
    if not found:
        task: Task = "detection" if str(root).lower().endswith(".json") else "classification"
        open_dataset(root, task, options)  # names what is missing, or lists the formats
    path = Path(root)
    return [_check(path, each, options) for each in found]


def _check(path: Path, each: Format, options: OpenOptions) -> DatasetReport:
    """Check a data set as one format."""
    task = each.tasks[0]
    refused: InputError | OSError | None = None
    try:
        splits = each.open(path, task, options)
    except (InputError, OSError) as error:
        refused = error
    # What training leaves out within its limits is a notice, no fault.
    faults = list(each.check(path, replace(options, left_out=refused is not None)))
    if refused is not None:
        try:
            splits = each.open(path, task, replace(options, max_dropped=1.0))
        except (InputError, OSError) as error:
            # A reader stops at its first fault, which the check lists; what only the reader refuses is added.
            fault = error if isinstance(error, DataError) else DataError(str(error), path=path)
            told = each.told(path, options)
            return DatasetReport(str(path), each.name, None, tuple(faults or [fault]), (), told)
        for notice in splits.notices:
            if notice.max_fraction is not None:
                try:
                    check_notices([replace(notice, max_fraction=options.max_dropped)], path=str(path))
                except DataError as fault:
                    faults.append(fault)
    return DatasetReport(
        str(path), each.name, _sizes(splits), tuple(faults), splits.notices, table_reading(splits.facts)
    )


def counted(number: int, what: str) -> str:
    """Return a number with a word, in the plural where it is not one.

    Args:
        number: How many.
        what: The word, in the singular.
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.val), 0 if splits.test is None else len(splits.test)
