"""The images that are indexed: those of a data set of any format, or of folders, files and globs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from visionkit.data.formats.open import TASKS, detect_formats, open_dataset
from visionkit.data.formats.options import OpenOptions
from visionkit.data.splits import Splits, single_labels
from visionkit.errors import InputError, unknown_name
from visionkit.files import file_digest
from visionkit.predict.sources import source_items
from visionkit.types import Reader

__all__ = ["GalleryItem", "gallery_items", "splits_items"]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class GalleryItem:
    """An image that will be indexed, not yet read.

    Args:
        name: Its name in the data set, or its path as given.
        path: Its file, absolute; empty where it is none.
        split: Its split; empty for images that are no data set.
        label: Name of its class; empty where it has none or more than one.
        read: Gives `(3, H, W)` uint8.
    """

    name: str
    path: str
    split: str
    label: str
    read: Callable[[], Tensor]

    @property
    def key(self) -> str:
        """Return what tells it from the others: its file, or its name in its split."""
        return self.path or f"{self.split}:{self.name}"

    def digest(self) -> str:
        """Return the SHA-256 of its file, or of its pixels where there is none.

        Raises:
            OSError: The file cannot be read.
            DataError: The image cannot be read.
        """
        if self.path:
            return file_digest(self.path)
        return hashlib.sha256(self.read().contiguous().numpy().tobytes()).hexdigest()


def gallery_items(
    data: str | Path | Sequence[str | Path],
    *,
    split: Sequence[str] = ("all",),
    options: OpenOptions = OpenOptions(target=None),  # noqa: B008
) -> tuple[list[GalleryItem], list[str]]:
    """Return the images of a data set or of plain files, and what there is to say about them.

    Args:
        data: A data set of any format of `open_dataset`, "scenes", or images: a folder, a file, a glob, or a
            list of these.
        split: Of a data set: "train", "val", "test", some of them, or "all".
        options: What the caller knows of the data set.

    Raises:
        InputError: There is nothing, or a split is not there.
        DataError: The data set cannot be read.
    """
    one = data if isinstance(data, str | Path) else (data[0] if len(data) == 1 else None)
    formats = detect_formats(one) if one is not None else []
    if one is not None and (str(one) == "scenes" or formats):
        splits = open_dataset(one, formats[0].tasks[0] if formats else TASKS[0], options)
        notes = [f"notice: {notice}" for notice in splits.notices]
        return splits_items(splits, split), [f"{one}: {_format_text(formats)}", *notes]
    if tuple(split) != ("all",):
        raise InputError(f"Expected a data set for --split {' '.join(split)}, but {data} holds plain images.")
    items: dict[str, GalleryItem] = {}
    named = 0
    for item in source_items(data if isinstance(data, str | Path) else list(data)):
        path = os.path.abspath(str(item.path))  # noqa: PTH100 (links stay as they are)
        items.setdefault(path, GalleryItem(item.id, path, "", "", item.read))
        named += 1
    twice = named - len(items)
    return list(items.values()), [f"{twice:,} files were named again, and are taken once"] if twice else []


def splits_items(splits: Splits, split: Sequence[str] = ("all",)) -> list[GalleryItem]:
    """Return the images of some splits.

    Args:
        splits: The data set.
        split: "train", "val", "test", some of them, or "all".

    Raises:
        InputError: A split is not there.
    """
    there = {name: reader for name in SPLITS if (reader := getattr(splits, name)) is not None}
    for name in split:
        if name not in (*there, "all"):
            raise unknown_name("split", name, (*there, "all"))
    return [
        item
        for name, reader in there.items()
        if name in split or "all" in split
        for item in _reader_items(reader, name, splits.classes)
    ]


def _reader_items(reader: Reader, split: str, classes: Sequence[str]) -> list[GalleryItem]:
    files, ids, labels = (getattr(reader, "files", None), getattr(reader, "ids", None), single_labels(reader))

    def item(index: int) -> GalleryItem:
        path = "" if files is None else os.path.abspath(files[index])  # noqa: PTH100
        label = "" if labels is None else str(classes[labels[index]])
        name = str(index) if ids is None else str(ids[index])
        return GalleryItem(name, path, split, label, lambda: reader[index]["image"])

    return [item(index) for index in range(len(reader))]


def _format_text(formats: Sequence[object]) -> str:
    return str(getattr(formats[0], "name", "")) if formats else "embedded scenes"
