"""Boxes of formats that keep one record an image: a reader of such records, and splits of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from visionkit.data.boxes import BAD_BOXES, CUT, MAX_CUT, box_error
from visionkit.data.formats.box_splits import validation_split
from visionkit.data.formats.coco.segmentations import OutlineBuilder
from visionkit.data.formats.coco.validate import size_error
from visionkit.data.formats.split_notices import split_notices
from visionkit.data.read_image import read_image, read_size
from visionkit.data.splits import Splits, Subset
from visionkit.data.truth import make_truth
from visionkit.errors import DataError
from visionkit.notices import Notice, NoticeCounter, check_notices
from visionkit.types import Sample, Truth

__all__ = ["BoxCounts", "BoxReader", "BoxRecord", "box_splits", "note_crowded"]

_RELATIVE_SLACK = 0.002  # of an image's side: rounding of what was written


@dataclass
class BoxRecord:
    """One image and its objects, as a format lists them.

    Args:
        id: The sample's name.
        image: The image, from the root.
        path: The annotation file.
        size: `(H, W)` in the annotation file; None where it does not.
        labels: Class of each object.
        boxes: xyxy of each object, in pixels, or in shares of the image's sides.
        polygons: The outline of each object as polygons x1, y1, x2, y2 ...; None for one without.
    """

    id: str
    image: str
    path: Path
    size: tuple[int, int] | None = None
    labels: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    polygons: list[list[list[float]] | None] = field(default_factory=list)

    def add(
        self,
        label: int,
        box: Sequence[float],
        polygons: list[list[float]] | None,
        size: tuple[int, int] | None,
        where: str,
    ) -> tuple[str, DataError] | None:
        """Keep an object, unless its box cannot be right; return what is worth counting, and the error.

        Args:
            label: Its class.
            box: xyxy.
            polygons: Its outline.
            size: `(H, W)` in pixels; None for shares of the image's sides.
            where: The record, for the error.
        """
        height, width = size or (1, 1)
        error = box_error(box, size)
        if size is None and error is None:
            low, high = -_RELATIVE_SLACK, 1 + _RELATIVE_SLACK
            if min(box) < low or max(box) > high:
                error = f"Expected shares of the image from 0 to 1, but got {[round(v, 4) for v in box]}."
        inner = [max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])]
        cut = error is not None and box_error(box) is None and box_error(inner) is None
        if size is None and max(map(abs, box), default=0.0) > 2:
            cut = False  # pixels, not shares
        if error is None or cut:
            self.labels.append(label)
            self.boxes.append([float(value) for value in box])
            self.polygons.append(polygons)
        if error is None:
            return None
        return (CUT if cut else BAD_BOXES), DataError(error, path=self.path, record=where, field="bbox")


class BoxReader:
    """A reader of records of boxes.

    Boxes for training are cut at the border of the image; `truth` holds them as the files do.

    Args:
        root: No file outside this folder is opened.
        records: What is known of each image.
        classes: Names of the classes, by label.
        relative: Boxes and polygons are shares of the image's sides.
        masks: Also give `masks`; every object must have an outline.

    Raises:
        DataError: With masks, an object has no outline.
    """

    def __init__(
        self,
        root: Path,
        records: Sequence[BoxRecord],
        classes: Sequence[str],
        *,
        relative: bool = False,
        masks: bool = False,
    ) -> None:
        self.root, self.records, self.classes = root, list(records), tuple(classes)
        self.relative, self.masks = relative, masks
        self.ids: Sequence[str] = [record.id for record in self.records]
        self._sizes: list[tuple[int, int]] | None = None
        for record in self.records if masks else ():
            if None in record.polygons:
                text = "Expected an outline of every object, but one has only a box. Read it without masks."
                raise DataError(text, path=record.path, record=record.polygons.index(None), field="masks")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """`(H, W)` of each image, from its header where the file does not say it."""
        if self._sizes is None:
            self._sizes = [each.size or read_size(each.image, root=self.root) for each in self.records]
        return self._sizes

    @property
    def recipe(self) -> str:
        """Everything annotated, for the fingerprint."""
        known = [(r.id, r.labels, r.boxes, r.polygons if self.masks else ()) for r in self.records]
        return repr((self.classes, self.masks, known))

    @property
    def files(self) -> list[str]:
        """The image of each record."""
        return [str(self.root / record.image) for record in self.records]

    @property
    def object_counts(self) -> list[int]:
        """How many objects each image has."""
        return [len(record.labels) for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def truth(self, index: int) -> Truth:
        """Return the objects of image `index` as the file has them, without their outlines or decoding it."""
        record = self.records[index]
        height, width = self.sizes[index] if self.relative else (1, 1)
        return make_truth(self._pixels(record, (height, width)), record.labels)

    def _pixels(self, record: BoxRecord, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the boxes of a record in pixels, `(N, 4)`."""
        boxes: np.ndarray[Any, np.dtype[np.float64]] = np.array(record.boxes, dtype=np.float64).reshape(-1, 4)
        if self.relative:
            boxes *= np.array([size[1], size[0]] * 2)
        return boxes

    def __getitem__(self, index: int) -> Sample:
        """Read image `index`; raise `DataError` when it cannot be read or has another size."""
        record = self.records[index]
        image = read_image(record.image, root=self.root)
        size = (int(image.shape[1]), int(image.shape[2]))
        if record.size is not None and record.size != size:
            raise DataError(size_error(record.size, size), path=record.path, field="size")
        height, width = size
        full = self._pixels(record, size)
        inner = np.clip(full, 0, [width, height, width, height]).astype(np.float32)
        has_area = (inner[:, 2:] > inner[:, :2]).all(axis=1)
        labels = np.array(record.labels, dtype=np.int64)
        sample: Sample = {
            "image": image,
            "id": record.id,
            "boxes": torch.from_numpy(inner[has_area]),
            "labels": torch.from_numpy(labels[has_area]),
            "size": size,
        }
        runs = None
        if self.masks:
            runs, dense = self._outlines(record, size)
            sample["masks"] = torch.from_numpy(dense[has_area])
        sample["truth"] = make_truth(full, labels, masks=runs)
        return sample

    def _outlines(
        self, record: BoxRecord, size: tuple[int, int]
    ) -> tuple[list[dict[str, Any]], np.ndarray[Any, np.dtype[np.uint8]]]:
        """Return the outlines of a record as run lengths, and filled `(N, H, W)`."""
        builder = OutlineBuilder()
        scale = np.array([size[1], size[0]]) if self.relative else np.ones(2)
        try:
            for parts in record.polygons:
                builder.add([(np.reshape(part, (-1, 2)) * scale).ravel().tolist() for part in parts or ()])
            outlines = builder.done()
            wrong = next(outlines.errors(np.tile(size, (len(record.labels), 1))), None)
            if wrong is not None:
                raise ValueError(wrong[1])
        except ValueError as error:
            raise DataError(str(error), path=record.path, field="masks") from None
        dense = np.zeros((len(record.labels), *size), dtype=np.uint8)
        for index in range(len(record.labels)):
            dense[index] = outlines.mask(index, size)
        return [outlines.runs(index, size) for index in range(len(record.labels))], dense


class BoxCounts:
    """What was counted in a split: cases among its objects, and cases among its images.

    Args:
        max_dropped: Fraction of the objects, and fraction of the images, that may be left out.

    Attributes:
        objects: Counts cases of objects.
        images: Counts cases of images.
        object_total: How many objects there are, those left out included.
        image_total: How many images there are, those left out included.
    """

    def __init__(self, max_dropped: float) -> None:
        self.objects, self.images = (NoticeCounter(max_fraction=max_dropped) for _ in range(2))
        self.object_total = self.image_total = 0
        self._max_cut = max(MAX_CUT, max_dropped)

    def add(self, what: str, error: object) -> None:
        """Count an object that was cut or left out."""
        self.objects.add(what, error)

    def notices(self, split: str) -> list[Notice]:
        """Return the notices of a split, those of images first."""
        if CUT in self.objects.limits:
            self.objects.limits[CUT] = self._max_cut
        notices = (*self.images.notices(self.image_total), *self.objects.notices(self.object_total))
        return [replace(notice, what=f"{split}: {notice.what}") for notice in notices]


def box_splits(
    root: str | os.PathLike[str],
    readers: Mapping[str, BoxReader],
    classes: Sequence[str],
    counts: Mapping[str, BoxCounts],
    *,
    seed: int,
    max_dropped: float,
    notices: Sequence[Notice] = (),
) -> Splits:
    """Return the splits of some readers; a fifth of the training images is held out without validation ones.

    Args:
        root: The folder of the data set.
        readers: The reader of each split.
        classes: Names of the classes.
        counts: What was counted in each split.
        seed: Seed of the hold-out.
        max_dropped: Fraction of a split's images that may be in another split.
        notices: What else was left out.

    Raises:
        DataError: Too much would be left out, there is nothing to train on, or nothing to score.
    """
    top = Path(root)
    notices = [*notices, *(each for split, counted in counts.items() for each in counted.notices(split))]
    notices += split_notices(top, readers, max_dropped=max_dropped)
    check_notices(notices, path=str(top))
    if "train" not in readers or not any(readers["train"].object_counts):
        raise DataError("Expected images with objects to train on, but there are none.", path=top)
    train, val, held = validation_split(readers["train"], readers.get("val"), top, seed=seed)
    facts: dict[str, Any] = {"root": str(top), **held}
    name = top.resolve().stem
    return Splits(train, val, readers.get("test"), tuple(classes), name, facts, tuple(notices))


def note_crowded(splits: Splits, max_detections: int) -> Splits:
    """Return the splits with a notice of the images that have more objects than a detector answers with.

    Args:
        splits: Images with boxes; readers that do not count their objects are passed over.
        max_detections: Detections an image.
    """
    counts: list[tuple[int, str]] = []
    for reader in (splits.train, splits.val, splits.test):
        chosen = range(0 if reader is None else len(reader))
        source: Any = reader
        while isinstance(source, Subset):
            chosen, source = [source.indices[index] for index in chosen], source.reader  # type: ignore[assignment]
        known = getattr(source, "object_counts", None)
        counts += [] if known is None else [(known[index], source.ids[index]) for index in chosen]
    crowded = [each for each in counts if each[0] > max_detections]
    if not crowded:
        return splits
    text = f"{crowded[0][1]!r} has {crowded[0][0]} objects, but at most {max_detections} are "
    text += "detected (--rcnn.detections_per_img, or that of another detector)"
    what = "images with more objects than are detected in one"
    notice = Notice(what, len(crowded), len(counts), text)
    return replace(splits, notices=(*splits.notices, notice))
