"""Validate folders and tables before they are used: every error at once, as a list of `DataError`s."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from visionkit.data.formats.csv.rows import TableKind, TableRows, read_table
from visionkit.data.formats.folder.layout import folder_layout, foreign_layout
from visionkit.data.formats.folder.reader import (
    class_folders,
    classes_differ,
    folder_splits,
    images_below,
    join_classes,
    open_folders,
)
from visionkit.data.formats.source import Source
from visionkit.data.read_image import MAX_PIXELS, check_images, read_image
from visionkit.data.splits import Splits
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED, check_notices

__all__ = [
    "check_folder",
    "check_rows",
    "check_table",
    "read_folder",
    "row_errors",
]


def check_folder(
    root: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, max_dropped: float = MAX_DROPPED
) -> list[DataError]:
    """Check a folder of images as `image_folder` would read it: its layout, its classes, every image.

    Args:
        root: The folder.
        max_pixels: Larger images are errors.
        max_dropped: To leave out a larger fraction of a split's images is an error.
    """
    return _folder(Path(root), max_pixels, max_dropped)


def check_table(
    path: str | os.PathLike[str],
    *,
    kind: TableKind | None = None,
    image: str | None = None,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    classes: Sequence[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    max_dropped: float = MAX_DROPPED,
) -> list[DataError]:
    """Check a table as `image_table` would read it: every row, and every image.

    Args:
        path: The CSV or TSV file.
        kind: What the targets are; detected from the cells if not given.
        image: The column of paths.
        target: The column or columns of targets.
        separator: What stands between names in a multi-label column.
        classes: The classes in order.
        root: The folder of the images.
        max_dropped: A larger fraction of rows that contradict others is an error.

    Raises:
        InputError: An unknown column or kind.
    """
    try:
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
    except DataError as error:
        return [error]
    return check_rows(table)


def check_rows(table: TableRows) -> list[DataError]:
    """Return the errors of a table's rows, of their images, and of what contradicts other rows.

    Args:
        table: The rows, as `read_table` understands them.
    """
    errors = list(table.errors)
    try:
        check_notices(table.notices, path=str(table.file))
    except DataError as error:
        errors.append(error)
    return errors + row_errors(table)[len(table.errors) :]


def row_errors(table: TableRows) -> list[DataError]:
    """Return what is wrong with the rows of a table, and with their images.

    Args:
        table: The rows, as `read_table` understands them.
    """
    errors = list(table.errors)
    for row in table.rows:
        try:
            read_image(row.image, root=table.root)
        except DataError as error:
            errors.append(row.error(f"The image cannot be read. {error}", "path"))
    return errors


def _folder(top: Path, max_pixels: int, max_dropped: float) -> list[DataError]:
    errors: list[DataError] = []
    try:
        open_folders(top, max_dropped=max_dropped)
        parts = folder_layout(top).splits
    except DataError as error:
        errors.append(error)
        parts = _parts(top)
    classes: dict[str, list[str]] = {}
    for split, folder in parts.items():
        classes[split] = class_folders(folder)
        for name in classes[split]:
            images, _, _ = images_below(folder / name)
            errors += check_images(map(os.path.abspath, images), root=top, max_pixels=max_pixels)
            if not images and not any(error.path == str(folder / name) for error in errors):
                text = f"Expected at least one image in the folder of class {name!r}, but it holds none."
                errors.append(DataError(text, path=folder / name, field="class"))
    for split, names in classes.items():
        first = next(iter(classes))
        if names != classes[first]:
            text = classes_differ(classes[first], split, names, of=first)
            errors.append(DataError(text, path=parts[split], field="class"))
    return errors


def _parts(top: Path) -> dict[str, Path]:
    """Return the folders of class folders that can be looked through although the whole cannot be read."""
    try:
        return {} if foreign_layout(top) else folder_layout(top).splits
    except (DataError, OSError):
        return {}


def read_folder(root: Path, *, seed: int = 0, unseen_classes: bool = False) -> Source:
    """List a folder of images once.

    Args:
        root: The folder.
        seed: Seed of the hold-out.
        unseen_classes: Whether splits may have other classes than that of training.
    """
    try:
        opened = open_folders(root, max_dropped=1.0)
    except DataError as error:
        failure = error

        def refuse(max_dropped: float) -> Splits:
            raise failure

        return Source(refuse, lambda left_out: check_folder(root))
    readers, notices = opened
    if unseen_classes:
        join_classes(list(readers.values()))

    def errors(left_out: bool) -> list[DataError]:
        files = [os.path.abspath(file) for reader in readers.values() for file in reader.files]  # noqa: PTH100
        first, names = next(iter(readers.items()))
        listed = check_images(files, root=root)
        for split, reader in readers.items():
            if reader.classes != names.classes:
                text = classes_differ(names.classes, split, reader.classes, of=first)
                listed.append(DataError(text, path=reader.folder, field="class"))
        return listed

    return Source(
        lambda max_dropped: folder_splits(root, readers, notices, seed=seed, max_dropped=max_dropped), errors
    )
