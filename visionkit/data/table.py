"""A CSV file of paths and targets as a data set: one class, several classes, or numbers to regress."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from visionkit.data.read_image import inside, read_image
from visionkit.data.splits import Splits, Subset, holdout
from visionkit.data.table_rows import TableKind, TableRows, read_table
from visionkit.errors import DataError
from visionkit.types import Reader, Sample

__all__ = ["Table", "image_table"]


class Table:
    """A reader of the rows of a table.

    It offers `labels` where every target is one class.

    Args:
        table: The rows, as `read_table` understands them.
    """

    labels: Sequence[int]

    def __init__(self, table: TableRows) -> None:
        self.table = table
        self.ids: Sequence[str] = [row.image for row in table.rows]
        single = [target for target in table.targets if isinstance(target, int)]
        if len(single) == len(table.targets):
            self.labels = single
        else:
            self.recipe = repr(table.targets)

    @property
    def files(self) -> list[str]:
        """The picture of each row."""
        return [str(inside(self.table.root, row.image)) for row in self.table.rows]

    def __len__(self) -> int:
        return len(self.table.rows)

    def __getitem__(self, index: int) -> Sample:
        """Read the picture of row `index`; raise `DataError` naming table and line when it cannot be read.

        The `label` is () int64 for one class, (K,) float32 for several classes or numbers.
        """
        row, target = self.table.rows[index], self.table.targets[index]
        try:
            image = read_image(row.image, root=self.table.root)
        except DataError as error:
            text = f"The picture cannot be read. {error}"
            raise DataError(text, path=self.table.file, record=f"line {row.line}", field="path") from error
        dtype = torch.int64 if isinstance(target, int) else torch.float32
        return {
            "image": image,
            "id": row.image,
            "label": torch.tensor(target, dtype=dtype),
            "size": (image.shape[1], image.shape[2]),
        }


def image_table(
    path: str | os.PathLike[str],
    *,
    kind: TableKind = "single",
    image: str | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    classes: Sequence[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    held_out: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Return the splits of a CSV file of picture paths and targets, with a header line.

    A column `split` (train, val, test and their usual spellings) cuts the rows; without one, or without any
    "val" in it, a seeded share of the training rows is held out. Every row is checked before anything runs.

    Args:
        path: The CSV file (UTF-8, comma separated).
        kind: "single": one class a picture. "multi": any number of classes, either one 0/1 column for each,
            or one column of names between `separator`. "regression": one or more columns of numbers.
        image: The column of paths; found by its usual names (path, image, file, filename, ...) if not given.
        target: The column or columns of targets; every other column if not given.
        separator: What stands between names in the one column of a multi-label table.
        classes: The classes in order. Without it they are those of the training rows, sorted; labels that
            are all whole numbers are taken as indices from 0.
        root: The folder of the pictures; that of the file if not given. No path may leave it.
        held_out: Share of the training rows that is held out where no row is "val".
        seed: Seed of the hold-out.

    Raises:
        DataError: A row at fault, by file, line and column: a label that is no class, out of range or empty,
            a target that is no finite number, a picture that is missing or outside `root`.
        InputError: An unknown column or kind.
    """
    table = read_table(
        path, kind=kind, image=image, target=target, separator=separator, classes=classes, root=root
    )
    if table.faults:
        first, more = table.faults[0], len(table.faults) - 1
        also = f" {more} more rows are at fault; `visionkit check` lists them all." if more else ""
        raise DataError(first.message + also, path=first.path, record=first.record, field=first.field)
    whole = Table(table)
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for place, row in enumerate(table.rows):
        parts[row.split].append(place)
    if not parts["train"]:
        raise DataError("Expected rows to train on, but no row's split is 'train'.", path=table.file)
    facts: dict[str, object] = {"table": str(table.file), "kind": kind}
    train: Reader = Subset(whole, parts["train"])
    if parts["val"]:
        val: Reader = Subset(whole, parts["val"])
    else:
        size = len(train)
        train, val = holdout(train, held_out, seed=seed)
        facts["held_out"] = (
            f"no row is for validation: {len(val)} of {size} training rows are held out "
            f"(share {held_out}, seed {seed})"
        )
    test = Subset(whole, parts["test"]) if parts["test"] else None
    return Splits(train, val, test, table.classes, table.file.stem, facts)
