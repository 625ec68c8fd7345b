"""COCO files of detections: one JSON file a split, images in a folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from visionkit.data.formats.box_splits import validation_split
from visionkit.data.formats.coco.layout import coco_files, is_coco
from visionkit.data.formats.coco.validate import check_coco_file, scan_coco, size_fault
from visionkit.data.formats.image_names import ImageFinder
from visionkit.data.read_image import read_image
from visionkit.data.splits import Splits
from visionkit.data.truth import make_truth
from visionkit.errors import DataError, InputError
from visionkit.notices import MAX_DROPPED, Notice, NoticeCounter, check_notices
from visionkit.types import Sample, Truth

__all__ = ["CocoReader", "check_coco", "coco", "coco_files", "coco_results", "is_coco"]

BadBoxes = Literal["drop", "raise"]
Ints = npt.NDArray[np.int64]
MISSING = "images that are missing, left out"
OTHERWISE = "images found under another spelling of their name"


class Found(Protocol):
    """What was found in one image, as `Detector.predict_step` returns it."""

    @property
    def boxes(self) -> Tensor:
        """Return `(D, 4)` xyxy in the original image's frame."""
        ...

    @property
    def scores(self) -> Tensor:
        """Return `(D,)`."""
        ...

    @property
    def labels(self) -> Tensor:
        """Return `(D,)` from 0."""
        ...

    @property
    def id(self) -> str | None:
        """Return the sample's id."""
        ...


class CocoReader:
    """A reader of the images of a COCO file, with boxes, and outlines if asked for.

    Labels run from 0 in the order of the category ids, whatever these are; `category_ids` leads back. A
    sample is named by its file name. Objects marked as crowds stay, with `iscrowd` 1: they are not learned,
    and count neither for nor against a detection.

    Boxes for training are cut at the border of the image. `truth` holds what scores are taken against:
    every box of the file as it stands there, so that AP is that of pycocotools on the same file.

    Args:
        path: The JSON file.
        root: The folder of the images; no file outside it is opened, whatever the JSON says.
        masks: Also give `masks`, from polygons or run lengths.
        bad_boxes: An object whose box, outline, image or category cannot be right is left out and kept in
            `dropped` ("drop"), or is an error ("raise"), as is then a box that must be cut. Every other fault
            is an error always.
        keep_empty: Keep images without objects (crowds do not count).
        drop_missing: Leave out images whose files are not there; otherwise reading them is an error.
        max_dropped: Share of the annotations (and of the images) that may be left out; more is an error.

    Attributes:
        classes: Names of the categories, by label. Categories without an annotation that only stand above
            others (as supercategory) or for the background are left out.
        category_ids: The file's own ids, by label.
        image_ids: The file's own ids, by sample.
        dropped: The objects left out, as faults.
        notices: What was left out, cut or assumed, counted.

    Raises:
        DataError: The file has a fault; the text says how many there are.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        root: str | os.PathLike[str],
        *,
        masks: bool = False,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
        drop_missing: bool = False,
        max_dropped: float = MAX_DROPPED,
    ) -> None:
        self.path, self.root, self.masks = Path(path), Path(root), masks
        scan = scan_coco(path, masks=masks, max_dropped=max_dropped)
        images = NoticeCounter(max_fraction=max_dropped)
        self._files, missing = self._find(scan.records.names, scan.kept, images)
        faults = list(scan.faults)
        if bad_boxes == "raise":
            faults += [*scan.dropped, *scan.cut, *(missing.values() if drop_missing else ())]
        if faults:
            first = faults[0]
            more = f" `visionkit check {path}` lists all {len(faults)} faults." if len(faults) > 1 else ""
            raise DataError(first.message + more, path=first.path, record=first.record, field=first.field)
        self.dropped = list(scan.dropped)
        self.notices = (*scan.notices(), *images.notices(int(scan.kept.sum())))
        if not drop_missing:
            self.notices = tuple(each for each in self.notices if each.what != MISSING)
        check_notices(self.notices, path=str(path))
        records, self.parents = scan.records, scan.parents
        order = np.argsort(records.category_ids, kind="stable")
        self._category_ids: list[int] = records.category_ids[order].tolist()
        self._classes = [records.classes[index] for index in order]
        crowd = np.maximum(records.crowd, 0)
        self._row, counted = (_by_image(scan.image, chosen) for chosen in (scan.usable, scan.scored))
        real = np.bincount(scan.image[self._row][crowd[self._row] == 0], minlength=len(records.names))
        keep = scan.kept if keep_empty else scan.kept & (real > 0)
        if drop_missing and missing:
            keep = keep.copy()
            keep[list(missing)] = False
        kept = np.flatnonzero(keep)
        self._first, self._last = _ranges(scan.image[self._row], kept)
        self._truth_first, self._truth_last = _ranges(scan.image[counted], kept)
        self._truth_row, self._full = counted, scan.full[counted]
        self._boxes = scan.corners[self._row].astype(np.float32)
        self._crowd = crowd[self._row].astype(np.int64)
        plain = (scan.corners[self._row, 2:] - scan.corners[self._row, :2]).prod(axis=1)
        areas = records.areas[self._row]
        self._areas = np.where(np.isnan(areas), plain, areas)
        self._truth_area, self._truth_crowd = records.areas[counted], crowd[counted].astype(np.int64)
        self._raw_labels = scan.label[self._row], scan.label[counted]
        self._outlines = records.outlines
        self.image_ids: list[int] = records.image_ids[kept].tolist()
        self.ids: Sequence[str] = [records.names[index] for index in kept]
        self._files = [self._files[index] for index in kept]
        self.sizes: Sequence[tuple[int, int]] = [(int(h), int(w)) for h, w in records.sizes[kept].tolist()]
        self.leave_out(self.parents)

    def leave_out(self, categories: Collection[int]) -> None:
        """Give the classes new numbers, without some categories that have no annotation.

        Args:
            categories: Ids of categories, of those in `parents`.
        """
        chosen = [place for place, number in enumerate(self._category_ids) if number not in categories]
        self.category_ids = tuple(self._category_ids[place] for place in chosen)
        self.classes = tuple(self._classes[place] for place in chosen)
        number = np.zeros(len(self._category_ids), dtype=np.int64)
        number[chosen] = np.arange(len(chosen))
        self._labels, self._truth_labels = (number[labels] for labels in self._raw_labels)

    def _find(
        self, names: Sequence[str], kept: npt.NDArray[np.bool_], counter: NoticeCounter
    ) -> tuple[list[str], dict[int, DataError]]:
        """Return the file of each image (its name, where there is none), and the images without one."""
        finder, files, missing = ImageFinder(self.root), list(names), {}
        for index in np.flatnonzero(kept).tolist():
            found, otherwise = finder.find(names[index])
            if found is None:
                text = f"Expected the image {names[index]!r} in {self.root}, but there is none by this name."
                fault = DataError(text, path=self.path, record=f"images[{index}]", field="file_name")
                missing[index] = fault
                counter.add(MISSING, fault)
            else:
                files[index] = found
            if otherwise:
                text = f"{self.path}, record images[{index}]: {names[index]!r} is read from {found!r}"
                counter.add(OTHERWISE, text, harmless=True)
        return files, missing

    @property
    def recipe(self) -> str:
        """Everything annotated, for the fingerprint."""
        import hashlib

        digest = hashlib.sha256(repr((self.category_ids, self.classes, self.masks)).encode())
        for values in (self._first, self._last, self._boxes, self._labels, self._crowd, self._areas):
            digest.update(np.ascontiguousarray(values).tobytes())
        if self._full.shape != self._boxes.shape or (self._full.astype(np.float32) != self._boxes).any():
            digest.update(self._full.tobytes())
        if self._outlines is not None:
            digest.update(self._outlines.points.tobytes())
            digest.update(self._outlines.counts.tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.ids)

    def areas(self, index: int) -> tuple[list[int], list[float]]:
        """Return label and area of the objects of image `index` without opening it; crowds are left out."""
        own = slice(int(self._first[index]), int(self._last[index]))
        alone = self._crowd[own] == 0
        return self._labels[own][alone].tolist(), self._areas[own][alone].tolist()

    @property
    def object_counts(self) -> list[int]:
        """How many objects the file lists for each image, crowds left out."""
        alone = np.concatenate(([0], np.cumsum(self._truth_crowd == 0)))
        counts: list[int] = (alone[self._truth_last] - alone[self._truth_first]).tolist()
        return counts

    def truth(self, index: int) -> Truth:
        """Return the objects of image `index` as the file has them, without opening it."""
        own = slice(int(self._truth_first[index]), int(self._truth_last[index]))
        masks = None
        if self.masks and self._outlines is not None:
            size = self.sizes[index]
            masks = [self._outlines.runs(row, size) for row in self._truth_row[own].tolist()]
        return make_truth(
            self._full[own].copy(),
            self._truth_labels[own].copy(),
            iscrowd=self._truth_crowd[own].copy(),
            area=self._truth_area[own].copy(),
            masks=masks,
            image_id=self.image_ids[index],
        )

    def __getitem__(self, index: int) -> Sample:
        """Read image `index`; raise `DataError` when it cannot be read or has another size."""
        name, size = self.ids[index], self.sizes[index]
        image = read_image(self._files[index], root=self.root)
        found = (int(image.shape[1]), int(image.shape[2]))
        if found != size:
            where = f"images (id {self.image_ids[index]})"
            raise DataError(size_fault(size, found), path=self.path, record=where, field="size")
        own = slice(int(self._first[index]), int(self._last[index]))
        sample: Sample = {
            "image": image,
            "id": name,
            "boxes": torch.from_numpy(self._boxes[own].copy()),
            "labels": torch.from_numpy(self._labels[own].copy()),
            "iscrowd": torch.from_numpy(self._crowd[own].copy()),
            "area": torch.from_numpy(self._areas[own].copy()),
            "size": size,
            "truth": self.truth(index),
        }
        if self.masks and self._outlines is not None:
            masks = np.zeros((own.stop - own.start, *size), dtype=np.uint8)
            counted = slice(int(self._truth_first[index]), int(self._truth_last[index]))
            runs = dict(zip(self._truth_row[counted].tolist(), sample["truth"]["masks"], strict=True))
            for place, row in zip(masks, self._row[own].tolist(), strict=True):
                place[:] = coco_mask.decode(runs[row])
            sample["masks"] = torch.from_numpy(masks)
        return sample


def coco(
    root: str | os.PathLike[str],
    *,
    masks: bool = False,
    bad_boxes: BadBoxes = "drop",
    keep_empty: bool = True,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of a folder of COCO files, or of one file.

    The layouts are COCO's own (`annotations/instances_train2017.json` beside `train2017/` or
    `images/train2017/`), those of exports (`train/_annotations.coco.json` among the images,
    `train/labels.json` beside `train/data/`), plain `train.json` beside `images/`, and a single file
    (`result.json`, `labels.json`, `annotations/instances_default.json`). Without a validation file a fifth of
    the training images is held out. A test file without annotations is left out: it cannot be scored.

    Args:
        root: The folder, or a JSON file whose images lie beside it, in `images/` or in `data/`.
        masks: See `CocoReader`.
        bad_boxes: See `CocoReader`.
        keep_empty: Keep training images without objects. Validation and test images stay in any case:
            what is found in an empty one is a mistake that counts.
        seed: Seed of the hold-out.
        max_dropped: Share of a split's annotations, or of its images, that may be left out.

    Raises:
        DataError: There is no such layout, a file is at fault, too much of it would be left out, there is no
            object to learn, or splits differ in their categories.
    """
    top = Path(root)
    readers: dict[str, CocoReader] = {}
    notices: list[Notice] = []
    for split, (file, images) in coco_files(top).items():
        keep = keep_empty or split != "train"
        try:
            reader = CocoReader(
                file,
                images,
                masks=masks,
                bad_boxes=bad_boxes,
                keep_empty=keep,
                drop_missing=True,
                max_dropped=max_dropped,
            )
        except DataError as fault:
            if split != "test" or fault.field != "annotations":
                raise
            notices.append(Notice("test files without annotations, left out", 1, 1, str(fault)))
            continue
        readers[split] = reader
        notices += [replace(each, what=f"{split}: {each.what}") for each in reader.notices]
    first = readers["train"]
    parents = frozenset.intersection(*(reader.parents for reader in readers.values()))
    for split, reader in readers.items():
        reader.leave_out(parents)
        if (reader.category_ids, reader.classes) != (first.category_ids, first.classes):
            ours = dict(zip(first.category_ids, first.classes, strict=True))
            theirs = dict(zip(reader.category_ids, reader.classes, strict=True))
            odd = sorted(set(ours.items()) ^ set(theirs.items()))[0]
            text = (
                f"Expected the categories of {first.path.name}, but {split} differs in {odd[0]}: {odd[1]!r}."
            )
            raise DataError(text, path=reader.path, field="categories")
    if not (first._crowd == 0).any():
        text = "Expected objects to learn in the training file, but it has none that could be read"
        text += ": only crowds." if len(first._row) else "."
        raise DataError(text, path=first.path, field="annotations")
    known = readers.get("val")
    train, val, held = validation_split(
        first, known, (first if known is None else known).path, seed=seed, what="file"
    )
    facts: dict[str, Any] = {"root": str(top), "category_ids": list(first.category_ids), **held}
    name = top.resolve().stem
    return Splits(train, val, readers.get("test"), first.classes, name, facts, tuple(notices))


def check_coco(
    root: str | os.PathLike[str], *, masks: bool = False, left_out: bool = True
) -> tuple[int, list[DataError]]:
    """Return how many annotations of a folder of COCO files, or of one, could be read, and every fault.

    Args:
        root: As in `coco`.
        masks: Whether an object without an outline is a fault.
        left_out: Whether what `coco` leaves out or cuts is listed, too.
    """
    try:
        files = coco_files(Path(root))
    except DataError as fault:
        return 0, [fault]
    faults: list[DataError] = []
    count = 0
    for file, images in files.values():
        number, found = check_coco_file(file, images, masks=masks, left_out=left_out)
        count += number
        faults += found
    return count, faults


def coco_results(reader: CocoReader, found: Iterable[Found]) -> list[dict[str, Any]]:
    """Return detections as COCO's result format has them, with the file's own ids; `json.dump` writes them.

    Args:
        reader: The reader whose images were looked at.
        found: What was found, named by the samples' ids.

    Raises:
        InputError: An image is not one of the reader's.
    """
    numbers = dict(zip(reader.ids, reader.image_ids, strict=True))
    rows: list[dict[str, Any]] = []
    for each in found:
        if each.id not in numbers:
            raise InputError(f"Expected the id of an image of {reader.path.name}, but got {each.id!r}.")
        boxes = each.boxes.double().cpu()
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1)
        for box, score, label in zip(boxes.tolist(), each.scores.tolist(), each.labels.tolist(), strict=True):
            category = reader.category_ids[label]
            rows.append({"image_id": numbers[each.id], "category_id": category, "bbox": box, "score": score})
    return rows


def _by_image(image: Ints, chosen: npt.NDArray[np.bool_]) -> Ints:
    """Return the chosen rows, image by image, in their old order."""
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(image[rows], kind="stable")]


def _ranges(images: Ints, kept: Ints) -> tuple[Ints, Ints]:
    """Return where the rows of each kept image begin and end."""
    return np.searchsorted(images, kept, side="left"), np.searchsorted(images, kept, side="right")
