"""COCO keypoints: the boxes of a COCO file with the points of each object."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from visionkit.data.formats.coco.boxes import read_coco
from visionkit.data.formats.coco.layout import coco_files
from visionkit.data.formats.coco.reader import CocoReader
from visionkit.data.formats.keypoints.points import PointScan, has_keypoints, scan_points
from visionkit.data.formats.source import Source, read_each, sound
from visionkit.data.splits import Splits, Subset
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED, Notice
from visionkit.types import Reader, Sample, Truth

__all__ = [
    "CocoKeypoints",
    "coco_keypoints",
    "is_coco_keypoints",
    "read_coco_keypoints",
    "with_keypoint_errors",
]


class CocoKeypoints:
    """A reader of the images of a COCO file, with the points of each object.

    A sample has what that of a `CocoReader` has, and `keypoints` `(N, K, 3)`: x, y and flag of each point (0:
    not labelled, 1: labelled but hidden, 2: visible), with flag 0 where the file cannot be right; `truth` has
    them as the file does. Objects of categories without keypoints are left out.

    Args:
        objects: Reads images and boxes.
        points: The points of the same file.

    Attributes:
        skeleton: Names and edges of the points.
        classes: Names of the categories with keypoints, by label.
    """

    def __init__(self, objects: CocoReader, points: PointScan) -> None:
        self.objects = objects
        self.skeleton = points.skeleton
        chosen = [number in points.categories for number in objects.category_ids]
        self.classes = tuple(name for name, known in zip(objects.classes, chosen, strict=True) if known)
        self._label = np.where(chosen, np.cumsum(chosen) - 1, -1)
        self._points, self._full = points.points.astype(np.float32), points.full
        self.ids, self.files, self.sizes = objects.ids, objects.files, objects.sizes

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def recipe(self) -> str:
        """Everything annotated, for the fingerprint."""
        digest = hashlib.sha256(f"{self.objects.recipe} {self.skeleton}".encode())
        digest.update(self._full.tobytes())
        return digest.hexdigest()

    @cached_property
    def keypoint_counts(self) -> list[list[int]]:
        """How many points of each object of each image are labelled; 0 for a crowd."""
        labelled = (self._points[..., 2] > 0).sum(1)  # (A,)
        counts: list[list[int]] = []
        for index in range(len(self)):
            labels, crowds = self.objects.labels_and_crowds(index)
            of_image = labelled[self.objects.positions(index)[0]] * (crowds == 0)
            counts.append(of_image[self._label[labels] >= 0].tolist())
        return counts

    @cached_property
    def object_counts(self) -> list[int]:
        """How many objects each image has, crowds left out."""
        counts = []
        for index in range(len(self)):
            labels, crowds = self.objects.labels_and_crowds(index)
            counts.append(int(((self._label[labels] >= 0) & (crowds == 0)).sum()))
        return counts

    def truth(self, index: int) -> Truth:
        """Return the objects of image `index` as the file has them, without opening it."""
        return self._with_points(self.objects.objects(index), index)["truth"]

    def __getitem__(self, index: int) -> Sample:
        """Read image `index`; raise `DataError` when it cannot be read or has another size."""
        return self._with_points(self.objects[index], index)

    def _with_points(self, sample: Sample, index: int) -> Sample:
        rows, truth_rows = self.objects.positions(index)
        known = self._label[sample["labels"].numpy()] >= 0
        out: Any = dict(sample)
        for name in ("boxes", "labels", "iscrowd", "area"):
            out[name] = out[name][torch.from_numpy(known)]
        out["labels"] = torch.from_numpy(self._label[out["labels"].numpy()])
        out["keypoints"] = torch.from_numpy(self._points[rows[known]])
        if self.skeleton.flip is not None:
            out["keypoint_flip"] = torch.tensor(self.skeleton.flip)
        truth: Any = dict(sample["truth"])
        known = self._label[truth["labels"]] >= 0
        for name in ("boxes", "labels", "iscrowd", "area"):
            truth[name] = truth[name][known]
        truth["labels"] = self._label[truth["labels"]]
        truth["keypoints"] = self._full[truth_rows[known]]
        out["truth"] = truth
        result: Sample = out
        return result


def is_coco_keypoints(root: str | os.PathLike[str]) -> bool:
    """Return whether a path is a COCO file with keypoints, or a folder that holds some; it never raises.

    Args:
        root: Any path.
    """
    try:
        return has_keypoints(coco_files(root, keypoints=True)["train"][0])
    except DataError:
        return False


def coco_keypoints(
    root: str | os.PathLike[str], *, seed: int = 0, max_dropped: float = MAX_DROPPED
) -> Splits:
    """Return the splits of COCO files with keypoints, an image a sample; the layouts are those of `coco`.

    Where there are `person_keypoints_train2017.json` and its like, those files are read. The facts have the
    names and edges of the points ("keypoints"); `skeleton_of` gives them.

    Args:
        root: The folder, or a JSON file.
        seed: Seed of the hold-out.
        max_dropped: Fraction of a split's annotations, or of its keypoints, that may be left out.

    Raises:
        DataError: There is no such layout, a file is wrong, or too much of it would be left out.
    """
    return read_coco_keypoints(root, seed=seed).splits(max_dropped)


def read_coco_keypoints(root: str | os.PathLike[str], *, seed: int = 0, outlines: bool = False) -> Source:
    """Read COCO files with keypoints; the arguments are those of `coco_keypoints`.

    Args:
        root: The folder or the file.
        seed: Seed of the hold-out.
        outlines: Also read outlines to list what is wrong with them.

    Raises:
        DataError: There is no such layout.
    """
    top = Path(root)
    files = {split: file for split, (file, _) in coco_files(top, keypoints=True).items()}
    boxes = read_coco(top, seed=seed, outlines=outlines, keypoints=True)
    read = dict(zip(files, read_each(files.values(), scan_points), strict=True))
    return Source(
        lambda max_dropped: _splits(boxes.splits(max_dropped), files, read, max_dropped),
        lambda left_out: [*boxes.errors(left_out), *_errors(read, left_out)],
        boxes.notes,
    )


def with_keypoint_errors(boxes: Source, root: str | os.PathLike[str]) -> Source:
    """Return a check of boxes that also names what is wrong with the keypoints of the files.

    Args:
        boxes: What reads the boxes, perhaps of other files of the same folder.
        root: The folder or the file.

    Raises:
        DataError: There is no such layout.
    """
    files = [file for file, _ in coco_files(Path(root), keypoints=True).values()]
    read = {str(file): scan for file, scan in zip(files, read_each(files, scan_points), strict=True)}

    def splits(max_dropped: float) -> Splits:
        made = boxes.splits(max_dropped)
        notices = [
            replace(notice, what=f"{scan.path.name}: {notice.what}")
            for scan in sound(read.values())
            for notice in scan.notices(max_dropped=max_dropped)
        ]
        return replace(made, notices=(*made.notices, *notices))

    return Source(splits, lambda left_out: [*boxes.errors(left_out), *_errors(read, left_out)], boxes.notes)


def _splits(
    boxes: Splits, files: Mapping[str, Path], read: Mapping[str, PointScan | DataError], max_dropped: float
) -> Splits:
    scans = dict(zip(read, sound(read.values()), strict=True))
    first = scans["train"]
    notices: list[Notice] = []
    for split, scan in scans.items():
        if scan.skeleton != first.skeleton:
            text = f"Expected the keypoints of {first.path.name}, {', '.join(first.skeleton.names)}, but got "
            text += f"{', '.join(scan.skeleton.names)}, or other edges."
            raise DataError(text, path=scan.path, record="categories", field="keypoints")
        counted = scan.notices(max_dropped=max_dropped)
        notices += [replace(each, what=f"{split}: {each.what}") for each in counted]
    by_file = {files[split]: scan for split, scan in scans.items()}
    train, val = (_add_points(reader, by_file) for reader in (boxes.train, boxes.val))
    test = None if boxes.test is None else _add_points(boxes.test, by_file)
    counts = getattr(train, "keypoint_counts", [])
    if not any(map(any, counts)):
        text = "Expected labelled keypoints in the training file, but there is none."
        raise DataError(text, path=first.path, field="keypoints")
    return replace(
        boxes,
        train=train,
        val=val,
        test=test,
        classes=_keypoints_reader(train).classes,
        facts={**boxes.facts, "keypoints": first.skeleton.as_dict()},
        notices=(*boxes.notices, *notices),
    )


def _add_points(reader: Reader, scans: Mapping[Path, PointScan]) -> Reader:
    if isinstance(reader, Subset):
        return Subset(_add_points(reader.reader, scans), reader.indices)
    objects: Any = reader
    return CocoKeypoints(objects, scans[objects.path])


def _keypoints_reader(reader: Any) -> CocoKeypoints:
    while isinstance(reader, Subset):
        reader = reader.reader
    known: CocoKeypoints = reader
    return known


def _errors(read: Mapping[str, PointScan | DataError], left_out: bool) -> list[DataError]:
    errors: list[DataError] = []
    for scan in read.values():
        errors += [scan] if isinstance(scan, DataError) else scan.dropped if left_out else ()
    return errors
