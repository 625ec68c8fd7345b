"""A table of paths and targets as a data set: one class, several classes, or numbers to regress."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from visionkit.data.formats.csv.rows import TableKind, TableRows, column_cells, read_table
from visionkit.data.formats.split_notices import frame_notices
from visionkit.data.formats.split_records import raise_first, split_records
from visionkit.data.read_image import inside
from visionkit.data.splits import HOLDOUT, Splits
from visionkit.data.transforms.reduced import load_image
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED
from visionkit.types import Sample

__all__ = ["Table", "image_table", "table_splits"]


class Table:
    """A reader of the rows of a table.

    It offers `labels` where every target is one class, else `targets`. The id of a row is its path, with the
    line behind it where that is named again.

    Args:
        table: The rows, as `read_table` understands them.
    """

    labels: Sequence[int]

    def __init__(self, table: TableRows) -> None:
        self.table = table
        seen: set[str] = set()
        ids = []
        for row in table.rows:
            ids.append(f"{row.image} (line {row.line})" if row.image in seen else row.image)
            seen.add(row.image)
        self.ids: Sequence[str] = ids
        single = [target for target in table.targets if isinstance(target, int)]
        if len(single) == len(table.targets):
            self.labels = single
        else:
            self.targets: Sequence[Any] = table.targets
            self.recipe = repr(table.targets)

    @property
    def files(self) -> list[str]:
        """The image of each row."""
        return [str(inside(self.table.root, row.image)) for row in self.table.rows]

    def column(self, name: str) -> list[str] | None:
        """Return the cell of each row in a column of the file, stripped; None where it has no such column.

        Args:
            name: As in the header.

        Raises:
            DataError: The file has changed since it was read.
        """
        return column_cells(self.table, name)

    def __len__(self) -> int:
        return len(self.table.rows)

    def __getitem__(self, index: int) -> Sample:
        """Read the image of row `index`; raise `DataError` naming table and line when it cannot be read.

        The `label` is () int64 for one class, (K,) float32 for several classes or numbers.
        """
        row, target = self.table.rows[index], self.table.targets[index]
        try:
            image = load_image(row.image, root=self.table.root)
        except DataError as error:
            raise row.error(f"The image cannot be read. {error}", "path") from error
        dtype = torch.int64 if isinstance(target, int) else torch.float32
        return {
            "image": image,
            "id": self.ids[index],
            "label": torch.tensor(target, dtype=dtype),
            "size": (image.shape[1], image.shape[2]),
        }


def image_table(
    path: str | os.PathLike[str],
    *,
    kind: TableKind | None = "single",
    image: str | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    classes: Sequence[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    held_out: float = HOLDOUT,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of a CSV or TSV file of image paths and targets, with a header line.

    A column `split` (train, val, test and their usual spellings) cuts the rows; without one, or without any
    "val" in it, a seeded fraction of the training rows is held out, all rows of an image on one side. Every
    row is checked before anything runs. What was assumed, or looks like a mistake, stands in `notices`.

    Args:
        path: The file, in UTF-8; commas, semicolons, tabs or bars stand between its columns.
        kind: "single": one class an image. "multi": any number of classes, either one 0/1 column for each,
            or one column of names between `separator`. "regression": one or more columns of numbers.
            None: detected from the cells.
        image: The column of paths; found by its usual names (path, image, file, filename, ...) if not given.
            A path may lack its ending where one image fits.
        target: The column or columns of targets; every other column if not given, or with kind "single" the
            one that is called label, class, category or target.
        separator: What stands between names in the one column of a multi-label table.
        classes: The classes in order; labels that are whole numbers and none of these names are indices into
            them, from 0. Without it the classes are the labels that occur in training rows, in numeric order
            if all of them are whole numbers, else sorted as text.
        root: The folder of the images. If not given it is that of the file, or the one folder below it that
            holds the images. No path may leave it.
        held_out: Fraction of the training rows that is held out where no row is "val".
        seed: Seed of the hold-out.
        max_dropped: Largest fraction of the rows that may contradict others.

    Raises:
        DataError: A wrong row, by file, line and column: a label that is no class, out of range or empty,
            a target that is no finite number, an image that is missing or outside `root`. Or too many images
            that are in two splits or have two classes.
        InputError: An unknown column or kind.
    """
    table = read_table(
        path,
        kind=kind,
        image=image,
        target=target,
        separator=separator,
        classes=classes,
        root=root,
        max_dropped=max_dropped,
    )
    return table_splits(table, held_out=held_out, seed=seed)


def table_splits(table: TableRows, *, held_out: float = HOLDOUT, seed: int = 0) -> Splits:
    """Return the splits of a table whose lines are understood.

    Args:
        table: The rows.
        held_out: Fraction of the training rows that is held out where no row is "val".
        seed: Seed of the hold-out.

    Raises:
        DataError: A row is wrong, or none is for training.
    """
    raise_first(table.errors, "rows")
    full = Table(table)
    train, val, test, held = split_records(
        full,
        [row.split for row in table.rows],
        [row.image for row in table.rows],
        unit="row",
        missing="Expected rows to train on, but no row's split is 'train'.",
        path=table.file,
        held_out=held_out,
        seed=seed,
    )
    facts: dict[str, object] = {"table": str(table.file), "kind": table.kind, **held}
    if table.separator is not None:
        facts["separator"] = table.separator
    notices = table.notices + frame_notices(str(table.root / row.image) for row in table.rows)
    return Splits(train, val, test, table.classes, _name(table.file), facts, notices)


def _name(file: Path) -> str:
    return file.parent.resolve().name if file.name.startswith("metadata.") else file.stem
