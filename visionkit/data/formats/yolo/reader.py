"""YOLO text files: one an image, a line an object, in shares of the image's sides.

A line is `class x y width height` (centre and size), or `class x1 y1 x2 y2 x3 y3 ...` (an outline). Names of
the classes stand in `data.yaml` or `classes.txt`.
Source: https://docs.ultralytics.com/datasets/detect/ and /segment/ (the layout and the lines).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from visionkit.data.formats.box_records import CUT, BoxCounts, BoxReader, BoxRecord, box_splits
from visionkit.data.formats.yolo.data_yaml import (
    NAME_FILES,
    class_names,
    load_yaml,
    names_in,
    text_of,
    yaml_files,
)
from visionkit.data.read_image import IMAGE_SUFFIXES, inside, read_image
from visionkit.data.splits import SPLIT_ALIASES, Splits
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED

__all__ = ["check_yolo", "is_yolo", "yolo"]

_FEWEST = 5  # lines that tell key points from outlines
_AGAIN = "lines that come again in their file, left out"
_EMPTY = "images without a file of labels, taken for images without objects"
_LINES = "lines that cannot be right, left out"
_POSES = "lines that look like key points without kpt_shape in data.yaml, taken for outlines"
_NO_TEST = "test images that the YAML file names but that are not there"
_UNNAMED = "classes without a name, called by their numbers"


@dataclass
class _Layout:
    """Where the images of each split lie, and what the classes are called."""

    root: Path
    images: dict[str, list[str]]
    names: list[str]
    keypoints: bool = False
    named: bool = True
    no_test: str = ""


@dataclass
class _Lines:
    """What a file of labels says, and its faults."""

    record: BoxRecord
    faults: list[DataError] = field(default_factory=list)
    counted: list[tuple[str, DataError]] = field(default_factory=list)
    poses: list[DataError] = field(default_factory=list)
    lengths: set[int] = field(default_factory=set)
    long: int = 0
    count: int = 0


def is_yolo(root: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds YOLO text files, or a path is its data.yaml; it never raises.

    Args:
        root: Any path.
    """
    try:
        top = Path(root)
        if _yaml_of(top) is not None:
            return True
        return any(_holds_labels(top / folder) for folder in _label_folders(top))
    except (OSError, ValueError):
        return False


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
        max_dropped: Share of a split's lines that may be left out.

    Raises:
        DataError: It is laid out otherwise, a file cannot be read, or too much would be left out.
    """
    layout = _layout(Path(root))
    readers, counts = {}, {}
    found = {split: [_read(layout, image) for image in images] for split, images in layout.images.items()}
    if not layout.named:
        labels = [label for files in found.values() for lines in files for label in lines.record.labels]
        layout.names = [str(number) for number in range(max(labels, default=-1) + 1)]
    for split, files in found.items():
        counted = counts[split] = BoxCounts(max_dropped)
        poses = _poses(found.values())
        if poses and any(lines.poses for lines in files):
            said = [fault for lines in files for fault in lines.poses]
            counted.objects.add(_POSES, said[0], count=len(said))
        for lines in files:
            for fault in lines.faults:
                counted.add(_LINES, fault)
            for what, fault in lines.counted:
                counter = counted.images if what == _EMPTY else counted.objects
                counter.add(what, fault, harmless=what in (_AGAIN, _EMPTY))
        if layout.no_test and split == "train":
            counted.images.add(_NO_TEST, layout.no_test, harmless=True)
        if not layout.named:
            counted.objects.add(_UNNAMED, layout.root, count=len(layout.names), harmless=True)
        counted.object_total, counted.image_total = sum(lines.count for lines in files), len(files)
        records = [lines.record for lines in files]
        readers[split] = BoxReader(layout.root, records, layout.names, shares=True, masks=masks)
    return box_splits(layout.root, readers, layout.names, counts, seed=seed)


def check_yolo(root: str | os.PathLike[str], *, left_out: bool = True) -> list[DataError]:
    """Return every fault of a YOLO folder: names, lines, images.

    Args:
        root: As in `yolo`.
        left_out: Whether what `yolo` leaves out is listed, too.
    """
    try:
        layout = _layout(Path(root))
    except DataError as fault:
        return [fault]
    faults: list[DataError] = []
    for image in sorted({image for images in layout.images.values() for image in images}):
        try:
            lines = _read(layout, image)
            if left_out:
                faults += lines.faults
                faults += [fault for what, fault in lines.counted if what not in (_EMPTY, CUT)]
            read_image(image, root=layout.root)
        except DataError as fault:
            faults.append(fault)
    return faults


def _layout(root: Path) -> _Layout:
    files = yaml_files(root)
    if len(files) > 1 and files[0].stem.lower() != "data":
        both = ", ".join(each.name for each in files)
        text = f"Expected one YAML file of names and splits, but there are {both}. Give the path of one."
        raise DataError(text, path=root)
    file = files[0] if files else None
    top = root if root.is_dir() else root.parent
    content: dict[str, Any] = load_yaml(file) if file is not None else {}
    names, named = class_names(top, content)
    images: dict[str, list[str]] = {}
    no_test = ""
    for split, aliases in SPLIT_ALIASES.items():
        given = next((content[alias] for alias in aliases if content.get(alias)), None)
        found, absent = _given(top, content, given) if given else ([], [])
        images[split] = found or _conventional(top, aliases)
        if absent and split == "test" and not images[split]:
            no_test = f"{file}, field 'test': {absent[0]}"  # exports name a test folder that they leave out
            continue
        if absent and (found or (split != "train" and not images[split])):
            text = f"Expected images at {split}: {absent[0]}, but there are none. Correct or remove it."
            raise DataError(text, path=file, field=split)
    if not images["train"]:
        everything = _images_in(top, "images") or _images_in(top, "")
        if not everything or any(images.values()):
            raise DataError(
                "Expected training images: data.yaml with train: ..., images/train, train/images, or "
                "images/ beside labels/, but found none.",
                path=file or top,
            )
        images["train"] = everything
    return _Layout(
        top,
        {split: found for split, found in images.items() if found},
        names,
        "kpt_shape" in content,
        named,
        no_test,
    )


def _given(top: Path, content: dict[str, Any], given: Any) -> tuple[list[str], list[str]]:
    """Return the images that an entry of data.yaml names, and the parts of it at which there are none.

    They are below the folder, whatever path the entry was made for.
    """
    images: list[str] = []
    absent: list[str] = []
    base = str(content.get("path") or "").replace("\\", "/")
    for entry in given if isinstance(given, list) else [given]:
        text = str(entry).replace("\\", "/")
        parts = [part for part in PurePosixPath(text).parts if part not in ("/", ".", "..")]
        tries = [f"{base}/{text}", text] if base and not base.startswith("/") else [text]
        # Made on another machine, or relative to another folder: the end of the path is what is here.
        tries += ["/".join(parts[place:]) for place in range(len(parts))]
        before = len(images)
        for each in tries:
            clean = os.path.normpath(each)
            if clean.startswith((os.sep, "..")) or not (top / clean).exists():
                continue
            inside(top, clean)
            images += _listed(top, clean) if (top / clean).is_file() else _images_in(top, clean)
            break
        absent += [text] if len(images) == before else []
    return list(dict.fromkeys(images)), absent


def _listed(top: Path, file: str) -> list[str]:
    """Return the images that a text file lists, one a line."""
    images = []
    for number, line in enumerate(text_of(top / file).splitlines(), 1):
        parts = [part for part in PurePosixPath(line.strip().replace("\\", "/")).parts if part not in "./.."]
        found = next((p for p in range(len(parts)) if (top / "/".join(parts[p:])).is_file()), None)
        if line.strip() and found is None:
            text = f"Expected an image below {top}, but there is none at {line.strip()!r}."
            raise DataError(text, path=top / file, record=f"line {number}", field="path")
        images += [] if found is None else ["/".join(parts[found:])]
    return images


def _conventional(top: Path, aliases: Sequence[str]) -> list[str]:
    listed = {name.lower(): name for name in names_in(top)}
    inner = {name.lower(): name for name in names_in(top / "images")}
    for alias in aliases:
        if alias in inner and _images_in(top, f"images/{inner[alias]}"):
            return _images_in(top, f"images/{inner[alias]}")
        if alias in listed:
            folder = listed[alias]
            return _images_in(top, f"{folder}/images") or _images_in(top, folder)
    return []


def _images_in(top: Path, folder: str) -> list[str]:
    return [
        f"{folder}/{name}" if folder not in ("", ".") else name
        for name in names_in(top / folder)
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (once for each file)
    ]


def _label_file(top: Path, image: str) -> Path | None:
    """Return the file of labels of an image: in `labels` where it lies in `images`, or beside it."""
    parts = list(PurePosixPath(image).parts)
    places = [place for place, part in enumerate(parts[:-1]) if part.lower() == "images"]
    tries = [[*parts[:place], "labels", *parts[place + 1 :]] for place in reversed(places)]
    tries += [parts, ["labels", *parts], [*parts[:-1], "labels", parts[-1]]]
    for each in tries:
        file = top.joinpath(*each).with_suffix(".txt")
        if file.is_file():
            return inside(top, file.relative_to(top))
    return None


def _read(layout: _Layout, image: str) -> _Lines:
    """Read the labels of an image."""
    path = _label_file(layout.root, image)
    lines = _Lines(BoxRecord(image, image, path or layout.root / image))
    if path is None:
        fault = DataError(
            "Expected a file of labels of this image, but there is none.", path=layout.root / image
        )
        lines.counted.append((_EMPTY, fault))
        return lines
    seen: set[str] = set()
    for number, text in enumerate(text_of(path).splitlines(), 1):
        if not text.strip():
            continue
        lines.count += 1
        where = f"line {number}"
        plain = " ".join(text.split())
        if plain in seen:
            fault = DataError(
                f"Expected each line once, but {plain[:60]!r} comes again.", path=path, record=where
            )
            lines.counted.append((_AGAIN, fault))
            continue
        seen.add(plain)
        try:
            label, box, outline = _object(plain, layout)
        except ValueError as error:
            lines.faults.append(DataError(str(error), path=path, record=where, field="line"))
            continue
        if outline is not None:
            lines.long += 1
            lines.lengths.add(len(outline))
            if _like_pose(outline):
                text = f"Expected kpt_shape in data.yaml, but got a box and points inside it: {plain[:60]!r}."
                lines.poses.append(DataError(text, path=path, record=where, field="line"))
        said = lines.record.add(label, box, None if outline is None else [outline], None, where)
        if said is not None and said[0] == CUT:
            lines.counted.append(said)
        elif said is not None:
            lines.faults.append(said[1])
    return lines


def _object(line: str, layout: _Layout) -> tuple[int, list[float], list[float] | None]:
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
    points = [rest[place : place + 2] for place in range(0, len(rest), step)]
    seen = [point for point in points if any(point)]  # 0, 0 is a point that is not there
    return bool(seen) and all(
        abs(px - x) <= width / 2 + 1e-3 and abs(py - y) <= height / 2 + 1e-3 for px, py in seen
    )


def _poses(found: Iterable[list[_Lines]]) -> bool:
    """Return whether all long lines are key points: a single outline can look so, a data set does not."""
    files = [lines for each in found for lines in each]
    count = sum(lines.long for lines in files)
    lengths = set[int]().union(*(lines.lengths for lines in files))
    return count >= _FEWEST and len(lengths) == 1 and count == sum(len(lines.poses) for lines in files)


def _yaml_of(root: Path) -> Path | None:
    """Return the data.yaml of a folder, or the first YAML file that has names and a split."""
    return next(iter(yaml_files(root)), None)


def _label_folders(top: Path) -> list[str]:
    """Return the folders in which files of labels may lie."""
    folders = ["labels", *(f"labels/{name}" for name in names_in(top / "labels"))]
    for name in names_in(top):
        if any(name.lower() in names for names in SPLIT_ALIASES.values()):
            folders += [f"{name}/labels", name]
    return [*folders, ""]


def _holds_labels(folder: Path) -> bool:
    """Return whether the first text file of a folder that is not empty is one of YOLO's."""
    names = [name for name in names_in(folder) if name.endswith(".txt") and name not in NAME_FILES]
    for name in names[:20]:
        with (folder / name).open("rb") as stream:
            line = stream.read(2000).decode("utf-8", "replace").split("\n")[0].split()
        if line:
            numbers = [float(word) for word in line]
            return len(numbers) >= 5 and numbers[0].is_integer() and all(abs(v) <= 2 for v in numbers[1:])
    return False
