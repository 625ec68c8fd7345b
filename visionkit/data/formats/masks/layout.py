"""Where the images and masks of a data set lie: folders of every usual name."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from visionkit.data.formats.masks.pairs import MaskSplit, holds_images, holds_pairs, match_files
from visionkit.data.splits import SPLIT_ALIASES, split_of
from visionkit.errors import DataError

__all__ = ["MaskFolders", "find_folders", "folder_layout", "is_mask_folder"]

_IMAGES = ("images", "image", "imgs", "img")
_MASKS = ("masks", "mask", "labels", "label", "annotations", "segmentations", "annots", "gt")
_JOINED = ("annot", "_annot", "_labels", "_label", "_masks", "_mask", "masks", "labels")  # trainannot
_PAIRS = (("camvid_rgb", "camvid_label"), ("701_stillsraw_full", "labeledapproved_full"))
_LAYOUTS = (
    "train/images beside train/masks, images/train beside masks/train, train beside trainannot, images "
    "beside masks, or a.jpg beside a_mask.png"
)


@dataclass
class MaskFolders:
    """The folders of a data set.

    Args:
        splits: Folder of images and folder of masks of each split.
        unread: Folders that look like parts of it but are not read, each with the reason.
    """

    splits: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def folder_layout(root: Path) -> dict[str, MaskSplit]:
    """Find the splits of a folder of images and masks.

    Args:
        root: The folder.

    Raises:
        DataError: None of the layouts is there, or two folders claim the same split.
    """
    if not root.is_dir():
        raise DataError("Expected a folder of images and masks, but there is none.", path=root)
    folders = find_folders(root)
    if "train" not in folders.splits:
        has = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        unread = f" Not read: {'; '.join(folders.unread[:3])}." if folders.unread else ""
        raise DataError(
            f"Expected {_LAYOUTS}, but the folder holds {has}.{unread}", path=root, field="layout"
        )
    return {split: match_files(root, *pair) for split, pair in folders.splits.items()}


def is_mask_folder(root: str | Path) -> bool:
    """Return whether a path is a folder of images and masks, in a layout that `folder_layout` knows.

    Args:
        root: Any path.
    """
    try:
        return Path(root).is_dir() and "train" in find_folders(Path(root)).splits
    except DataError:
        return True  # two folders claim a split: the reader names them
    except OSError:
        return False


def find_folders(root: Path) -> MaskFolders:
    """Find the folders of images and masks, by their names in any case (`SPLIT_ALIASES` names the splits).

    Args:
        root: The folder.

    Raises:
        DataError: Two folders claim the same split.
    """
    folders = MaskFolders()
    below = _folders(root)
    for folder in below:  # train/images beside train/masks
        images = _probe(folder, _IMAGES)
        masks = None if images is None else _masks(_folders(folder))
        if images is not None and masks is not None:
            _claim(folders, root, folder.name, (images, masks))
        elif images is not None and split_of(folder.name) is not None:
            folders.unread.append(f"{folder.name}, which has images but no folder of masks")
    images, masks = _first(below, _IMAGES), _masks(below)
    if images is not None and masks is not None:  # images/train beside masks/train
        inner, beside = _folders(images), _folders(masks)
        if any(split_of(folder.name) for folder in inner):
            for folder in inner:
                same = [other for other in beside if _same(other.name, folder.name)]
                if len(same) == 1:
                    _claim(folders, root, folder.name, (folder, same[0]))
                else:
                    folders.unread.append(f"{images.name}/{folder.name}, which has no folder of masks")
        elif not folders.splits:
            folders.splits["train"] = (images, masks)
    if not folders.splits:
        for folder in below:  # train beside trainannot
            joined = _first(below, tuple(folder.name + end for end in _JOINED))
            if split_of(folder.name) is not None and joined is not None:
                _claim(folders, root, folder.name, (folder, joined))
        for one, two in _PAIRS if not folders.splits else ():
            images, masks = _first(below, (one,)), _first(below, (two,))
            if images is not None and masks is not None:
                folders.splits["train"] = (images, masks)
    if not folders.splits:  # a.jpg beside a_mask.png
        for folder in below:
            if split_of(folder.name) is not None and holds_pairs(folder):
                _claim(folders, root, folder.name, (folder, folder))
        if not folders.splits and holds_pairs(root):
            folders.splits["train"] = (root, root)
    for folder in below if folders.splits else ():
        named = split_of(folder.name) is not None and split_of(folder.name) not in folders.splits
        if named and not any(text.startswith(folder.name) for text in folders.unread):
            folders.unread.append(f"{folder.name}, which has no folder of images")
    return folders


def _claim(folders: MaskFolders, root: Path, name: str, pair: tuple[Path, Path]) -> None:
    """Give a pair of folders to the split that a name means."""
    split = split_of(name)
    shown = " beside ".join(part.relative_to(root).as_posix() for part in pair)
    if split is None:
        known = ", ".join(alias for aliases in SPLIT_ALIASES.values() for alias in aliases)
        folders.unread.append(f"{shown}, as {name!r} is no name of a split ({known})")
    elif split in folders.splits:
        first = " beside ".join(part.relative_to(root).as_posix() for part in folders.splits[split])
        raise DataError(
            f"Expected one place for the split {split!r}, but found {first}, and {shown}. Rename or remove "
            "one of them.",
            path=root,
            field="layout",
        )
    else:
        folders.splits[split] = pair


def _masks(below: list[Path]) -> Path | None:
    """Return the folder of masks among folders; one of a name that others use too must hold images."""
    for name in _MASKS:
        folder = _first(below, (name,))
        if folder is not None and (name.startswith("mask") or holds_images(folder)):
            return folder
    return None


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return [folder / name for name in sorted(names)]


def _probe(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first of some folders that is there, without listing a folder of many files."""
    spelled = (kind for name in names for kind in (name, name.capitalize(), name.upper()))
    return next((path for kind in spelled if (path := folder / kind).is_dir()), None)


def _first(folders: list[Path], names: tuple[str, ...]) -> Path | None:
    """Return the first of some names, in any case, that is among folders."""
    by_name = {folder.name.lower(): folder for folder in reversed(folders)}
    return next((by_name[name.lower()] for name in names if name.lower() in by_name), None)


def _same(one: str, other: str) -> bool:
    """Return whether two names are equal or mean the same split."""
    return one.lower() == other.lower() or (split_of(one) is not None and split_of(one) == split_of(other))
