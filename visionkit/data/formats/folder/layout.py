"""Tell folders of splits from folders of classes, and recognise the layouts of other tasks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionkit.data.formats.csv.delimited import TABLE_SUFFIXES
from visionkit.data.read_image import IMAGE_SUFFIXES
from visionkit.data.splits import SPLIT_ALIASES, split_of
from visionkit.errors import DataError, printable

__all__ = [
    "FolderLayout",
    "class_folders",
    "few",
    "find_splits",
    "folder_layout",
    "foreign_layout",
    "hidden_folders",
    "images_below",
    "tree",
]

_UNLABELLED = frozenset({"unknown", "unlabeled", "unlabelled", "images", "imgs", "all"})
_WORD = re.compile(r"[^a-z]+")
# Folders that stand for a part of a sample, not for a class.
_PARTS = frozenset({
    "annotation", "annotations", "bboxes", "boxes", "captions", "flicker8k_dataset", "flickr30k_images",
    "flickr8k_dataset", "gtcoarse", "gtfine", "image", "images", "images_detectron2", "imagesets",
    "img", "imgs", "jpegimages", "label", "labels", "leftimg8bit", "mask", "masks", "segmentationclass",
    "segmentationclassaug", "segmentationobject", "testannot", "trainannot", "valannot",
})  # fmt: skip
_OTHERS = (
    ("Cityscapes masks", ("leftimg8bit", "gtfine", "gtcoarse"), "recipes/segment.py"),
    (
        "a Pascal VOC folder",
        ("jpegimages", "imagesets", "segmentationclass"),
        "recipes/detect.py or segment.py",
    ),
    ("YOLO boxes", ("labels", "label"), "recipes/detect.py"),
    ("images and masks", ("masks", "mask", "trainannot"), "recipes/segment.py"),
    ("images with annotations", ("annotations", "annotation", "bboxes", "boxes"), "recipes/detect.py"),
)


@dataclass(frozen=True)
class FolderLayout:
    """What the folders in the root of a data set mean.

    Args:
        splits: The folder of each split; {"": root} where the class folders stand in the root.
        unlabelled: Folders of a split whose images have no class.
        guessed: Folders with the name of a split that are taken for classes.
        ignored: Folders beside the splits that are not read.
    """

    splits: dict[str, Path]
    unlabelled: dict[str, Path] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    ignored: tuple[Path, ...] = ()


def folder_layout(root: Path) -> FolderLayout:
    """Tell splits from classes.

    Folders with the names of splits are splits where no other folder with images stands beside them, or where
    the folders of training and of another split hold the same classes. Else they are classes.

    Args:
        root: A folder.

    Raises:
        DataError: Two folders claim one split, or it cannot be told whether a folder is a class or a split.
    """
    names = class_folders(root)
    named = [name for name in names if split_of(name)]
    others = [name for name in names if not split_of(name)]
    if not named:
        _refuse_nearly_splits(root, names)
        return FolderLayout({"": root})
    rivals = [name for name in others if _has_images(root / name)]
    inner = {name: class_folders(root / name) for name in named}
    if rivals:
        shared = _shared_classes(inner)
        if not shared:
            return _as_classes(root, named, rivals, inner)
    folders = _by_split(root, named)
    labelled, unlabelled = dict(folders), {}
    known = inner[folders["train"].name] if "train" in folders else []
    for split, folder in folders.items():
        inside = inner[folder.name]
        lone = (
            len(inside) == 1
            and inside[0] not in known
            and (split_of(inside[0]) or inside[0].lower() in _UNLABELLED)
        )
        if split != "train" and known and (not inside or lone) and _has_images(folder):
            unlabelled[split] = labelled.pop(split)
    ignored = tuple(root / name for name in others)
    return FolderLayout(labelled, unlabelled, (), ignored)


def find_splits(root: Path) -> dict[str, Path]:
    """Return the folders of splits in `root`, by split; none where the folders are classes.

    Args:
        root: A folder.

    Raises:
        DataError: As `folder_layout`.
    """
    layout = folder_layout(root)
    folders = {**layout.splits, **layout.unlabelled}
    return {} if "" in folders else folders


def _shared_classes(inner: dict[str, list[str]]) -> bool:
    """Return whether the training folder and another split's hold the same class folders."""
    train = [set(names) for name, names in inner.items() if split_of(name) == "train"]
    rest = [set(names) for name, names in inner.items() if split_of(name) != "train"]
    return any(len(a & b) * 2 > max(len(a), len(b)) for a in train for b in rest)


def _as_classes(
    root: Path, named: Sequence[str], rivals: Sequence[str], inner: dict[str, list[str]]
) -> FolderLayout:
    """Return the layout in which folders with the names of splits are classes, or refuse to guess."""
    for name in named:
        if split_of(name) != "train" or len(inner[name]) < 2:
            continue
        beside = [set(class_folders(root / rival)) for rival in rivals]
        if not any(set(inner[name]) & folders for folders in beside):
            raise DataError(
                f"Expected to tell classes from splits, but {name!r} has folders of its own "
                f"({', '.join(map(repr, inner[name][:4]))}) and stands beside {rivals[0]!r}. If {name!r} is "
                f"the training split, move {', '.join(map(repr, rivals[:4]))} out of this folder; if it is a "
                "class, move all class folders into a folder train/.",
                path=root,
                field="class",
            )
    return FolderLayout({"": root}, guessed=tuple(named))


def _by_split(root: Path, named: Sequence[str]) -> dict[str, Path]:
    by_split: dict[str, Path] = {}
    for name in named:
        split = str(split_of(name))
        if split in by_split:
            raise DataError(
                f"Expected one folder for the split {split!r}, but found {by_split[split].name!r} and "
                f"{name!r}. Rename or remove one of them.",
                path=root,
            )
        by_split[split] = root / name
    return {split: by_split[split] for split in SPLIT_ALIASES if split in by_split}


def _refuse_nearly_splits(root: Path, names: Sequence[str]) -> None:
    """Refuse folders that are all named nearly like splits (`training_set`, `test_set`), or hold splits."""
    meant = {name: _nearly(name) for name in names}
    splits = {split for each in meant.values() for split in each}
    if names and all(len(each) == 1 for each in meant.values()) and len(splits) == len(names) > 1:
        renamed = ", ".join(f"{name!r} to {next(iter(each))!r}" for name, each in meant.items())
        raise DataError(
            f"Expected the folders of splits to be called train, val and test, but found {list(names)}. "
            f"Rename {renamed}.",
            path=root,
        )
    inside = {name: class_folders(root / name) for name in names[:50]}
    if len(names) == 1 and len(inside[names[0]]) > 1 and not _has_images(root / names[0], depth=0):
        raise DataError(
            f"Expected folders of classes or of splits, but there is one folder, and it holds "
            f"{[*map(printable, inside[names[0]][:4])]}. Give {root / names[0]} if those are what is meant.",
            path=root,
        )
    if len(names) > 1 and all(any(map(split_of, each)) for each in inside.values()):
        name, split = names[0], inside[names[0]][0]
        raise DataError(
            f"Expected folders of splits around the folders of classes, but {name!r} holds {inside[name]}. "
            f"Move {name}/{split} to {split}/{name}, and so on.",
            path=root,
        )


def _nearly(name: str) -> set[str]:
    """Return the splits that a name speaks of (`seg_train`, `val2017`)."""
    return {split for word in _WORD.split(name.lower()) if (split := split_of(word))}


def foreign_layout(root: Path) -> str | None:
    """Return which other layout a folder has and what reads it; None if its folders may be classes.

    Args:
        root: A folder.
    """
    try:
        try:
            top = folder_layout(root).splits.get("train", root)
        except DataError:  # parts of samples, with splits in them perhaps (images/train, labels/train)
            top = root
        names = {name.lower(): name for name in class_folders(top)}
        if not names:
            return _beside_images(root, top)
        parts = {low: name for low, name in names.items() if low in _PARTS}
        if not parts or any(_has_images(top / name) for low, name in names.items() if low not in parts):
            return None
        lone = next(iter(parts.values()))
        if len(parts) == 1 and not _has_images(top / lone, depth=0):
            return None
        return _named(root, top, parts)
    except OSError:
        return None


def _named(root: Path, top: Path, names: dict[str, str]) -> str:
    """Return the layout that folders of these names belong to."""
    for what, parts, recipe in _OTHERS:
        if any(part in names for part in parts):
            return f"{what} ({', '.join(f'{name}/' for name in names.values())} in {top}): use {recipe}"
    texts = sorted(file.name for file in {*root.glob("*.txt"), *root.glob("*.csv"), *root.glob("*.json*")})
    folder = next(iter(names.values()))
    if texts:
        return (
            f"images in {folder}/ beside {', '.join(texts[:4])}: of a table of labels, give the file itself; "
            "captions are read by recipes/caption.py, boxes by recipes/detect.py"
        )
    return f"images in {folder}/ without any class: labels need a folder for each class, or a CSV file"


def _beside_images(root: Path, top: Path) -> str | None:
    """Return what lies beside the images of a folder without class folders; None if it holds no image."""
    endings: dict[str, str] = {}
    with os.scandir(top) as entries:
        for entry in entries:
            endings.setdefault(os.path.splitext(entry.name)[1].lower(), entry.name)  # noqa: PTH122
    if not endings.keys() & IMAGE_SUFFIXES:
        return None
    tables = [
        file
        for folder in (top, root)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in TABLE_SUFFIXES
    ]
    if tables:
        names = " and ".join(file.name for file in tables[:3])
        noun = "tables" if len(tables) > 1 else "table"
        return (
            f"images in {top} and the {noun} {names}: give the file itself, {tables[0]} say, if it names "
            "images and labels"
        )
    for ending, what in (
        (".xml", "Pascal VOC boxes"),
        (".json", "boxes or outlines"),
        (".txt", "YOLO boxes"),
    ):
        if ending in endings:
            name = printable(endings[ending])
            return f"images and {name} in {top}, {what} perhaps: use recipes/detect.py or segment.py"
    return (
        f"images in {top} without class folders: put them into a folder for each class, or write a CSV file "
        "with the columns path,label and give that"
    )


def _has_images(folder: Path, *, depth: int = 9, max_files: int = 5000) -> bool:
    """Return whether there is an image among the first files in a folder, or this many folders below it."""
    seen = 0
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if base.count(os.sep) - str(folder).count(os.sep) >= depth:
            folders.clear()
        for name in files:
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):  # noqa: PTH122
                return True
        seen += len(files)
        if seen > max_files:
            return False
    return False


def tree(root: Path, *, limit: int = 12) -> str:
    """Return the first entries of a folder, two levels deep, as an indented list.

    Args:
        root: A folder.
        limit: Most lines.
    """
    lines: list[str] = []
    for entry in sorted(root.iterdir()):
        lines.append(f"  {root.name}/{entry.name}{'/' if entry.is_dir() else ''}")
        if entry.is_dir():
            lines += [f"  {root.name}/{entry.name}/{child.name}" for child in sorted(entry.iterdir())[:3]]
        if len(lines) > 10 * limit:
            break
    more = [f"  ... and {len(lines) - limit} more"] if len(lines) > limit else []
    return printable("\n".join(lines[:limit] + more)) if lines else "  an empty folder"


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in `root`, sorted, without hidden ones and those of archivers.

    Args:
        root: A folder.
    """
    with os.scandir(root) as entries:
        return sorted(
            entry.name
            for entry in entries
            if _is_folder(entry) and not entry.name.startswith(".") and entry.name != "__MACOSX"
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def few(names: Sequence[str], *, max_names: int = 12) -> str:
    """Return some names as an error shows them: all, or the first and how many there are.

    Args:
        names: Names of classes.
        max_names: No more than this.
    """
    shown = ", ".join(map(repr, names[:max_names]))
    return f"[{shown}{f', ... {len(names)} in all' if len(names) > max_names else ''}]"


def images_below(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the images below a folder, the other files, and what is hidden, each sorted.

    Hidden are images whose name begins with a dot, and such folders if they hold images.

    Args:
        folder: A folder; links to folders are not followed.
    """
    images: list[str] = []
    others: list[str] = []
    hidden: list[str] = []
    for base, folders, files in os.walk(folder):
        hidden += hidden_folders(base, folders)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            known = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (once for each file)
            if not name.startswith("."):
                (images if known else others).append(f"{base}{os.sep}{name}")
            elif known:
                hidden.append(f"{base}{os.sep}{name}")
    return sorted(images), sorted(others), sorted(hidden)


def hidden_folders(base: str | Path, names: Iterable[str]) -> list[str]:
    """Return the paths of the folders whose name begins with a dot and that hold images.

    Args:
        base: The folder that they are in.
        names: Names of folders.
    """
    paths = [f"{base}{os.sep}{name}" for name in names if name.startswith(".")]
    return [path for path in paths if _has_images(Path(path))]
