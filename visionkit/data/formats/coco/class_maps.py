"""COCO files as class maps: outlines of things, and of stuff where there is a file of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from visionkit.data.formats.coco.boxes import image_errors
from visionkit.data.formats.coco.layout import coco_files
from visionkit.data.formats.coco.reader import BadBoxes, CocoReader
from visionkit.data.formats.coco.validate import Scan, scan_coco, size_error
from visionkit.data.formats.masks.label_map import IGNORE
from visionkit.data.formats.source import Source, read_each, sound
from visionkit.data.formats.split_notices import split_notices
from visionkit.data.splits import HOLDOUT, Splits, Subset, holdout
from visionkit.errors import DataError, InputError, unknown_name
from visionkit.notices import MAX_DROPPED, Notice
from visionkit.types import Reader, Sample

__all__ = ["COCO_VOC_CATEGORIES", "CocoClassMaps", "coco_class_maps", "read_coco_class_maps"]

Overlap = Literal["smallest", "ignore"]

COCO_VOC_CATEGORIES = (
    *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table"),
    *("dog", "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv"),
)
"""COCO's names of the twenty classes of Pascal VOC, in VOC's order."""

_OTHER = "other"  # the class of a stuff file that stands for every thing: what lies there, the things say
_BACKGROUND = "background"  # a category of this name is class 0 itself


class CocoClassMaps:
    """A reader that paints the objects of a `CocoReader` into one class map an image.

    Without stuff, class 0 is the background and the chosen categories follow; objects of others are
    background, as are those of a category "background". With stuff there is no background: pixels that
    nothing covers are ignored. Larger objects are painted first, so a smaller one lies on top; crowds are
    ignored where nothing else is known.

    Args:
        things: Reads the objects, with masks.
        stuff: Reads the stuff of the same images, with masks; the class "other" is not painted.
        categories: Names of the things that are classes, in their order; all of the file's if not given.
        overlap: Pixels that several objects share: of the smallest object ("smallest"), or ignored ("ignore",
            as in torchvision's references, where objects of other categories do not count).

    Attributes:
        classes: Names of the classes by number.

    Raises:
        InputError: The reader gives no masks, a category is not the file's, or there are more than 255.
        DataError: Things and stuff are not of the same images.
    """

    def __init__(
        self,
        things: CocoReader,
        *,
        stuff: CocoReader | None = None,
        categories: Sequence[str] | None = None,
        overlap: Overlap = "smallest",
    ) -> None:
        if not things.masks or (stuff is not None and not stuff.masks):
            raise InputError("Expected readers with masks. Use CocoReader(..., masks=True).")
        chosen = list(things.classes if categories is None else categories)
        for name in chosen:
            if name not in things.classes:
                raise unknown_name("category", name, things.classes)
        self.things, self.stuff, self.overlap = things, stuff, overlap
        empty = [name for name in chosen if stuff is None and name.strip("_").lower() == _BACKGROUND]
        chosen = [name for name in chosen if name not in empty]
        if not chosen:
            raise InputError(f"Expected a category besides the background, but got {things.classes}.")
        self._number = {name: index + (stuff is None) for index, name in enumerate(chosen)}
        self._number |= dict.fromkeys(empty, 0)
        self._stuff_number: dict[str, int] = {}
        if stuff is None:
            self.classes: tuple[str, ...] = (_BACKGROUND, *chosen)
        else:
            extra = [name for name in stuff.classes if name != _OTHER]
            self._stuff_number = {name: len(chosen) + index for index, name in enumerate(extra)}
            self.classes = (*chosen, *extra)
        if len(self.classes) > IGNORE or len(set(self.classes)) < len(self.classes):
            raise InputError(
                f"Expected at most {IGNORE} classes, each named once, but got {len(self.classes)}: "
                f"{', '.join(self.classes[:6])}, ... Choose some with categories."
            )
        self._stuff_at = {} if stuff is None else {name: index for index, name in enumerate(stuff.ids)}
        lonely = [] if stuff is None else [name for name in things.ids if name not in self._stuff_at]
        if stuff is not None and lonely:
            raise DataError(
                f"Expected the stuff of every image of {things.path.name}, but {len(lonely)} have none, "
                f"such as {', '.join(lonely[:3])}.",
                path=stuff.path,
                field="file_name",
            )
        self.ids = list(things.ids)
        self.files = things.files
        self.sizes = list(things.sizes)

    @property
    def recipe(self) -> str:
        """What decides the samples, for the fingerprint."""
        stuff = "" if self.stuff is None else self.stuff.recipe
        return f"{self.classes}{self.overlap}{self.things.recipe}{stuff}"

    def __len__(self) -> int:
        return len(self.things)

    def __getitem__(self, index: int) -> Sample:
        """Read image `index` and paint its class map.

        Raises:
            DataError: The image cannot be read, or has another size than its record.
        """
        sample = self.things[index]
        empty = 0 if self.stuff is None else IGNORE
        mask = np.full(sample["size"], empty, dtype=np.int64)
        if self.stuff is not None:
            at = self._stuff_at[sample["id"]]
            self.stuff.check_size(at, sample["size"])
            behind = self.stuff.objects(at)
            for outline, label in zip(behind["masks"].numpy(), behind["labels"].tolist(), strict=True):
                number = self._stuff_number.get(self.stuff.classes[label])
                if number is not None:
                    mask[outline > 0] = number
        self._paint(mask, sample, empty)
        return {
            "image": sample["image"],
            "mask": torch.from_numpy(mask),
            "id": sample["id"],
            "size": sample["size"],
        }

    def _paint(self, mask: np.ndarray, sample: Sample, empty: int) -> None:
        """Paint the objects of a sample over a map (H, W)."""
        outlines = sample["masks"].numpy() > 0  # (N, H, W)
        labels, crowd = sample["labels"].tolist(), sample["iscrowd"].numpy() > 0
        covered = np.zeros(mask.shape, dtype=np.int64)
        for row in np.argsort(-outlines.sum((1, 2)), kind="stable").tolist():
            number = self._number.get(self.things.classes[labels[row]])
            if crowd[row] or (number is None and self.overlap == "ignore"):
                continue
            mask[outlines[row]] = empty if number is None else number
            covered += outlines[row]
        if self.overlap == "ignore":
            mask[covered > 1] = IGNORE
        for row in np.flatnonzero(crowd).tolist():
            if self.things.classes[labels[row]] in self._number:
                mask[outlines[row] & (covered == 0)] = IGNORE


def coco_class_maps(
    root: str | os.PathLike[str],
    *,
    categories: Sequence[str] | None = None,
    stuff: bool | None = None,
    overlap: Overlap = "smallest",
    min_area: float = 0.0,
    bad_boxes: BadBoxes = "drop",
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of a folder of COCO files as class maps.

    For torchvision's "COCO with VOC labels": `categories=COCO_VOC_CATEGORIES, overlap="ignore",
    min_area=1000`.

    Args:
        root: As in `visionkit.data.formats.coco.boxes.coco`.
        categories: See `CocoClassMaps`.
        stuff: Whether `annotations/stuff_<split>.json` is joined; where there is one for every split if not
            given, unless categories are chosen.
        overlap: See `CocoClassMaps`.
        min_area: Training images whose chosen objects cover fewer pixels are left out.
        bad_boxes: See `visionkit.data.formats.coco.reader.CocoReader`.
        seed: Seed of the share that is held out where there is no validation file.
        max_dropped: See `visionkit.data.formats.coco.reader.CocoReader`.

    Raises:
        DataError: As `coco`, or the stuff file of a split is missing.
        InputError: As `CocoClassMaps`, or no training image is left.
    """
    source = read_coco_class_maps(
        root,
        categories=categories,
        stuff=stuff,
        overlap=overlap,
        min_area=min_area,
        bad_boxes=bad_boxes,
        seed=seed,
    )
    return source.splits(max_dropped)


def read_coco_class_maps(
    root: str | os.PathLike[str],
    *,
    categories: Sequence[str] | None = None,
    stuff: bool | None = None,
    overlap: Overlap = "smallest",
    min_area: float = 0.0,
    bad_boxes: BadBoxes = "drop",
    seed: int = 0,
) -> Source:
    """Read a folder of COCO files, each once; the arguments are those of `coco_class_maps`.

    Args:
        root: The folder or the file.
        categories: See `CocoClassMaps`.
        stuff: See `coco_class_maps`.
        overlap: See `CocoClassMaps`.
        min_area: See `coco_class_maps`.
        bad_boxes: See `visionkit.data.formats.coco.reader.CocoReader`.
        seed: Seed of the hold-out.

    Raises:
        DataError: There is no such layout, or the stuff file of a split is missing.
    """
    files = coco_files(root)
    beside = {split: _stuff_file(file) for split, (file, _) in files.items()}
    joined = all(beside.values()) and categories is None if stuff is None else stuff
    read = []
    for split, (file, images) in files.items():
        extra = beside[split] if joined else None
        if joined and extra is None:
            text = f"Expected the stuff of the split {split}, stuff_... beside this file, but there is none."
            raise DataError(text, path=file)
        scans = read_each([file] if extra is None else [file, extra], partial(scan_coco, masks=True))
        read.append(_Split(split, images, *scans))
    return Source(
        lambda max_dropped: _splits(
            Path(root), read, joined, categories, overlap, min_area, bad_boxes, seed, max_dropped
        ),
        lambda left_out: [error for each in read for error in _errors(each, left_out)],
    )


@dataclass(frozen=True)
class _Split:
    """The files of a split: its name, the folder of its images, its things, and its stuff if it is joined."""

    name: str
    images: Path
    things: Scan | DataError
    stuff: Scan | DataError | None = None


def _splits(
    root: Path,
    read: Sequence[_Split],
    joined: bool,
    categories: Sequence[str] | None,
    overlap: Overlap,
    min_area: float,
    bad_boxes: BadBoxes,
    seed: int,
    max_dropped: float,
) -> Splits:
    def reader_of(scan: Scan | DataError, images: Path) -> CocoReader:
        (known,) = sound([scan])
        return CocoReader.of_scan(
            known, images, masks=True, bad_boxes=bad_boxes, keep_empty=True, max_dropped=max_dropped
        )

    readers: dict[str, CocoClassMaps] = {}
    notices: list[Notice] = []
    for each in read:
        try:
            things = reader_of(each.things, each.images)
        except DataError as error:
            if each.name != "test" or error.field != "annotations":
                raise
            notices.append(Notice("test files without annotations, left out", 1, 1, str(error)))
            continue
        behind = None if each.stuff is None else reader_of(each.stuff, each.images)
        readers[each.name] = CocoClassMaps(things, stuff=behind, categories=categories, overlap=overlap)
    first = readers["train"]
    for split, reader in readers.items():
        if reader.classes != first.classes:
            odd = sorted(set(reader.classes) ^ set(first.classes))[:3]
            text = f"Expected the categories of {first.things.path.name}, but {split} differs in {odd}."
            raise DataError(text, path=reader.things.path, field="categories")
    facts: dict[str, Any] = {"root": str(root), "layout": "coco", "overlap": overlap, "stuff": joined}
    train = _large_enough(first, min_area, facts)
    if not len(train):
        raise InputError(f"Expected training images in {first.things.path}, but there are none.")
    val: Reader | None = readers.get("val")
    if val is None:
        train, val = holdout(train, HOLDOUT, seed=seed, path=root)
        facts["held_out"] = f"there is no validation file: {len(val)} training images are held out"
    name = root.resolve().stem
    notices += [
        replace(notice, what=f"{split}: {notice.what}")
        for split, reader in readers.items()
        for part in (reader.things, reader.stuff)
        for notice in (() if part is None else part.notices)
    ]
    notices += [*_absent(first), *split_notices(root, readers, max_dropped=max_dropped)]
    return Splits(train, val, readers.get("test"), first.classes, name, facts, tuple(notices))


def _errors(read: _Split, left_out: bool) -> list[DataError]:
    """Return everything that is wrong with the files of a split and its images, each decoded once."""
    things, stuff = read.things, read.stuff
    errors: list[DataError] = []
    for scan in (things, stuff):
        if isinstance(scan, Scan):
            errors += [*scan.errors, *((*scan.dropped, *scan.cut) if left_out else ())]
        elif scan is not None:
            errors.append(scan)
    if isinstance(things, Scan):
        errors += image_errors(things, read.images)
    if errors or not isinstance(things, Scan) or not isinstance(stuff, Scan):
        return errors
    sizes = _sizes(stuff)
    for name, size in _sizes(things).items():
        if name not in sizes:
            text = "Expected the stuff of every image, but there is none."
            errors.append(DataError(text, path=stuff.path, record=name))
        elif sizes[name] != size:
            errors.append(
                DataError(size_error(sizes[name], size), path=stuff.path, record=name, field="size")
            )
    return errors


def _sizes(scan: Scan) -> dict[str, tuple[int, int]]:
    """Return height and width of each image, as a file says, by its name."""
    sizes = scan.records.sizes.tolist()
    rows = np.flatnonzero(scan.unique).tolist()
    return {scan.records.names[row]: (sizes[row][0], sizes[row][1]) for row in rows}


def _large_enough(reader: CocoClassMaps, min_area: float, facts: dict[str, Any]) -> Reader:
    """Return the images whose chosen objects cover enough pixels, and note how many do not."""
    if min_area <= 0:
        return reader
    remaining = [index for index in range(len(reader)) if _area(reader, index) >= min_area]
    facts["left_out"] = f"{len(reader) - len(remaining)} training images with under {min_area:g} pixels"
    return Subset(reader, remaining)


def _stuff_file(file: Path) -> Path | None:
    """Return the file of stuff beside a file of instances, `stuff_*.json` beside `instances_*.json`."""
    file_of_stuff = file.with_name("stuff_" + file.name.removeprefix("instances_"))
    return file_of_stuff if file_of_stuff.is_file() else None


def _absent(reader: CocoClassMaps) -> list[Notice]:
    """Return the notice of chosen categories without an object in the training file."""
    names = reader.things.classes
    seen = {names[label] for index in range(len(reader)) for label in reader.things.areas(index)[0]}
    chosen = [name for name in reader.classes if name in names]
    absent = [name for name in chosen if name not in seen]
    if not absent:
        return []
    text = f"{', '.join(absent[:10])} in {reader.things.path.name}; they cannot be learnt"
    return [Notice("categories without an object in the training file", len(absent), len(chosen), text)]


def _area(reader: CocoClassMaps, index: int) -> float:
    """Return the pixels that the chosen objects of an image cover, as its file says."""
    labels, areas = reader.things.areas(index)
    names = reader.things.classes
    return sum(a for label, a in zip(labels, areas, strict=True) if names[label] in reader.classes)
