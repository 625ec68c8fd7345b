"""YOLO text files: one an image, a line an object, relative to the image's sides.

A line is `class x y width height` (centre and size), or `class x1 y1 x2 y2 x3 y3 ...` (an outline). Names of
the classes stand in `data.yaml` or `classes.txt`.
Source: https://docs.ultralytics.com/datasets/detect/ and /segment/ (the layout and the lines).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from visionkit.data.boxes import CUT
from visionkit.data.formats.box_records import BoxCounts, BoxReader, BoxRecord, box_splits
from visionkit.data.formats.source import Source, read_each, sound
from visionkit.data.formats.yolo.data_yaml import text_of
from visionkit.data.formats.yolo.layout import YoloLayout, label_file, yolo_layout
from visionkit.data.read_image import check_images
from visionkit.data.splits import Splits
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED

__all__ = ["check_yolo", "read_yolo", "yolo"]

_FEWEST = 5  # below so many lines that look like key points are named, but not refused
_AGAIN = "lines that come again in their file, left out"
_EMPTY = "images without a file of labels, taken for images without objects"
_LINES = "lines that cannot be right, left out"
_POSES = "lines that look like key points without kpt_shape in data.yaml, taken for outlines"
_NO_TEST = "test images that the YAML file names but that are not there"
_UNNAMED = "classes without a name, called by their numbers"


@dataclass
class _Lines:
    """The lines of a file of labels, and their errors."""

    record: BoxRecord
    errors: list[DataError] = field(default_factory=list)
    counted: list[tuple[str, DataError]] = field(default_factory=list)
    poses: list[DataError] = field(default_factory=list)
    lengths: set[int] = field(default_factory=set)
    long: int = 0
    count: int = 0


def yolo(
    root: str | os.PathLike[str],
    *,
    masks: bool = False,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of a YOLO folder.

    The layouts are `data.yaml` with `train`, `val`, `test` (folders, lists of folders, or text files of
    images), `images/train` beside `labels/train`, `train/images` beside `train/labels`, and `images/` beside
    `labels/` with `classes.txt`. An image without a file of labels has no objects. Without a validation
    split a fifth of the training images is held out.

    Args:
        root: The folder, or its `data.yaml`.
        masks: Also read outlines; every object must have one.
        seed: Seed of the hold-out.
        max_dropped: Fraction of a split's lines that may be left out.

    Raises:
        DataError: It is laid out otherwise, a file cannot be read, or too much would be left out.
    """
    return read_yolo(root, masks=masks, seed=seed).splits(max_dropped)


def read_yolo(root: str | os.PathLike[str], *, masks: bool = False, seed: int = 0) -> Source:
    """Read the files of labels of a YOLO folder; the arguments are those of `yolo`.

    Args:
        root: The folder, or its `data.yaml`.
        masks: Also read outlines.
        seed: Seed of the hold-out.

    Raises:
        DataError: It is laid out otherwise.
    """
    layout = yolo_layout(Path(root))
    read = {split: read_each(files, partial(_read, layout)) for split, files in layout.images.items()}
    return Source(
        lambda max_dropped: _splits(layout, read, masks, seed, max_dropped),
        lambda left_out: _errors(layout, read, left_out),
    )


def _splits(
    layout: YoloLayout,
    read: Mapping[str, list[_Lines | DataError]],
    masks: bool,
    seed: int,
    max_dropped: float,
) -> Splits:
    readers, counts = {}, {}
    by_split = {split: sound(results) for split, results in read.items()}
    if not layout.named:
        labels = [label for files in by_split.values() for lines in files for label in lines.record.labels]
        layout.names = [str(number) for number in range(max(labels, default=-1) + 1)]
    all_poses, outlines = _poses(by_split.values())
    for split, files in by_split.items():
        counted = counts[split] = BoxCounts(max_dropped)
        cases = [error for lines in files for error in lines.poses] if all_poses else []
        if cases:
            counted.objects.add(_POSES, cases[0], count=len(cases), harmless=outlines < _FEWEST)
        for lines in files:
            for error in lines.errors:
                counted.add(_LINES, error)
            for what, error in lines.counted:
                counter = counted.images if what == _EMPTY else counted.objects
                counter.add(what, error, harmless=what in (_AGAIN, _EMPTY))
        if layout.no_test and split == "train":
            counted.images.add(_NO_TEST, layout.no_test, harmless=True)
        if not layout.named:
            counted.objects.add(_UNNAMED, layout.root, count=len(layout.names), harmless=True)
        counted.object_total, counted.image_total = sum(lines.count for lines in files), len(files)
        records = [lines.record for lines in files]
        readers[split] = BoxReader(layout.root, records, layout.names, relative=True, masks=masks)
    return box_splits(layout.root, readers, layout.names, counts, seed=seed, max_dropped=max_dropped)


def check_yolo(root: str | os.PathLike[str], *, left_out: bool = True) -> list[DataError]:
    """Return every error of a YOLO folder: names, lines, images.

    Args:
        root: As in `yolo`.
        left_out: Whether what `yolo` leaves out is listed, too.
    """
    try:
        return read_yolo(root).errors(left_out)
    except DataError as error:
        return [error]


def _errors(
    layout: YoloLayout, read: Mapping[str, list[_Lines | DataError]], left_out: bool
) -> list[DataError]:
    """Return what is wrong with the lines and the images, each image once."""
    results: dict[str, _Lines | DataError] = {}
    for split, images in layout.images.items():
        results |= zip(images, read[split], strict=True)
    errors: list[DataError] = []
    for image, lines in sorted(results.items()):
        if isinstance(lines, DataError):
            errors.append(lines)
            continue
        if left_out:
            errors += lines.errors
            errors += [error for what, error in lines.counted if what not in (_EMPTY, CUT)]
        errors += check_images([image], root=layout.root)
    return errors


def _read(layout: YoloLayout, image: str) -> _Lines:
    """Read the labels of an image."""
    path = label_file(layout.root, image)
    lines = _Lines(BoxRecord(image, image, path or layout.root / image))
    if path is None:
        problem = DataError(
            "Expected a file of labels of this image, but there is none.", path=layout.root / image
        )
        lines.counted.append((_EMPTY, problem))
        return lines
    seen: set[str] = set()
    for number, text in enumerate(text_of(path).splitlines(), 1):
        if not text.strip():
            continue
        lines.count += 1
        where = f"line {number}"
        plain = " ".join(text.split())
        if plain in seen:
            problem = DataError(
                f"Expected each line once, but {plain[:60]!r} comes again.", path=path, record=where
            )
            lines.counted.append((_AGAIN, problem))
            continue
        seen.add(plain)
        try:
            label, box, outline = _object(plain, layout)
        except ValueError as error:
            lines.errors.append(DataError(str(error), path=path, record=where, field="line"))
            continue
        if outline is not None:
            lines.long += 1
            lines.lengths.add(len(outline))
            if _like_pose(outline):
                text = f"Expected kpt_shape in data.yaml, but got a box and points inside it: {plain[:60]!r}."
                lines.poses.append(DataError(text, path=path, record=where, field="line"))
        case = lines.record.add(label, box, None if outline is None else [outline], None, where)
        if case is not None and case[0] == CUT:
            lines.counted.append(case)
        elif case is not None:
            lines.errors.append(case[1])
    return lines


def _object(line: str, layout: YoloLayout) -> tuple[int, list[float], list[float] | None]:
    """Return class, xyxy in shares and outline of a line, or raise `ValueError` with what is wrong."""
    words = line.split(" ")
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"Expected numbers, but got {line[:60]!r}.") from None
    label = int(values[0]) if values[0].is_integer() else -1
    if label < 0 or (layout.named and label >= len(layout.names)):
        last = len(layout.names) - 1
        known = f"in 0..{last}" if layout.named else "a whole number from 0 up"
        raise ValueError(f"Expected a class {known}, but got {words[0]!r}.")
    if layout.keypoints:
        values = values[:5]
    if len(values) >= 7 and len(values) % 2:
        outline = values[1:]
        xs, ys = outline[::2], outline[1::2]
        return label, [min(xs), min(ys), max(xs), max(ys)], outline
    if len(values) not in (5, 6):  # the sixth is a score
        raise ValueError(f"Expected class x y width height, or three points and more, but got {line[:60]!r}.")
    x, y, width, height = values[1:5]
    if max(abs(value) for value in values[1:5]) > 2:
        raise ValueError(f"Expected shares of the image from 0 to 1, but got {line[:60]!r}: are they pixels?")
    return label, [x - width / 2, y - height / 2, x + width / 2, y + height / 2], None


def _like_pose(values: Sequence[float]) -> bool:
    """Return whether four values are a box x, y, width, height, and all points after them are inside it."""
    x, y, width, height = values[:4]
    if width <= 0 or height <= 0 or max(x + width / 2, y + height / 2) > 1 + 1e-3:
        return False
    if min(x - width / 2, y - height / 2) < -1e-3:
        return False
    rest = values[4:]
    triples = len(rest) % 3 == 0 and all(value in (0, 1, 2) for value in rest[2::3])
    step = 3 if triples else 2
    points = [rest[index : index + 2] for index in range(0, len(rest), step)]
    seen = [point for point in points if any(point)]  # 0, 0 is a point that is not there
    return bool(seen) and all(
        abs(px - x) <= width / 2 + 1e-3 and abs(py - y) <= height / 2 + 1e-3 for px, py in seen
    )


def _poses(by_split: Iterable[list[_Lines]]) -> tuple[bool, int]:
    """Return whether all long lines look like key points, and how many there are."""
    files = [lines for each in by_split for lines in each]
    count = sum(lines.long for lines in files)
    lengths = set[int]().union(*(lines.lengths for lines in files))
    return len(lengths) == 1 and count == sum(len(lines.poses) for lines in files), count
