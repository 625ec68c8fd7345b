"""YOLO text files: one an image, a line an object, in shares of the image's sides.

A line is `class x y width height` (centre and size), or `class x1 y1 x2 y2 x3 y3 ...` (an outline). Names of
the classes stand in `data.yaml` or `classes.txt`.
Source: https://docs.ultralytics.com/datasets/detect/ and /segment/ (the layout and the lines).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from visionkit.data.formats.boxes import CUT, BoxCounts, BoxReader, BoxRecord, box_splits
from visionkit.data.notices import MAX_DROPPED
from visionkit.data.read_image import PICTURE_SUFFIXES, inside, read_image
from visionkit.data.splits import SPLIT_ALIASES, Splits
from visionkit.errors import DataError

__all__ = ["check_yolo", "is_yolo", "yolo"]

_NAMES = ("classes.txt", "obj.names", "classes.names", "names.txt")
_LARGEST = 50_000_000  # bytes of a text file
_AGAIN = "lines that come again in their file, left out"
_EMPTY = "images without a file of labels, taken for images without objects"
_LINES = "lines that cannot be right, left out"
_UNNAMED = "classes without a name, called by their numbers"


@dataclass
class _Layout:
    """Where the images of each split lie, and what the classes are called."""

    root: Path
    images: dict[str, list[str]]
    names: list[str]
    keypoints: bool = False
    named: bool = True


@dataclass
class _Lines:
    """What a file of labels says, and its faults."""

    record: BoxRecord
    faults: list[DataError] = field(default_factory=list)
    counted: list[tuple[str, DataError]] = field(default_factory=list)
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
        for lines in files:
            for fault in lines.faults:
                counted.add(_LINES, fault)
            for what, fault in lines.counted:
                counter = counted.images if what == _EMPTY else counted.objects
                counter.add(what, fault, harmless=what in (_AGAIN, _EMPTY))
        if not layout.named:
            counted.objects.add(_UNNAMED, layout.root, count=len(layout.names), harmless=True)
        counted.object_total, counted.image_total = sum(lines.count for lines in files), len(files)
        records = [lines.record for lines in files]
        readers[split] = BoxReader(layout.root, records, layout.names, shares=True, masks=masks)
    return box_splits(layout.root, readers, layout.names, counts, seed=seed)


def check_yolo(root: str | os.PathLike[str]) -> list[DataError]:
    """Return every fault of a YOLO folder: names, lines, images.

    Args:
        root: As in `yolo`.
    """
    try:
        layout = _layout(Path(root))
    except DataError as fault:
        return [fault]
    faults: list[DataError] = []
    for image in sorted({image for images in layout.images.values() for image in images}):
        try:
            lines = _read(layout, image)
            faults += lines.faults
            faults += [fault for what, fault in lines.counted if what not in (_EMPTY, CUT)]
            read_image(image, root=layout.root)
        except DataError as fault:
            faults.append(fault)
    return faults


def _layout(root: Path) -> _Layout:
    file = _yaml_of(root)
    top = root if root.is_dir() else root.parent
    content: dict[str, Any] = _load(file) if file is not None else {}
    names, named = _class_names(top, content)
    images: dict[str, list[str]] = {}
    for split, aliases in SPLIT_ALIASES.items():
        given = next((content[alias] for alias in aliases if content.get(alias)), None)
        found = _given(top, content, given) if given else []
        images[split] = found or _conventional(top, aliases)
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
        top, {split: found for split, found in images.items() if found}, names, "kpt_shape" in content, named
    )


def _class_names(top: Path, content: dict[str, Any]) -> tuple[list[str], bool]:
    """Return the names of the classes, and whether there are any."""
    names = content.get("names")
    if isinstance(names, dict):
        try:
            numbered = {int(key): str(value) for key, value in names.items()}
        except (TypeError, ValueError):
            raise DataError(
                "Expected names as number: name, but got others.", path=top, field="names"
            ) from None
        if sorted(numbered) != list(range(len(numbered))):
            text = f"Expected names of 0 to {len(numbered) - 1}, but got {sorted(numbered)[:5]} ..."
            raise DataError(text, path=top, field="names")
        names = [numbered[number] for number in range(len(numbered))]
    if names is None:
        file = next((top / name for name in _NAMES if (top / name).is_file()), None)
        file = file or next((f for f in (top / "labels" / n for n in _NAMES) if f.is_file()), None)
        if file is None:
            return [], False
        names = [line.strip() for line in _text(file).splitlines() if line.strip()]
    if not isinstance(names, list) or not names:
        raise DataError(f"Expected a list of names, but got {names!r}.", path=top, field="names")
    named = [str(name) for name in names]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise DataError(f"Expected each class once, but {twice[0]!r} comes twice.", path=top, field="names")
    return named, True


def _given(top: Path, content: dict[str, Any], given: Any) -> list[str]:
    """Return the images that an entry of data.yaml names: below the folder, whatever path it was made for."""
    images: list[str] = []
    base = str(content.get("path") or "").replace("\\", "/")
    for entry in given if isinstance(given, list) else [given]:
        text = str(entry).replace("\\", "/")
        parts = [part for part in PurePosixPath(text).parts if part not in ("/", ".", "..")]
        tries = [f"{base}/{text}", text] if base and not base.startswith("/") else [text]
        # Made on another machine, or relative to another folder: the end of the path is what is here.
        tries += ["/".join(parts[place:]) for place in range(len(parts))]
        for each in tries:
            clean = os.path.normpath(each)
            if clean.startswith((os.sep, "..")) or not (top / clean).exists():
                continue
            inside(top, clean)
            images += _listed(top, clean) if (top / clean).is_file() else _images_in(top, clean)
            break
    return list(dict.fromkeys(images))


def _listed(top: Path, file: str) -> list[str]:
    """Return the images that a text file lists, one a line."""
    images = []
    for number, line in enumerate(_text(top / file).splitlines(), 1):
        parts = [part for part in PurePosixPath(line.strip().replace("\\", "/")).parts if part not in "./.."]
        found = next((p for p in range(len(parts)) if (top / "/".join(parts[p:])).is_file()), None)
        if line.strip() and found is None:
            text = f"Expected an image below {top}, but there is none at {line.strip()!r}."
            raise DataError(text, path=top / file, record=f"line {number}", field="path")
        images += [] if found is None else ["/".join(parts[found:])]
    return images


def _conventional(top: Path, aliases: Sequence[str]) -> list[str]:
    listed = {name.lower(): name for name in _names(top)}
    inner = {name.lower(): name for name in _names(top / "images")}
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
        for name in _names(top / folder)
        if os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122 (once for each file)
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
    for number, text in enumerate(_text(path).splitlines(), 1):
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


def _yaml_of(root: Path) -> Path | None:
    """Return the data.yaml of a folder: the one YAML file that has names and a split."""
    files = [root] if root.is_file() else [root / name for name in _names(root)]
    for file in files:
        if (
            file.suffix.lower() in (".yaml", ".yml")
            and file.is_file()
            and file.stat().st_size < _LARGEST // 50
        ):
            try:
                content = _load(file)
            except DataError:
                continue
            if "names" in content and any(
                alias in content for names in SPLIT_ALIASES.values() for alias in names
            ):
                return file
    return None


def _load(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(_text(file))
    except yaml.YAMLError as error:
        raise DataError(f"Expected YAML, but {error}.", path=file) from None
    return content if isinstance(content, dict) else {}


def _label_folders(top: Path) -> list[str]:
    """Return the folders in which files of labels may lie."""
    folders = ["labels", *(f"labels/{name}" for name in _names(top / "labels"))]
    for name in _names(top):
        if any(name.lower() in names for names in SPLIT_ALIASES.values()):
            folders += [f"{name}/labels", name]
    return [*folders, ""]


def _holds_labels(folder: Path) -> bool:
    """Return whether the first text file of a folder that is not empty is one of YOLO's."""
    names = [name for name in _names(folder) if name.endswith(".txt") and name not in _NAMES]
    for name in names[:20]:
        with (folder / name).open("rb") as stream:
            line = stream.read(2000).decode("utf-8", "replace").split("\n")[0].split()
        if line:
            numbers = [float(word) for word in line]
            return len(numbers) >= 5 and numbers[0].is_integer() and all(abs(v) <= 2 for v in numbers[1:])
    return False


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST:
            raise DataError(f"Expected a text of at most {_LARGEST / 1e6:g} MB.", path=file)
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"Expected text in UTF-8, but {error.reason}.", path=file) from None
    except OSError as error:
        raise DataError(f"Expected a readable text, but {error.strerror or error}.", path=file) from None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    except OSError:
        return []
