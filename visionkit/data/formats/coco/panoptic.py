"""COCO panoptic as class maps: one JSON file a split, one PNG an image whose colours number the segments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from visionkit.data.formats.coco.json_stream import stream_records
from visionkit.data.formats.masks.label_map import IGNORE
from visionkit.data.formats.masks.read_mask import raw_mask, size_error
from visionkit.data.formats.source import Source, check_reader, read_each, sound
from visionkit.data.formats.split_notices import split_notices
from visionkit.data.read_image import inside, read_image
from visionkit.data.splits import HOLDOUT, Splits, holdout, split_of
from visionkit.errors import DataError, InputError, unknown_name
from visionkit.notices import MAX_DROPPED, Notice
from visionkit.types import Reader, Sample

__all__ = ["PanopticReader", "check_panoptic", "is_panoptic", "panoptic", "read_panoptic"]

_NAME = re.compile(r"panoptic_([a-z]+)(\d*)", re.IGNORECASE)
_BACKGROUND = "background"


@dataclass(frozen=True)
class _Record:
    """An image, its PNG and the category of each of its segments."""

    image: str
    mask: str
    categories: dict[int, int]  # by the segment's id, as the PNG has it


@dataclass(frozen=True)
class PanopticReader:
    """A reader of the images of a panoptic file, with class maps.

    Pixels of no segment are ignored. With chosen categories class 0 is "background": everything else.

    Args:
        path: The JSON file.
        images: The folder of the images.
        masks: The folder of the PNG files.
        records: What the file lists.
        names: Name of each category id.
        chosen: Names of the categories that are classes; all if None.
        lonely: How many images have no annotation, of how many, and the first.
    """

    path: Path
    images: Path
    masks: Path
    records: tuple[_Record, ...]
    names: dict[int, str]
    chosen: tuple[str, ...] | None = None
    lonely: tuple[int, int, str] = (0, 0, "")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by number."""
        return tuple(self.names.values()) if self.chosen is None else (_BACKGROUND, *self.chosen)

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """Class number of each category id."""
        if self.chosen is None:
            return {each: number for number, each in enumerate(self.names)}
        return {each: self.classes.index(n) if n in self.chosen else 0 for each, n in self.names.items()}

    @property
    def ids(self) -> list[str]:
        """Names of the images."""
        return [record.image for record in self.records]

    @property
    def files(self) -> list[str]:
        """The image of each sample."""
        return [str(self.images / record.image) for record in self.records]

    @property
    def file_sizes(self) -> list[tuple[int, int]]:
        """Bytes of each image and PNG."""
        return [
            ((self.images / record.image).stat().st_size, (self.masks / record.mask).stat().st_size)
            for record in self.records
        ]

    @property
    def recipe(self) -> str:
        """What else decides the samples."""
        return f"{self.classes}{[sorted(record.categories.items()) for record in self.records]}"

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        """Read image `index` and its class map.

        Raises:
            DataError: A file cannot be read, they differ in size, or a segment is not listed.
        """
        record = self.records[index]
        image = read_image(record.image, root=self.images)
        raw = raw_mask(record.mask, root=self.masks)
        segments = raw.values
        if raw.coloured:  # id = red + 256 green + 65536 blue
            segments = (segments >> 16) | (segments & 0xFF00) | ((segments & 255) << 16)
        if segments.shape != tuple(image.shape[-2:]):
            raise size_error(
                str(self.images / record.image),
                str(self.masks / record.mask),
                tuple(image.shape[-2:]),
                segments.shape,
                root=self.masks,
            )
        values, inverse = np.unique(segments, return_inverse=True)
        numbers = np.full(len(values), IGNORE, dtype=np.int64)
        for index, value in enumerate(values.tolist()):
            if value in record.categories:
                numbers[index] = self._numbers[record.categories[value]]
            elif value:
                raise DataError(
                    f"Expected the segments of segments_info, but the PNG {record.mask} has {value}, "
                    "which is not listed.",
                    path=self.path,
                    record=record.image,
                    field="segments_info",
                )
        mask = torch.from_numpy(numbers[inverse.reshape(segments.shape)])
        height, width = segments.shape
        return {"image": image, "mask": mask, "id": record.image, "size": (height, width)}


def is_panoptic(root: str | Path) -> bool:
    """Return whether a path is a `panoptic_<split>.json`, or a folder that holds one.

    Args:
        root: Any path.
    """
    try:
        return "train" in _files(Path(root))
    except (DataError, OSError):
        return False


def panoptic(
    root: str | Path,
    *,
    categories: Sequence[str] | None = None,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Read COCO panoptic annotations as class maps.

    Looked for are `annotations/panoptic_train2017.json` beside the PNG files in a folder of the same name,
    and the images as COCO has them (`train2017/`, `images/train2017/`, `images/`).

    Args:
        root: The folder, or a JSON file, which is taken for the training split.
        categories: Names of the categories that are classes; the rest is background. All if not given.
        seed: Seed of a held-out fraction, where there is no validation file.
        max_dropped: Largest fraction of a file's images that may lack an annotation; they are left out.

    Raises:
        DataError: A file cannot be read, or a record is wrong; file, record and field are named.
        InputError: A category is not the file's, or there is no training image.
    """
    return read_panoptic(root, categories=categories, seed=seed).splits(max_dropped)


def read_panoptic(root: str | Path, *, categories: Sequence[str] | None = None, seed: int = 0) -> Source:
    """Read the JSON files of a panoptic data set; the arguments are those of `panoptic`.

    Args:
        root: The folder, or a JSON file.
        categories: Names of the categories that are classes.
        seed: Seed of the hold-out.
    """
    top = Path(root)
    files = _files(top)
    read = read_each(files.values(), lambda file: _reader(file, categories))
    return Source(
        lambda max_dropped: _splits(top, dict(zip(files, sound(read), strict=True)), seed, max_dropped),
        lambda left_out: [
            error
            for each in read
            for error in ([each] if isinstance(each, DataError) else check_reader(each))
        ],
    )


def _splits(top: Path, readers: dict[str, PanopticReader], seed: int, max_dropped: float) -> Splits:
    if "train" not in readers:
        raise DataError("Expected annotations/panoptic_train*.json, but there is none.", path=top)
    train = readers["train"]
    for split, reader in readers.items():
        if reader.classes != train.classes:
            odd = sorted(set(reader.classes) ^ set(train.classes))[:3]
            text = f"Expected the categories of {train.path.name}, but {split} differs in {odd}."
            raise DataError(text, path=reader.path, field="categories")
    if not len(train):
        raise InputError(f"Expected training images in {train.path}, but there are none.")
    facts: dict[str, Any] = {"root": str(top), "layout": "panoptic"}
    remaining: Reader = train
    val: Reader | None = readers.get("val")
    if val is None:
        remaining, val = holdout(train, HOLDOUT, seed=seed, path=top)
        facts["held_out"] = f"there is no validation file: {len(val)} training images are held out"
    notices = tuple(
        Notice(f"{split}: images without an annotation left out", *reader.lonely, max_dropped)
        for split, reader in readers.items()
        if reader.lonely[0]
    ) + split_notices(top, readers, max_dropped=max_dropped)
    return Splits(remaining, val, readers.get("test"), train.classes, top.resolve().stem, facts, notices)


def check_panoptic(root: str | Path) -> list[DataError]:
    """Read every image and PNG of a panoptic data set and return every error.

    Args:
        root: As in `panoptic`.
    """
    return read_panoptic(root).errors(True)


def _files(root: Path) -> dict[str, Path]:
    """Return the JSON file of each split.

    Raises:
        DataError: Two files claim the same split.
    """
    if root.suffix.lower() == ".json":
        return {"train": root} if _NAME.fullmatch(root.stem) and root.is_file() else {}
    files: dict[str, Path] = {}
    for folder in (root / "annotations", root):
        for file in sorted(folder.glob("panoptic_*.json")):
            matched = _NAME.fullmatch(file.stem)
            split = split_of(matched[1]) if matched else None
            if split is not None and split in files:
                raise DataError(
                    f"Expected one file of the split {split}, but also {files[split]}.", path=file
                )
            if split is not None:
                files[split] = file
    return files


def _reader(file: Path, categories: Sequence[str] | None) -> PanopticReader:
    """Read a file; every record is looked at."""
    images: dict[Any, str] = {}
    listed: list[tuple[int, dict[str, Any]]] = []
    names: dict[int, str] = {}
    for section, index, record in stream_records(file, ("images", "annotations", "categories")):
        if index < 0:
            continue
        try:
            if section == "images":
                images[record["id"]] = str(record["file_name"])
            elif section == "categories":
                names[int(record["id"])] = str(record["name"])
            else:
                listed.append((index, record))
        except (KeyError, TypeError, ValueError) as error:
            raise _record_error(file, section, index, error) from error
    if not 1 <= len(names) <= IGNORE or len(set(names.values())) < len(names):
        raise DataError(
            f"Expected 1 to {IGNORE} categories, each named once, but got {len(names)}.",
            path=file,
            field="categories",
        )
    chosen = None if categories is None else tuple(name for name in categories if name != _BACKGROUND)
    for name in chosen or ():
        if name not in names.values():
            raise unknown_name("category", name, names.values())
    records = []
    for index, record in listed:
        try:
            segments = {int(each["id"]): int(each["category_id"]) for each in record["segments_info"]}
            records.append(_Record(images[record["image_id"]], str(record["file_name"]), segments))
            unknown = sorted(set(segments.values()) - set(names))
            if unknown:
                raise DataError(
                    f"Expected a category of the file, but got {unknown[:3]}.",
                    path=file,
                    record=f"annotations[{index}]",
                    field="category_id",
                )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise _record_error(file, "annotations", index, error) from error
    with_mask = {record.image for record in records}
    without_mask = [name for name in images.values() if name not in with_mask]
    lonely = (len(without_mask), len(images), without_mask[0] if without_mask else "")
    return PanopticReader(file, _images(file), _masks(file), tuple(records), names, chosen, lonely)


def _record_error(file: Path, section: str, index: int, error: Exception) -> DataError:
    expected = {
        "images": "id and file_name",
        "categories": "id and name",
        "annotations": "image_id of a listed image, file_name and segments_info with id and category_id",
    }[section]
    got = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
    return DataError(f"Expected {expected}, but {got}.", path=file, record=f"{section}[{index}]")


def _masks(file: Path) -> Path:
    """Return the folder of the PNG files: of the JSON's name, beside it or beside its folder."""
    folders = (file.with_suffix(""), file.parent.parent / file.stem)
    folder = next((each for each in folders if each.is_dir()), None)
    if folder is None:
        raise DataError(
            f"Expected the PNG files in a folder {file.stem} beside this file, but there is none. Unpack "
            f"{file.stem}.zip there.",
            path=file,
        )
    return inside(file.parent.parent if folder == folders[1] else file.parent, folder)


def _images(file: Path) -> Path:
    """Return the folder of the images of a split."""
    matched = _NAME.fullmatch(file.stem)
    name, year = matched.groups() if matched else ("train", "")
    above = file.parent.parent if file.parent.name == "annotations" else file.parent
    folders = [f"images/{name}{year}", f"{name}{year}", f"images/{name}", name, "images"]
    return next((above / name_ for name_ in folders if (above / name_).is_dir()), above)
