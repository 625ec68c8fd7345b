"""Look through a data set before it is used, and report every fault at once.

A fault is a `DataError`: file, record, field, and what was expected, what came, what to do. The validators
return lists of them and raise nothing for a fault in the data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from visionkit.data.formats.csv.rows import TableKind, TableRows, read_table
from visionkit.data.formats.folder.layout import folder_layout, foreign_layout
from visionkit.data.formats.folder.reader import class_folders, classes_differ, images_below, open_folders
from visionkit.data.read_image import MAX_PIXELS, read_image
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED, check_notices
from visionkit.types import Reader

__all__ = [
    "check_folder",
    "check_images",
    "check_reader",
    "check_rows",
    "check_table",
]


def check_images(
    files: Iterable[str | os.PathLike[str]],
    *,
    root: str | os.PathLike[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[DataError]:
    """Decode every image and return the faults.

    Args:
        files: Paths of images.
        root: Images outside this folder, once links are resolved, are faults.
        max_pixels: Larger images are faults.
    """
    faults = []
    for file in files:
        try:
            read_image(os.path.abspath(file), root=root, max_pixels=max_pixels)  # noqa: PTH100
        except DataError as fault:
            faults.append(fault)
    return faults


def check_reader(reader: Reader) -> list[DataError]:
    """Read every sample of a reader and return the faults.

    Args:
        reader: Any reader, one of yours too.
    """
    faults = []
    for index in range(len(reader)):
        try:
            reader[index]
        except DataError as fault:
            faults.append(fault)
    return faults


def check_folder(
    root: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, max_dropped: float = MAX_DROPPED
) -> list[DataError]:
    """Check a folder of images as `image_folder` would read it: its layout, its classes, every image.

    Args:
        root: The folder.
        max_pixels: Larger images are faults.
        max_dropped: To leave out a larger share of a split's images is a fault.
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
        kind: What the targets are; told by the cells if not given.
        image: The column of paths.
        target: The column or columns of targets.
        separator: What stands between names in a multi-label column.
        classes: The classes in order.
        root: The folder of the images.
        max_dropped: A larger share of rows that contradict others is a fault.

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
    except DataError as fault:
        return [fault]
    return check_rows(table)


def check_rows(table: TableRows) -> list[DataError]:
    """Return the faults of a table's rows, of their images, and of what contradicts other rows.

    Args:
        table: The rows, as `read_table` understands them.
    """
    faults = list(table.faults)
    try:
        check_notices(table.notices, path=str(table.file))
    except DataError as fault:
        faults.append(fault)
    for row in table.rows:
        try:
            read_image(row.image, root=table.root)
        except DataError as fault:
            faults.append(row.fault(f"The image cannot be read. {fault}", "path"))
    return faults


def _folder(top: Path, max_pixels: int, max_dropped: float) -> list[DataError]:
    faults: list[DataError] = []
    try:
        open_folders(top, max_dropped=max_dropped)
        parts = folder_layout(top).splits
    except DataError as fault:
        faults.append(fault)
        parts = _parts(top)
    classes: dict[str, list[str]] = {}
    for split, folder in parts.items():
        classes[split] = class_folders(folder)
        for name in classes[split]:
            images, _ = images_below(folder / name)
            faults += check_images(images, root=top, max_pixels=max_pixels)
            if not images and not any(fault.path == str(folder / name) for fault in faults):
                text = f"Expected at least one image in the folder of class {name!r}, but it holds none."
                faults.append(DataError(text, path=folder / name, field="class"))
    for split, names in classes.items():
        first = next(iter(classes))
        if names != classes[first]:
            text = classes_differ(classes[first], split, names, of=first)
            faults.append(DataError(text, path=parts[split], field="class"))
    return faults


def _parts(top: Path) -> dict[str, Path]:
    """Return the folders of class folders that can be looked through although the whole cannot be read."""
    try:
        return {} if foreign_layout(top) else folder_layout(top).splits
    except (DataError, OSError):
        return {}
