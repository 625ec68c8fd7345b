"""A folder of pictures with one sub-folder a class, with or without folders of splits around them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from visionkit.data.read_image import PICTURE_SUFFIXES, read_image
from visionkit.data.splits import HOLDOUT, SPLIT_ALIASES, Splits, holdout
from visionkit.errors import DataError
from visionkit.types import Reader, Sample

__all__ = ["ImageFolder", "class_folders", "find_splits", "image_folder", "pictures_below"]

_WANTED = """Expected either
  {root}/train/<class>/*.jpg  and  {root}/val/<class>/*.jpg  (perhaps {root}/test/<class>/*.jpg), or
  {root}/<class>/*.jpg
but found
{found}"""


class ImageFolder:
    """A reader of `folder/<class>/**/picture`; classes are the names of the sub-folders, sorted.

    Args:
        folder: The folder that holds one folder for each class.
        root: No picture may lie outside this folder once links are resolved; `folder` if not given.

    Raises:
        DataError: The folder is missing or holds no class folders, or a class folder holds no picture.
    """

    def __init__(self, folder: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder)
        self.root = Path(os.path.abspath(self.folder if root is None else root))  # noqa: PTH100
        if not self.folder.is_dir():
            raise DataError("Expected a folder of class folders, but there is none.", path=self.folder)
        names = class_folders(self.folder)
        if not names:
            raise DataError(
                f"Expected one sub-folder for each class, but found\n{tree(self.folder)}", path=self.folder
            )
        self.classes: tuple[str, ...] = tuple(names)
        self.files: list[str] = []
        self.labels: Sequence[int] = []
        self.ignored = 0
        labels: list[int] = []
        for label, name in enumerate(names):
            pictures, ignored = pictures_below(self.folder / name)
            self.ignored += ignored
            if not pictures:
                raise DataError(
                    f"Expected at least one picture ({', '.join(sorted(PICTURE_SUFFIXES))}) in the folder of "
                    f"class {name!r}, but it holds {ignored or 'no'} files, none of them a picture. Put "
                    "pictures there or remove the folder.",
                    path=self.folder / name,
                    field="class",
                )
            self.files += pictures
            labels += [label] * len(pictures)
        self.labels = labels
        self.ids: Sequence[str] = [Path(os.path.relpath(file, self.folder)).as_posix() for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Read picture `index` with `label`; raise `DataError` when it cannot be read."""
        image = read_image(os.path.abspath(self.files[index]), root=self.root)  # noqa: PTH100
        return {
            "image": image,
            "id": self.ids[index],
            "label": torch.tensor(self.labels[index]),
            "size": (image.shape[1], image.shape[2]),
        }

    @property
    def file_sizes(self) -> list[int]:
        """Bytes of each file, for the fingerprint."""
        return [Path(file).stat().st_size for file in self.files]


def image_folder(root: str | os.PathLike[str], *, held_out: float = HOLDOUT, seed: int = 0) -> Splits:
    """Return the splits of a folder of pictures.

    Folders of splits go by their usual names (train, training; val, valid, validation, dev; test, testing).
    Without a validation folder a seeded share of the training pictures is held out, even over the classes;
    the test folder is never used for choices. What was done stands in `facts`. A link that leads out of the
    folder is not followed: the picture is a fault.

    Args:
        root: The folder.
        held_out: Share of the training pictures that becomes validation where there is no such folder.
        seed: Seed of the hold-out.

    Raises:
        DataError: No pictures, an empty class folder, classes that differ between splits, or a layout that
            is not known; the text shows what was expected and what was found.
    """
    top = Path(root)
    if not top.is_dir():
        raise DataError("Expected a folder of pictures, but there is none by this name.", path=top)
    found = find_splits(top)
    if not found and not class_folders(top):
        raise DataError(_WANTED.format(root=top, found=tree(top)), path=top)
    if found and "train" not in found:
        text = _WANTED.format(root=top, found=tree(top))
        raise DataError(f"There is no folder to train on. {text}", path=top)
    readers = {split: ImageFolder(folder, root=top) for split, folder in found.items()}
    readers = readers or {"train": ImageFolder(top)}
    train = readers["train"]
    for split, reader in readers.items():
        if reader.classes != train.classes:
            raise DataError(_differ(train, split, reader), path=reader.folder, field="class")
    facts: dict[str, object] = {"root": str(top), "ignored_files": sum(r.ignored for r in readers.values())}
    kept: Reader = train
    val: Reader
    if "val" in readers:
        val = readers["val"]
    else:
        kept, val = holdout(train, held_out, seed=seed)
        facts["held_out"] = (
            f"there is no validation folder: {len(val)} of {len(train)} training pictures are held out "
            f"(share {held_out}, seed {seed})"
        )
    return Splits(kept, val, readers.get("test"), train.classes, top.resolve().name, facts)


def find_splits(root: Path) -> dict[str, Path]:
    """Return the folders of splits in `root`, by split.

    Args:
        root: A folder.

    Raises:
        DataError: Two folders claim the same split.
    """
    found: dict[str, Path] = {}
    for name in class_folders(root):
        for split, aliases in SPLIT_ALIASES.items():
            if name.lower() in aliases:
                if split in found:
                    raise DataError(
                        f"Expected one folder for the split {split!r}, but found {found[split].name!r} and "
                        f"{name!r}. Rename or remove one of them.",
                        path=root,
                    )
                found[split] = root / name
    return found


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
    more = [f"  ... and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join(lines[:limit] + more) if lines else "  an empty folder"


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in `root`, sorted, without hidden ones.

    Args:
        root: A folder.
    """
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def pictures_below(folder: Path) -> tuple[list[str], int]:
    """Return the pictures below a folder, sorted, and the number of other files.

    Args:
        folder: A folder; links to folders are not followed.
    """
    pictures: list[str] = []
    ignored = 0
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES:  # noqa: PTH122 (once for each file)
                pictures.append(f"{base}{os.sep}{name}")
            else:
                ignored += 1
    return sorted(pictures), ignored


def _differ(train: ImageFolder, split: str, reader: ImageFolder) -> str:
    lacking = sorted(set(train.classes) - set(reader.classes))
    extra = sorted(set(reader.classes) - set(train.classes))
    return (
        f"Expected the same classes in every split, but {split} lacks {lacking} and adds {extra}.\n"
        f"  train: {list(train.classes)}\n  {split}: {list(reader.classes)}\n"
        "Rename the folders so that they agree, or remove the class from both."
    )
