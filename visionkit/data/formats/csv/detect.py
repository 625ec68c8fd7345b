"""Tables of images as one of the formats: find the file, read it, and describe its targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from visionkit.data.formats.csv.reader import table_splits
from visionkit.data.formats.csv.rows import TableRows, is_image_table, may_be_image_table, read_table
from visionkit.data.formats.folder.reader import is_image_folder
from visionkit.data.formats.huggingface.reader import METADATA_FILES
from visionkit.data.formats.options import OpenOptions
from visionkit.data.formats.source import Source, with_limit
from visionkit.data.formats.validate import row_errors

__all__ = ["read_table_source", "table_file", "table_reading", "table_source"]


def read_table_source(path: Path, options: OpenOptions) -> Source:
    """Read a table, or the only one in a folder.

    Args:
        path: The file or the folder.
        options: Which columns are read, and how.

    Raises:
        DataError: The file is no table.
        InputError: An unknown column.
    """
    table = read_table(table_file(path) or path, **_arguments(options), max_dropped=options.max_dropped)
    return table_source(table, options.seed)


def table_source(table: TableRows, seed: int) -> Source:
    """Return the source of a table whose lines are understood.

    Args:
        table: The rows.
        seed: Seed of the hold-out.
    """
    return Source(
        lambda max_dropped: table_splits(
            replace(table, notices=with_limit(table.notices, max_dropped)), seed=seed
        ),
        lambda left_out: row_errors(table),
        reading=lambda: table_reading({"kind": table.kind, "separator": table.separator}),
    )


def _arguments(options: OpenOptions) -> dict[str, Any]:
    """Return the arguments of a reader of tables; what was left out is found by its usual names."""
    table = options.table
    columns = {"image": table.image, "target": table.target, "separator": table.separator, "root": table.root}
    how = {"kind": options.target, "unseen_classes": options.unseen_classes}
    return how | {name: value or None for name, value in columns.items()}


def table_reading(facts: Mapping[str, Any]) -> str:
    """Return how the targets of a table were read, and how to train on them; "" where each is one class.

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
