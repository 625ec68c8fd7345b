"""Report on a data set of any format: every error, and what training would leave out or assume."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from visionkit.data.formats.csv.detect import table_reading
from visionkit.data.formats.open import POINTS, TABLE, Format, Task, detect_formats, open_dataset
from visionkit.data.formats.options import OpenOptions, SceneSizes
from visionkit.data.formats.source import check_reader
from visionkit.data.formats.split_notices import untrained_classes
from visionkit.data.splits import Splits
from visionkit.errors import DataError, InputError
from visionkit.files import is_address
from visionkit.notices import Notice, check_notices

__all__ = ["DatasetReport", "check_dataset", "counted"]


@dataclass(frozen=True)
class DatasetReport:
    """What a check of a data set found.

    Args:
        root: What was checked.
        format: What it was read as.
        sizes: Images of the training, validation and test split; None where it cannot be read.
        errors: Every error; training refuses the data set because of the first.
        notices: What training would leave out, change or assume.
        reading: How the targets of a table were read, where they are not one class an image.
        splits: The data set; None where it cannot be read.
    """

    root: str
    format: str
    sizes: tuple[int, int, int] | None
    errors: tuple[DataError, ...]
    notices: tuple[Notice, ...] = ()
    reading: str = ""
    splits: Splits | None = field(default=None, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Return whether there is no error."""
        return not self.errors

    def __str__(self) -> str:
        """Return a summary, then every notice and error, one on a line."""
        return self.text()

    def text(self, max_errors: int | None = None) -> str:
        """Return a summary, then notices and errors, one on a line.

        Args:
            max_errors: Errors that are listed; all if not given.
        """
        sizes = "not readable"
        if self.sizes is not None:
            sizes = "{:,} train, {:,} val, {:,} test".format(*self.sizes)
        counts = f"{counted(len(self.errors), 'error')}, {counted(len(self.notices), 'notice')}"
        described = f"{self.format}, {self.reading}" if self.reading else self.format
        lines = [f"notice: {notice}" for notice in self.notices]
        lines += [str(error) for error in self.errors[:max_errors]]
        more = len(self.errors) - len(self.errors[:max_errors])
        lines += [f"and {more:,} more (--max_errors {len(self.errors)})"] if more else []
        return "\n  ".join([f"{self.root}: {described}, {sizes}: {counts}", *lines])


def check_dataset(
    root: str | Path,
    options: OpenOptions = OpenOptions(target=None),  # noqa: B008
) -> list[DatasetReport]:
    """Read every sample of a data set, whatever its format, and report all that is wrong or left out.

    Args:
        root: "scenes", a folder, a file, or the address of a pack.
        options: What the caller knows of it; without it the cells of a table tell what its targets are.

    Returns:
        A report for each format that the path holds (boxes and masks may lie in one folder).

    Raises:
        DataError: There is nothing by this name, or it is of no known format.
    """
    if str(root) == "scenes":
        splits = open_dataset("scenes", "classification", OpenOptions(scenes=SceneSizes(96, 100, 50)))
        readers = [reader for reader in (splits.train, splits.val, splits.test) if reader is not None]
        errors = tuple(error for reader in readers for error in check_reader(reader))
        return [DatasetReport("scenes", "embedded scenes", _sizes(splits), errors, splits=splits)]
    formats = detect_formats(root)
    if not formats:
        task: Task = "detection" if str(root).lower().endswith(".json") else "classification"
        open_dataset(root, task, options)  # names what is missing, or lists the formats
    if any(
        each.name == POINTS for each in formats
    ):  # it could be one of numbers, with cells that are missing
        formats = [each for each in formats if each.name != TABLE]
    path = str(root) if is_address(root) else Path(root)
    options = replace(options, check=True)
    return [_check(path, each, options) for each in formats]


def _check(path: Path | str, each: Format, options: OpenOptions) -> DatasetReport:
    """Check a data set as one format: its annotation files are read once, and every image is decoded once."""
    try:
        source = each.read(path, each.tasks[0], options)
    except (InputError, OSError) as error:
        return DatasetReport(str(path), each.name, None, (_data_error(error, path),))
    refused: InputError | OSError | None = None
    try:
        splits = source.splits(options.max_dropped)
    except (InputError, OSError) as error:
        refused = error
    # What training leaves out within its limits is a notice, no error.
    errors = source.errors(refused is not None)
    notices = list(source.notes())
    if refused is not None:
        try:
            splits = source.splits(1.0)
        except (InputError, OSError) as error:
            # A reader stops at its first error, which the check lists; what only the reader refuses is added.
            errors = errors or [_data_error(error, path)]
            reading = source.reading()
            return DatasetReport(str(path), each.name, None, tuple(errors), tuple(notices), reading)
        errors += _above_limit(splits, options.max_dropped, path)
    untrained = untrained_classes(splits) if each.tasks[0] == "classification" else ()
    notices = [*splits.notices, *untrained, *notices]
    reading = table_reading(splits.facts)
    return DatasetReport(str(path), each.name, _sizes(splits), tuple(errors), tuple(notices), reading, splits)


def _above_limit(splits: Splits, max_dropped: float, path: Path | str) -> list[DataError]:
    """Return an error for each notice of splits that more than its limit is left out."""
    errors = []
    for notice in splits.notices:
        if notice.max_fraction is not None:
            try:
                check_notices([replace(notice, max_fraction=max_dropped)], path=str(path))
            except DataError as error:
                errors.append(error)
    return errors


def _data_error(error: InputError | OSError, path: Path | str) -> DataError:
    return error if isinstance(error, DataError) else DataError(str(error), path=path)


def counted(number: int, what: str) -> str:
    """Return a number with a word, in the plural where it is not one.

    Args:
        number: How many.
        what: The word, in the singular.
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.val), 0 if splits.test is None else len(splits.test)
