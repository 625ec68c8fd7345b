"""Pascal VOC annotations: one XML file an image, in VOC's own folders or beside the images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from visionkit.data.boxes import BAD_BOXES, CUT, MAX_CUT
from visionkit.data.formats.box_splits import validation_split
from visionkit.data.formats.source import Source
from visionkit.data.formats.split_notices import split_notices
from visionkit.data.formats.voc.layout import VocPart, is_voc, voc_parts
from visionkit.data.formats.voc.records import (
    BY_NAME,
    MULTIPLE,
    VocAnnotation,
    VocEntry,
    parse_annotation,
)
from visionkit.data.read_image import inside, read_image
from visionkit.data.splits import Splits
from visionkit.data.truth import make_truth
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED, Notice, NoticeCounter, check_notices
from visionkit.types import Sample, Truth

__all__ = ["VocReader", "check_voc", "is_voc", "read_voc", "voc"]

BadBoxes = Literal["drop", "raise"]
_MISSING = "annotations without an image, left out"
_UNNAMED = "images without an annotation file, left out"
_NO_ANNOTATION = "images of a list without an annotation file, left out"
_AGAIN = "names listed twice"
_LEFT_OUT = ("bndbox", "image")  # fields whose errors leave out a box or an image, not the data set


class VocReader:
    """A reader of the images a list names, with their boxes.

    The image of an annotation is the one of its own name, not that of `<filename>`: annotations are
    copied and renamed. Boxes for training are cut at the border of the image; `truth` holds them as the
    file does. A box without an area counts in neither.

    Args:
        root: The folder that holds the images and annotations; no file outside it is opened.
        names: The images, without suffix, as in `ImageSets/Main/*.txt`.
        classes: Names of the classes by label; all names that occur, sorted, if not given.
        bad_boxes: A box without area or outside its image is left out and kept in `dropped` ("drop"), or
            is an error ("raise"), as is then one that must be cut, and an annotation whose image is not
            there. Every other error is an error always.
        keep_empty: Keep images without objects.
        one_based: Coordinates begin at 1 and include the last pixel, as in the original VOC files.
        folders: The folders of the images and of the annotations, from `root`.
        max_dropped: Fraction of the objects (and of the images) that may be left out; more is an error.

    Attributes:
        dropped: The boxes left out, as errors.
        notices: What was left out, cut or assumed, counted.

    Raises:
        DataError: A file that is missing or cannot be read as an annotation; the first of all its errors.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        names: Sequence[str],
        *,
        classes: Sequence[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
        one_based: bool = False,
        folders: tuple[str, str] = ("JPEGImages", "Annotations"),
        max_dropped: float = MAX_DROPPED,
    ) -> None:
        part = VocPart.of(Path(root), folders, names)
        annotations = [parse_annotation(part, name, one_based=one_based) for name in names]
        self._open(part, annotations, classes, bad_boxes, keep_empty, max_dropped)

    @classmethod
    def of_part(
        cls,
        part: VocPart,
        annotations: Sequence[VocAnnotation],
        *,
        bad_boxes: BadBoxes = "drop",
        max_dropped: float = MAX_DROPPED,
    ) -> VocReader:
        """Return the reader of a split that `voc_parts` found.

        Args:
            part: The split.
            annotations: What was read of each of its names.
            bad_boxes: See `VocReader`.
            max_dropped: See `VocReader`.
        """
        reader = cls.__new__(cls)
        reader._open(part, annotations, None, bad_boxes, True, max_dropped)
        return reader

    def _open(
        self,
        part: VocPart,
        annotations: Sequence[VocAnnotation],
        classes: Sequence[str] | None,
        bad_boxes: BadBoxes,
        keep_empty: bool,
        max_dropped: float,
    ) -> None:
        self.root = part.root
        self.dropped: list[DataError] = []
        objects, images = (NoticeCounter(max_fraction=max_dropped) for _ in range(2))
        parsed: list[VocEntry] = []
        for annotation in annotations:
            for error in annotation.errors:
                # A file that cannot be read is an error; a box, or an image that is not there, is left out.
                if bad_boxes == "raise" or error.field not in _LEFT_OUT:
                    raise error
                (images if error.field == "image" else objects).add(
                    _MISSING if error.field == "image" else BAD_BOXES, error
                )
                self.dropped += [error] if error.field == "bndbox" else []
            for what, error in annotation.counted:
                if bad_boxes == "raise" and what == CUT:
                    raise error
                counter = objects if what == CUT else images
                counter.add(what, error, harmless=what in (BY_NAME, MULTIPLE))
            if annotation.entry is not None and (keep_empty or annotation.entry.boxes):
                parsed.append(annotation.entry)
        if CUT in objects.limits:
            objects.limits[CUT] = max(MAX_CUT, max_dropped)
        for what, errors, harmless in (
            (_NO_ANNOTATION, part.missing, False),
            (_AGAIN, part.twice, True),
            (_UNNAMED, part.unlabelled, True),
        ):
            if errors:
                images.add(what, errors[0], count=len(errors), harmless=harmless)
        if bad_boxes == "raise" and part.missing:
            raise part.missing[0]
        total = len(part.names) + len(part.missing) + len(part.twice) + len(part.unlabelled)
        number = sum(entry.objects for entry in parsed)
        self.notices = (*objects.notices(number), *images.notices(total))
        check_notices(self.notices, path=str(part.root))
        self._entries = parsed
        self.ids: Sequence[str] = [entry.id for entry in parsed]
        self.sizes: Sequence[tuple[int, int]] = [entry.size for entry in parsed]
        occurring = sorted({label for entry in parsed for label in entry.labels})
        self.set_classes(occurring if classes is None else classes)

    def set_classes(self, classes: Sequence[str]) -> None:
        """Give the classes their numbers.

        Args:
            classes: Names of the classes by label.

        Raises:
            DataError: An object has another class.
        """
        self.classes = tuple(classes)
        self._number = {label: index for index, label in enumerate(self.classes)}
        for entry in self._entries:
            unexpected = [label for label in entry.labels if label not in self._number]
            if unexpected:
                raise DataError(
                    f"Expected one of the classes {', '.join(self.classes)}, but got {unexpected[0]!r}.",
                    path=entry.path,
                    field="name",
                )

    @property
    def recipe(self) -> str:
        """Everything annotated, for the fingerprint."""
        return repr(
            [(e.id, e.labels, e.boxes, *([e.full] if e.full != e.boxes else [])) for e in self._entries]
        )

    @property
    def files(self) -> list[str]:
        """The image of each annotation."""
        return [str(inside(self.root, entry.image)) for entry in self._entries]

    @property
    def object_counts(self) -> list[int]:
        """How many objects each image has, those marked difficult left out."""
        return [entry.difficult.count(0) for entry in self._entries]

    def __len__(self) -> int:
        return len(self._entries)

    def truth(self, index: int) -> Truth:
        """Return the objects of image `index` as the file has them, without opening it."""
        entry = self._entries[index]
        labels = [self._number[label] for label in entry.labels]
        return make_truth(entry.full, labels, iscrowd=entry.difficult)

    def __getitem__(self, index: int) -> Sample:
        """Read image `index`; raise `DataError` when it cannot be read or has another size."""
        entry = self._entries[index]
        image = read_image(entry.image, root=self.root)
        size = (int(image.shape[1]), int(image.shape[2]))
        if size != entry.size:
            raise DataError(
                f"Expected the image to be {entry.size[1]} x {entry.size[0]} pixels, as the "
                f"annotation says, but it is {size[1]} x {size[0]}: its boxes would be off. Correct <size>.",
                path=entry.path,
                field="size",
            )
        labels = [self._number[label] for label in entry.labels]
        return {
            "image": image,
            "id": entry.id,
            "boxes": torch.tensor(entry.boxes, dtype=torch.float32).view(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "iscrowd": torch.tensor(entry.difficult, dtype=torch.int64),
            "size": size,
            "truth": self.truth(index),
        }


def voc(
    root: str | os.PathLike[str],
    *,
    bad_boxes: BadBoxes = "drop",
    one_based: bool = False,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of a folder of VOC annotations.

    The layouts are VOC's own (lists in `ImageSets/Main`), images and XML files side by side as labelImg
    leaves them, in `images/` and `annotations/`, or in folders of splits (`train/`, `valid/`, `test/`).
    Without a validation split a fifth of the training images is held out. Objects marked difficult count
    neither for nor against a detection, like crowds.

    Args:
        root: The folder.
        bad_boxes: See `VocReader`.
        one_based: See `VocReader`.
        seed: Seed of the hold-out.
        max_dropped: Fraction of a split's objects, or of its images, that may be left out.

    Raises:
        DataError: The folder is laid out otherwise, an annotation is wrong, or too much would be left out.
    """
    return read_voc(root, bad_boxes=bad_boxes, one_based=one_based, seed=seed).splits(max_dropped)


def read_voc(
    root: str | os.PathLike[str], *, bad_boxes: BadBoxes = "drop", one_based: bool = False, seed: int = 0
) -> Source:
    """Read the annotations of a VOC folder; the arguments are those of `voc`.

    Args:
        root: The folder.
        bad_boxes: See `VocReader`.
        one_based: See `VocReader`.
        seed: Seed of the hold-out.

    Raises:
        DataError: The folder is laid out otherwise.
    """
    top = Path(root)
    parts = voc_parts(top)
    read = {
        split: [parse_annotation(part, name, one_based=one_based) for name in part.names]
        for split, part in parts.items()
    }
    return Source(
        lambda max_dropped: _splits(top, parts, read, bad_boxes, seed, max_dropped),
        lambda left_out: _errors(parts, read, left_out),
    )


_Annotations = Mapping[str, Sequence[VocAnnotation]]


def _splits(
    top: Path,
    parts: Mapping[str, VocPart],
    read: _Annotations,
    bad_boxes: BadBoxes,
    seed: int,
    max_dropped: float,
) -> Splits:
    if "train" not in parts:
        text = "Expected the list of training images, ImageSets/Main/train.txt, but there is none."
        raise DataError(text, path=top)
    readers = {
        split: VocReader.of_part(part, read[split], bad_boxes=bad_boxes, max_dropped=max_dropped)
        for split, part in parts.items()
    }
    classes = tuple(sorted({name for reader in readers.values() for name in reader.classes}))
    notices: list[Notice] = []
    for split, reader in readers.items():
        reader.set_classes(classes)
        notices += [replace(notice, what=f"{split}: {notice.what}") for notice in reader.notices]
    notices += split_notices(top, readers, max_dropped=max_dropped)
    if not any(readers["train"].object_counts):
        text = "Expected objects to learn in the training images, but there are none."
        raise DataError(text, path=top, field="object")
    train, val, held = validation_split(readers["train"], readers.get("val"), top, seed=seed, what="list")
    facts: dict[str, Any] = {"root": str(top), **held}
    name = top.resolve().name
    return Splits(train, val, readers.get("test"), classes, name, facts, tuple(notices))


def check_voc(
    root: str | os.PathLike[str], *, one_based: bool = False, left_out: bool = True
) -> list[DataError]:
    """Return every error of a VOC folder: lists, annotations, boxes, images.

    Args:
        root: The folder.
        one_based: See `VocReader`.
        left_out: Whether what `voc` leaves out, cuts or does not mind is listed, too.
    """
    try:
        return read_voc(root, one_based=one_based).errors(left_out)
    except DataError as error:
        return [error]


def _errors(parts: Mapping[str, VocPart], read: _Annotations, left_out: bool) -> list[DataError]:
    errors: list[DataError] = []
    seen: set[tuple[Path, str]] = set()
    for split, part in parts.items():
        errors += [*part.missing, *part.twice] if left_out else []
        for name, annotation in zip(part.names, read[split], strict=True):
            if (part.annotations, name) in seen:
                continue
            seen.add((part.annotations, name))
            errors += [each for each in annotation.errors if left_out or each.field not in _LEFT_OUT]
            errors += [error for _, error in annotation.counted] if left_out else []
            if annotation.entry is None:
                continue
            try:
                height, width = (
                    int(s) for s in read_image(annotation.entry.image, root=part.root).shape[-2:]
                )
            except DataError as error:
                errors.append(error)
                continue
            if (height, width) != annotation.entry.size:
                size = annotation.entry.size[::-1]
                text = f"Expected the size of the image, {width} x {height}, but got {size}."
                errors.append(DataError(text, path=annotation.entry.path, field="size"))
    return errors
