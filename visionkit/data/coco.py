"""COCO files of detections: one JSON file a split, pictures in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from visionkit.data.check_coco import check_coco_file, scan_coco, size_fault
from visionkit.data.read_image import read_image
from visionkit.data.splits import Splits, holdout
from visionkit.errors import DataError, InputError
from visionkit.types import Reader, Sample

__all__ = ["CocoReader", "check_coco", "coco", "coco_files", "coco_results", "is_coco"]

BadBoxes = Literal["drop", "raise"]
_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class Found(Protocol):
    """What was found in one picture, as `Detector.predict_step` returns it."""

    @property
    def boxes(self) -> Tensor:
        """Return `(D, 4)` xyxy in the original picture's frame."""
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
    """A reader of the pictures of a COCO file, with boxes, and outlines if asked for.

    Labels run from 0 in the order of the category ids, whatever these are; `category_ids` leads back. A
    sample is named by its file name. Objects marked as crowds stay, with `iscrowd` 1: they are not learned,
    and count neither for nor against a detection.

    Args:
        path: The JSON file.
        root: The folder of the pictures; no file outside it is opened, whatever the JSON says.
        masks: Also give `masks`, from polygons or run lengths.
        bad_boxes: An object whose box or outline cannot be right is left out and kept in `dropped` ("drop"),
            or is an error ("raise"). Every other fault is an error always.
        keep_empty: Keep pictures without objects (crowds do not count).

    Attributes:
        classes: Names of the categories, by label.
        category_ids: The file's own ids, by label.
        image_ids: The file's own ids, by sample.
        dropped: The objects left out, as faults.

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
    ) -> None:
        self.path, self.root, self.masks = Path(path), Path(root), masks
        scan = scan_coco(path, masks=masks)
        faults = [*scan.faults, *(scan.dropped if bad_boxes == "raise" else ())]
        if faults:
            first = faults[0]
            more = f" `visionkit check {path}` lists all {len(faults)} faults." if len(faults) > 1 else ""
            raise DataError(first.message + more, path=first.path, record=first.record, field=first.field)
        self.dropped = list(scan.dropped)
        records = scan.records
        order = np.argsort(records.category_ids, kind="stable")
        self.category_ids = tuple(records.category_ids[order].tolist())
        self.classes = tuple(records.classes[index] for index in order)
        rows = np.flatnonzero(scan.usable)
        rows = rows[np.argsort(scan.picture[rows], kind="stable")]
        crowd = np.maximum(records.crowd, 0)
        real = np.bincount(scan.picture[rows][crowd[rows] == 0], minlength=len(records.names))
        kept = np.arange(len(records.names)) if keep_empty else np.flatnonzero(real)
        self._first = np.searchsorted(scan.picture[rows], kept, side="left")
        self._last = np.searchsorted(scan.picture[rows], kept, side="right")
        self._row = rows
        self._boxes = scan.corners[rows].astype(np.float32)
        self._labels, self._crowd = scan.label[rows], crowd[rows].astype(np.int64)
        plain = (scan.corners[rows, 2:] - scan.corners[rows, :2]).prod(axis=1)
        areas = records.areas[rows]
        self._areas = np.where(np.isnan(areas), plain, areas)
        self._outlines = records.outlines
        self.image_ids = records.image_ids[kept].tolist()
        self.ids: Sequence[str] = [records.names[index] for index in kept]
        self.sizes: Sequence[tuple[int, int]] = [(int(h), int(w)) for h, w in records.sizes[kept].tolist()]

    @property
    def recipe(self) -> str:
        """Everything annotated, for the fingerprint."""
        import hashlib

        digest = hashlib.sha256(repr((self.category_ids, self.classes, self.masks)).encode())
        for values in (self._first, self._last, self._boxes, self._labels, self._crowd, self._areas):
            digest.update(np.ascontiguousarray(values).tobytes())
        if self._outlines is not None:
            digest.update(self._outlines.points.tobytes())
            digest.update(self._outlines.counts.tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.ids)

    def areas(self, index: int) -> tuple[list[int], list[float]]:
        """Return label and area of the objects of picture `index` without opening it; crowds are left out."""
        own = slice(int(self._first[index]), int(self._last[index]))
        alone = self._crowd[own] == 0
        return self._labels[own][alone].tolist(), self._areas[own][alone].tolist()

    def __getitem__(self, index: int) -> Sample:
        """Read picture `index`; raise `DataError` when it cannot be read or has another size."""
        name, size = self.ids[index], self.sizes[index]
        image = read_image(name, root=self.root)
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
        }
        if self.masks and self._outlines is not None:
            masks = np.zeros((own.stop - own.start, *size), dtype=np.uint8)
            for place, row in zip(masks, self._row[own].tolist(), strict=True):
                place[:] = self._outlines.mask(row, size)
            sample["masks"] = torch.from_numpy(masks)
        return sample


def coco(
    root: str | os.PathLike[str],
    *,
    masks: bool = False,
    bad_boxes: BadBoxes = "drop",
    keep_empty: bool = True,
    seed: int = 0,
) -> Splits:
    """Return the splits of a folder of COCO files, or of one file.

    The layouts are COCO's own (`annotations/instances_train2017.json` beside `train2017/` or
    `images/train2017/`), that of exports (`train/_annotations.coco.json` among the pictures), and plain
    `train.json` beside `images/`. Without a validation file a fifth of the training pictures is held out.

    Args:
        root: The folder, or a JSON file whose pictures lie beside it or in `images/`.
        masks: See `CocoReader`.
        bad_boxes: See `CocoReader`.
        keep_empty: Keep training pictures without objects. Validation and test pictures stay in any case:
            what is found in an empty one is a mistake that counts.
        seed: Seed of the hold-out.

    Raises:
        DataError: There is no such layout, a file is at fault, or splits differ in their categories.
    """
    top = Path(root)
    readers: dict[str, CocoReader] = {}
    for split, (file, pictures) in coco_files(top).items():
        keep = keep_empty or split != "train"
        readers[split] = CocoReader(file, pictures, masks=masks, bad_boxes=bad_boxes, keep_empty=keep)
    first = readers["train"]
    for split, reader in readers.items():
        if (reader.category_ids, reader.classes) != (first.category_ids, first.classes):
            ours = dict(zip(first.category_ids, first.classes, strict=True))
            theirs = dict(zip(reader.category_ids, reader.classes, strict=True))
            odd = sorted(set(ours.items()) ^ set(theirs.items()))[0]
            text = (
                f"Expected the categories of {first.path.name}, but {split} differs in {odd[0]}: {odd[1]!r}."
            )
            raise DataError(text, path=reader.path, field="categories")
    facts: dict[str, Any] = {"root": str(top), "category_ids": list(first.category_ids)}
    dropped = [str(fault) for reader in readers.values() for fault in reader.dropped]
    if dropped:
        facts["dropped_boxes"] = dropped[:100]
        facts["dropped_boxes_count"] = len(dropped)
    train: Reader = first
    val: Reader | None = readers.get("val")
    if val is None:
        train, val = holdout(train, 0.2, seed=seed)
        facts["held_out"] = f"there is no validation file: {len(val)} training pictures are held out"
    return Splits(train, val, readers.get("test"), first.classes, top.resolve().stem, facts)


def check_coco(root: str | os.PathLike[str], *, masks: bool = False) -> tuple[int, list[DataError]]:
    """Return how many annotations of a folder of COCO files, or of one, could be read, and every fault.

    Args:
        root: As in `coco`.
        masks: Whether an object without an outline is a fault.
    """
    try:
        files = coco_files(Path(root))
    except DataError as fault:
        return 0, [fault]
    faults: list[DataError] = []
    count = 0
    for file, pictures in files.values():
        number, found = check_coco_file(file, pictures, masks=masks)
        count += number
        faults += found
    return count, faults


def coco_files(root: str | os.PathLike[str]) -> dict[str, tuple[Path, Path]]:
    """Return the JSON file and the folder of pictures of each split, by the layouts that `coco` knows.

    Args:
        root: A folder, or a JSON file, which is taken for the training split.

    Raises:
        DataError: There is no file of a training split, or more than one.
    """
    top = Path(root)
    if top.suffix.lower() == ".json":
        named = re.fullmatch(r"(?:instances_)?([a-z]+)(\d*)", top.stem)
        above = top.parent.parent if top.parent.name == "annotations" else top.parent
        return {"train": (top, _pictures(above, *(named.groups() if named else ("", ""))))}
    files: dict[str, tuple[Path, Path]] = {}
    for split, names in _SPLITS.items():
        found: list[tuple[Path, Path]] = []
        for name in names:
            export = top / name / "_annotations.coco.json"
            found += [(export, top / name)] if export.is_file() else []
            for folder in (top / "annotations", top):
                for file in sorted(folder.glob(f"*{name}*.json")):
                    matched = re.fullmatch(rf"(?:instances_)?{name}(\d*)", file.stem)
                    if matched:
                        found.append((file, _pictures(top, name, matched[1])))
        if len(found) > 1:
            both = ", ".join(str(file.relative_to(top)) for file, _ in found)
            raise DataError(f"Expected one file of the split {split}, but there are {both}.", path=top)
        if found:
            files[split] = found[0]
    if "train" not in files:
        raise DataError(
            "Expected annotations/instances_train*.json, train/_annotations.coco.json or train.json, but "
            "there is none. A single JSON file can be given too.",
            path=top,
        )
    return files


def is_coco(root: str | os.PathLike[str]) -> bool:
    """Return whether a path is a JSON file, or a folder in a layout that `coco` knows.

    Args:
        root: Any path.
    """
    try:
        return bool(coco_files(root))
    except DataError:
        return False


def coco_results(reader: CocoReader, found: Iterable[Found]) -> list[dict[str, Any]]:
    """Return detections as COCO's result format has them, with the file's own ids; `json.dump` writes them.

    Args:
        reader: The reader whose pictures were looked at.
        found: What was found, named by the samples' ids.

    Raises:
        InputError: A picture is not one of the reader's.
    """
    numbers = dict(zip(reader.ids, reader.image_ids, strict=True))
    rows: list[dict[str, Any]] = []
    for each in found:
        if each.id not in numbers:
            raise InputError(f"Expected the id of a picture of {reader.path.name}, but got {each.id!r}.")
        boxes = each.boxes.double().cpu()
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1)
        for box, score, label in zip(boxes.tolist(), each.scores.tolist(), each.labels.tolist(), strict=True):
            category = reader.category_ids[label]
            rows.append({"image_id": numbers[each.id], "category_id": category, "bbox": box, "score": score})
    return rows


def _pictures(top: Path, name: str, year: str) -> Path:
    """Return the folder that holds the pictures of a split."""
    places = (
        [f"images/{name}{year}", f"{name}{year}", f"images/{name}", name, "images"] if name else ["images"]
    )
    return next((top / place for place in places if (top / place).is_dir()), top)
