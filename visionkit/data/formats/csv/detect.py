"""Tables of images as one of the formats: which file it is, how it is read, and how its cells were told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visionkit.data.formats.csv.reader import image_table
from visionkit.data.formats.csv.rows import is_image_table, may_be_image_table, read_table
from visionkit.data.formats.folder.reader import is_image_folder
from visionkit.data.formats.huggingface.reader import METADATA_FILES
from visionkit.data.formats.options import OpenOptions
from visionkit.data.formats.validate import check_table
from visionkit.data.splits import Splits
from visionkit.errors import DataError, InputError

__all__ = ["check_table_of", "open_table", "table_file", "table_reading", "told_reading"]


def open_table(path: Path, task: str, options: OpenOptions) -> Splits:
    """Read a table, or the only one in a folder.

    Args:
        path: The file or the folder.
        task: Always classification.
        options: Which columns are read, and how.
    """
    return image_table(
        table_file(path) or path,
        **_asked(options),
        seed=options.seed,
        max_dropped=options.max_dropped,
    )


def check_table_of(path: Path, options: OpenOptions) -> Sequence[DataError]:
    """Return every fault of a table, or of the only one in a folder.

    Args:
        path: The file or the folder.
        options: Which columns are read, and how.
    """
    return check_table(
        table_file(path) or path,
        **_asked(options),
    )


def _asked(options: OpenOptions) -> dict[str, Any]:
    """Return the arguments of a reader of tables; what was left out is found by its usual names."""
    table = options.table
    columns = {"image": table.image, "target": table.target, "separator": table.separator, "root": table.root}
    return {"kind": options.target} | {name: value or None for name, value in columns.items()}


def table_reading(facts: Mapping[str, Any]) -> str:
    """Say how the targets of a table were read, and how to train on them; "" where each is one class.

    Args:
        facts: The `facts` of its `Splits`.
    """
    kind, separator = facts.get("kind"), facts.get("separator")
    if kind == "regression":
        return "read as numbers to predict: train with --target regression"
    if kind != "multi":
        return ""
    if separator is None:
        return "read as several labels: train with --target multi"
    return (
        f"read as several labels separated by {separator!r}: train with --target multi "
        f"--table.separator {separator!r}"
    )


def told_reading(path: Path, options: OpenOptions) -> str:
    """Say how the targets of a table are read although rows of it are at fault; it never raises.

    Args:
        path: The file or the folder.
        options: Which columns are read, and how.
    """
    try:
        rows = read_table(
            table_file(path) or path,
            **_asked(options),
        )
    except (InputError, OSError):
        return ""
    return table_reading({"kind": rows.kind, "separator": rows.separator})


def table_file(path: Path) -> Path | None:
    """Return the table that a path may be, or the only one of images in a folder without class folders.

    Args:
        path: The file or the folder.
    """
    if path.is_file():
        return path if may_be_image_table(path) else None
    if not path.is_dir() or is_image_folder(path):
        return None
    tables = [
        file for file in sorted(path.iterdir()) if is_image_table(file) and file.name not in METADATA_FILES
    ]
    return tables[0] if len(tables) == 1 else None
