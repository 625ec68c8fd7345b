"""COCO files of detections: one JSON file a split, images in a folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from visionkit.data.formats.coco.validate import Scan, scan_coco, size_error
from visionkit.data.formats.image_names import ImageFinder
from visionkit.data.read_image import read_image
from visionkit.data.truth import make_truth
from visionkit.errors import DataError, InputError
from visionkit.notices import MAX_DROPPED, NoticeCounter, check_notices
from visionkit.types import Sample, Truth

__all__ = ["BadBoxes", "CocoReader", "coco_results"]

BadBoxes = Literal["drop", "raise"]
Ints = npt.NDArray[np.int64]
MISSING = "images that are missing, left out"
OTHERWISE = "images found under another spelling of their name"


class Detections(Protocol):
    """The detections of one image, as `Detector.predict_step` returns it."""

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
        root: The folder of the images; no file outside it is opened.
        masks: Also give `masks`, from polygons or run lengths.
        bad_boxes: An object whose box, outline, image or category cannot be right is left out and kept in
            `dropped` ("drop"), or is an error ("raise"), as is then a box that must be cut. Every other error
            is an error always.
        keep_empty: Keep images without objects (crowds do not count).
        drop_missing: Leave out images whose files are not there; otherwise reading them is an error.
        max_dropped: Fraction of the annotations (and of the images) that may be left out; more is an error.

    Attributes:
        classes: Names of the categories, by label. Categories without an annotation that only stand above
            others (as supercategory) or for the background are left out.
        category_ids: The file's own ids, by label.
        image_ids: The file's own ids, by sample.
        dropped: The objects left out, as errors.
        notices: What was left out, cut or assumed, counted.

    Raises:
        DataError: The file has an error; the text gives their number.
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
        scan = scan_coco(path, masks=masks)
        self._open(scan, Path(root), masks, bad_boxes, keep_empty, drop_missing, max_dropped)

    @classmethod
    def of_scan(
        cls,
        scan: Scan,
        root: Path,
        *,
        masks: bool,
        bad_boxes: BadBoxes,
        keep_empty: bool,
        max_dropped: float,
    ) -> CocoReader:
        """Return the reader of a file that was scanned; images that are not there are left out.

        Args:
            scan: The file.
            root: See `CocoReader`.
            masks: See `CocoReader`.
            bad_boxes: See `CocoReader`.
            keep_empty: See `CocoReader`.
            max_dropped: See `CocoReader`.
        """
        reader = cls.__new__(cls)
        reader._open(scan, root, masks, bad_boxes, keep_empty, True, max_dropped)
        return reader

    def _open(
        self,
        scan: Scan,
        root: Path,
        masks: bool,
        bad_boxes: BadBoxes,
        keep_empty: bool,
        drop_missing: bool,
        max_dropped: float,
    ) -> None:
        self.path, self.root, self.masks = scan.path, root, masks
        path = scan.path
        images = NoticeCounter(max_fraction=max_dropped)
        self._files, missing = self._find(scan.records.names, scan.unique, images)
        errors = list(scan.errors)
        dropped = [error for error in scan.dropped if masks or error.field != "segmentation"]
        if bad_boxes == "raise":
            errors += [*dropped, *scan.cut, *(missing.values() if drop_missing else ())]
        if errors:
            first = errors[0]
            more = f" `visionkit check {path}` lists all {len(errors)} errors." if len(errors) > 1 else ""
            raise DataError(first.message + more, path=first.path, record=first.record, field=first.field)
        self.dropped = dropped
        self.notices = (
            *scan.notices(masks=masks, max_dropped=max_dropped),
            *images.notices(int(scan.unique.sum())),
        )
        if not drop_missing:
            self.notices = tuple(each for each in self.notices if each.what != MISSING)
        check_notices(self.notices, path=str(path))
        records, self.parents = scan.records, scan.parents
        order = np.argsort(records.category_ids, kind="stable")
        self._category_ids: list[int] = records.category_ids[order].tolist()
        self._classes = [records.classes[index] for index in order]
        crowd = np.maximum(records.crowd, 0)
        fitting = scan.outlined if masks else np.ones_like(scan.outlined)
        self._row, counted = (_by_image(scan.image, each & fitting) for each in (scan.usable, scan.scored))
        real = np.bincount(scan.image[self._row][crowd[self._row] == 0], minlength=len(records.names))
        keep = scan.unique if keep_empty else scan.unique & (real > 0)
        if drop_missing and missing:
            keep = keep.copy()
            keep[list(missing)] = False
        chosen = np.flatnonzero(keep)
        self._first, self._last = _ranges(scan.image[self._row], chosen)
        self._truth_first, self._truth_last = _ranges(scan.image[counted], chosen)
        self._truth_row, self._full = counted, scan.full[counted]
        self._boxes = scan.corners[self._row].astype(np.float32)
        self._crowd = crowd[self._row].astype(np.int64)
        plain = (scan.corners[self._row, 2:] - scan.corners[self._row, :2]).prod(axis=1)
        areas = records.areas[self._row]
        self._areas = np.where(np.isnan(areas), plain, areas)
        self._truth_area, self._truth_crowd = records.areas[counted], crowd[counted].astype(np.int64)
        self._raw_labels = scan.label[self._row], scan.label[counted]
        self._outlines = records.outlines if masks else None
        self._positions = records.positions
        self.image_ids: list[int] = records.image_ids[chosen].tolist()
        self.ids: Sequence[str] = [records.names[index] for index in chosen]
        self._files = [self._files[index] for index in chosen]
        self.sizes: Sequence[tuple[int, int]] = [(int(h), int(w)) for h, w in records.sizes[chosen].tolist()]
        self.leave_out(self.parents)

    def leave_out(self, categories: Collection[int]) -> None:
        """Give the classes new numbers, without some categories that have no annotation.

        Args:
            categories: Ids of categories, of those in `parents`.
        """
        chosen = [index for index, number in enumerate(self._category_ids) if number not in categories]
        self.category_ids = tuple(self._category_ids[index] for index in chosen)
        self.classes = tuple(self._classes[index] for index in chosen)
        number = np.zeros(len(self._category_ids), dtype=np.int64)
        number[chosen] = np.arange(len(chosen))
        self._labels, self._truth_labels = (number[labels] for labels in self._raw_labels)

    def _find(
        self, names: Sequence[str], listed: npt.NDArray[np.bool_], counter: NoticeCounter
    ) -> tuple[list[str], dict[int, DataError]]:
        """Return the file of each image (its name, where there is none), and the images without one."""
        finder, files, missing = ImageFinder(self.root), list(names), {}
        for index in np.flatnonzero(listed).tolist():
            match_, otherwise = finder.find(names[index])
            if match_ is None:
                text = f"Expected the image {names[index]!r} in {self.root}, but there is none by this name."
                error = DataError(text, path=self.path, record=f"images[{index}]", field="file_name")
                missing[index] = error
                counter.add(MISSING, error)
            else:
                files[index] = match_
            if otherwise and not self._is_beside_file(names[index], match_):
                text = f"{self.path}, record images[{index}]: {names[index]!r} is read from {match_!r}"
                counter.add(OTHERWISE, text, harmless=True)
        return files, missing

    def _is_beside_file(self, name: str, match_: str | None) -> bool:
        """Return whether a name leads from the annotation file to its image, as labelling tools write it."""
        image = os.path.join(self.root, match_ or "")  # noqa: PTH118
        named = os.path.join(os.path.dirname(self.path), name)  # noqa: PTH118, PTH120
        return os.path.abspath(named) == os.path.abspath(image)  # noqa: PTH100

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

    @property
    def files(self) -> list[str]:
        """The image of each sample."""
        return [str(self.root / name) for name in self._files]

    def areas(self, index: int) -> tuple[list[int], list[float]]:
        """Return label and area of the objects of image `index` without opening it; crowds are left out."""
        rows = slice(int(self._first[index]), int(self._last[index]))
        alone = self._crowd[rows] == 0
        return self._labels[rows][alone].tolist(), self._areas[rows][alone].tolist()

    @property
    def object_counts(self) -> list[int]:
        """How many objects the file lists for each image, crowds left out."""
        alone = np.concatenate(([0], np.cumsum(self._truth_crowd == 0)))
        counts: list[int] = (alone[self._truth_last] - alone[self._truth_first]).tolist()
        return counts

    def truth(self, index: int) -> Truth:
        """Return the objects of image `index` as the file has them, without opening it."""
        rows = slice(int(self._truth_first[index]), int(self._truth_last[index]))
        masks = None
        if self.masks and self._outlines is not None:
            size = self.sizes[index]
            masks = [self._outlines.runs(row, size) for row in self._truth_row[rows].tolist()]
        return make_truth(
            self._full[rows].copy(),
            self._truth_labels[rows].copy(),
            iscrowd=self._truth_crowd[rows].copy(),
            area=self._truth_area[rows].copy(),
            masks=masks,
            image_id=self.image_ids[index],
        )

    def labels_and_crowds(self, index: int) -> tuple[Ints, Ints]:
        """Return label and crowd flag of the objects of image `index`, as its sample has them."""
        rows = slice(int(self._first[index]), int(self._last[index]))
        return self._labels[rows], self._crowd[rows]

    def positions(self, index: int) -> tuple[Ints, Ints]:
        """Return where the objects of image `index` are in the file's list: of the sample, of its truth."""
        sample = self._row[int(self._first[index]) : int(self._last[index])]
        truth = self._truth_row[int(self._truth_first[index]) : int(self._truth_last[index])]
        return self._positions[sample], self._positions[truth]

    def check_size(self, index: int, actual: tuple[int, int]) -> None:
        """Raise `DataError` when the record of image `index` has another size than the image."""
        if actual != self.sizes[index]:
            where = f"images (id {self.image_ids[index]})"
            text = size_error(self.sizes[index], actual)
            raise DataError(text, path=self.path, record=where, field="size")

    def __getitem__(self, index: int) -> Sample:
        """Read image `index`; raise `DataError` when it cannot be read or has another size."""
        image = read_image(self._files[index], root=self.root)
        self.check_size(index, (int(image.shape[1]), int(image.shape[2])))
        return {"image": image, **self.objects(index)}

    def objects(self, index: int) -> Sample:
        """Return the sample of image `index` without the image, which is not opened."""
        size = self.sizes[index]
        rows = slice(int(self._first[index]), int(self._last[index]))
        sample: Sample = {
            "id": self.ids[index],
            "boxes": torch.from_numpy(self._boxes[rows].copy()),
            "labels": torch.from_numpy(self._labels[rows].copy()),
            "iscrowd": torch.from_numpy(self._crowd[rows].copy()),
            "area": torch.from_numpy(self._areas[rows].copy()),
            "size": size,
            "truth": self.truth(index),
        }
        if self.masks and self._outlines is not None:
            masks = np.zeros((rows.stop - rows.start, *size), dtype=np.uint8)
            counted = slice(int(self._truth_first[index]), int(self._truth_last[index]))
            runs = dict(zip(self._truth_row[counted].tolist(), sample["truth"]["masks"], strict=True))
            for mask, row in zip(masks, self._row[rows].tolist(), strict=True):
                mask[:] = coco_mask.decode(runs[row])
            sample["masks"] = torch.from_numpy(masks)
        return sample


def coco_results(reader: CocoReader, detections: Iterable[Detections]) -> list[dict[str, Any]]:
    """Return detections as COCO's result format has them, with the file's own ids; `json.dump` writes them.

    Args:
        reader: The reader whose images were looked at.
        detections: Of each image, named by the sample's id.

    Raises:
        InputError: An image is not one of the reader's.
    """
    numbers = dict(zip(reader.ids, reader.image_ids, strict=True))
    rows: list[dict[str, Any]] = []
    for each in detections:
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


def _ranges(images: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """Return where the rows of each kept image begin and end."""
    return np.searchsorted(images, chosen, side="left"), np.searchsorted(images, chosen, side="right")
