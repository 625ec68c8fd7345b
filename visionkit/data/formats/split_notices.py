"""Notices about the images of splits, in every format: in two splits, not read, of several frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from PIL import Image

from visionkit.data.formats.masks.pairs import holds_images
from visionkit.data.read_image import regular_file
from visionkit.data.splits import SPLIT_ALIASES, Splits, single_labels, split_of
from visionkit.errors import printable
from visionkit.notices import MAX_DROPPED, Notice

__all__ = [
    "MAX_HEADERS",
    "UNREAD_SPLITS",
    "evenly",
    "frame_notices",
    "overlap_notices",
    "split_notices",
    "unread_folder_notices",
    "untrained_classes",
]

Item = TypeVar("Item")
UNREAD_SPLITS = "folders with the name of a split from which no image is read"
UNKNOWN_FOLDERS = "folders beside the splits ignored"
_FORMATS = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")  # that may hold several frames
_SUFFIXES = (".apng", ".avif", ".gif", ".png", ".tif", ".tiff", ".webp")
MAX_HEADERS = 64  # files whose headers are read


def split_notices(
    root: str | os.PathLike[str], readers: Mapping[str, Any], *, max_dropped: float = MAX_DROPPED
) -> tuple[Notice, ...]:
    """Return the notices of the splits of a data set: images in two of them, folders and frames not read.

    Args:
        root: The folder of the data set, or a file in it.
        readers: The reader of each split, before any hold-out; one that offers no `files` is passed over.
        max_dropped: Fraction of a split's images that may be in another split.
    """
    files = {split: reader.files for split, reader in readers.items() if hasattr(reader, "files")}
    notices = overlap_notices(files, max_dropped=max_dropped) + unread_folder_notices(root, files)
    return notices + frame_notices(file for of_split in files.values() for file in of_split)


def _beside(file: str) -> str:
    """Return a file, which may not lead out of its folder."""
    return regular_file(file, os.path.dirname(file))  # noqa: PTH120


def frame_notices(
    files: Iterable[str], *, read: Callable[[str], str | BinaryIO] = _beside, total: int = 0
) -> tuple[Notice, ...]:
    """Return the notice of files that hold several frames or pages, of which only the first is read.

    The headers of up to 64 of the files that may be such are looked at, evenly spread.

    Args:
        files: Paths of images; one that leads out of its folder is not looked at.
        read: Gives the content of one, where they do not lie in folders.
        total: How many images there are, if `files` are some of them.
    """
    able = [file for file in files if file.lower().endswith(_SUFFIXES)]
    chosen = evenly(able, MAX_HEADERS)
    animated = [file for file in chosen if _has_frames(file, read)]
    if not animated:
        return ()
    count, total = len(chosen), max(total, len(able))
    looked = f"all {count}" if count == total else f"{count} of {total:,}"
    what = f"files of several frames or pages, of which the first is read ({looked} were looked at)"
    return (Notice(what, len(animated), 0, printable(animated[0])),)


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` of some items, evenly spread."""
    count = min(len(items), count)
    return [items[index * len(items) // count] for index in range(count)]


def _has_frames(file: str, read: Callable[[str], str | BinaryIO]) -> bool:
    """Return whether a file holds several frames, as far as it can be told without decoding one."""
    try:
        with Image.open(read(file), formats=_FORMATS) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # whoever reads the image names its error
        return False


def overlap_notices(
    files: Mapping[str, Iterable[str]], *, max_dropped: float = MAX_DROPPED
) -> tuple[Notice, ...]:
    """Return a notice for each two splits that share images.

    Args:
        files: The image files of each split, whatever links lead to them.
        max_dropped: The largest fraction of the images of the later split that may be shared.
    """
    sets = {split: _resolved(files[split]) for split in SPLIT_ALIASES if split in files}
    notices = []
    for first, second in combinations(sets, 2):
        shared = sets[first] & sets[second]
        if shared:
            way_out = f"Take them out of one split, or remove the {second} split"
            way_out += ": part of the training images is then held out" if second == "val" else ""
            text = f"{printable(min(shared))} is in {first} and in {second}. {way_out}"
            what = f"{second}: images that are in {first}, too"
            notices.append(Notice(what, len(shared), len(sets[second]), text, max_dropped))
    return tuple(notices)


def unread_folder_notices(
    root: str | os.PathLike[str], files: Mapping[str, Iterable[str]], *, unscored: Collection[str] = ()
) -> tuple[Notice, ...]:
    """Return notices of the folders that look like splits, but of which no image is in any split.

    Folders with the name of a split are looked for in the root and beside the split folders that were read;
    folders of other names count where they hold images and stand beside a split folder that was read.

    Args:
        root: The folder of the data set, or a file in it.
        files: The image files of each split.
        unscored: Splits whose folders are known to have no annotations that are read.
    """
    top = os.path.realpath(root)
    top = top if os.path.isdir(top) else os.path.dirname(top)  # noqa: PTH112, PTH120
    read = _folders_of(top, files)
    parents = {os.path.dirname(folder) for folder in read if split_of(os.path.basename(folder))}  # noqa: PTH119, PTH120
    parents.discard(os.path.dirname(top))  # noqa: PTH120 (the root itself may be called train)
    unread, unknown = [], []
    for parent in sorted({top, *parents}):
        for name in _folder_names(parent):
            folder = os.path.join(parent, name)  # noqa: PTH118
            if folder in read or split_of(name) in unscored:
                continue
            if split_of(name):
                unread.append(folder)
            elif parent in parents and holds_images(Path(folder)):
                unknown.append(folder)
    notices = []
    if unread:
        text = f"{printable(unread[0])} holds no image that can be read together with its annotation"
        if split_of(os.path.basename(unread[0])) == "val" and not files.get("val"):  # noqa: PTH119
            text += ", so that part of the training images is held out"
        notices.append(Notice(UNREAD_SPLITS, len(unread), 0, text))
    if unknown:
        text = f"{printable(unknown[0])} has the name of no split (train, val, test)"
        notices.append(Notice(UNKNOWN_FOLDERS, len(unknown), 0, text))
    return tuple(notices)


def _resolved(files: Iterable[str]) -> set[str]:
    """Return files with the links of their folders resolved; each folder is looked at once."""
    folders: dict[str, str] = {}
    resolved = set()
    for file in files:
        folder, name = os.path.split(file)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        resolved.add(f"{folders[folder]}{os.sep}{name}")
    return resolved


def _folders_of(top: str, files: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the folders below `top` in which files lie, and those around them up to `top`."""
    folders: set[str] = set()
    for each in {os.path.dirname(file) for split in files.values() for file in split}:  # noqa: PTH120
        folder = os.path.realpath(each)
        while folder.startswith(top) and folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)  # noqa: PTH120
    return folders


def _folder_names(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []
    return sorted(names)


def untrained_classes(splits: Splits) -> tuple[Notice, ...]:
    """Return a notice where classes of images with one class each have no training image.

    None where the splits have it already: a pack repeats the notices of what it was packed from.
    """
    what = "classes without a training image, never predicted"
    labels = single_labels(splits.train)
    if labels is None or any(notice.what == what for notice in splits.notices):
        return ()
    trained = set(labels.tolist())
    absent = [name for number, name in enumerate(splits.classes) if number not in trained]
    return (Notice(what, len(absent), len(splits.classes), f"class {absent[0]!r}"),) if absent else ()
