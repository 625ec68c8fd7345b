"""A folder of images with one sub-folder a class, with or without folders of splits around them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from visionkit.data.formats.csv.rows import is_image_table
from visionkit.data.formats.folder.layout import (
    class_folders,
    few,
    find_splits,
    folder_layout,
    foreign_layout,
    hidden_folders,
    images_below,
    tree,
)
from visionkit.data.formats.folder.notices import (
    count_dark,
    count_masks,
    count_other_files,
    is_unread_image,
    name_twins,
)
from visionkit.data.formats.source import with_limit
from visionkit.data.formats.split_notices import frame_notices, overlap_notices
from visionkit.data.read_image import IMAGE_SUFFIXES
from visionkit.data.splits import HOLDOUT, Splits, holdout
from visionkit.data.transforms.reduced import load_image
from visionkit.errors import DataError, printable
from visionkit.notices import MAX_DROPPED, Notice, NoticeCounter, check_notices
from visionkit.types import Reader, Sample

__all__ = [
    "ImageFolder",
    "class_folders",
    "find_splits",
    "folder_splits",
    "image_folder",
    "images_below",
    "is_image_folder",
    "join_classes",
    "open_folders",
    "tree",
]

_LAYOUTS = """Expected either
  {root}/train/<class>/*.jpg  and  {root}/val/<class>/*.jpg  (perhaps {root}/test/<class>/*.jpg), or
  {root}/<class>/*.jpg
but found
{listing}"""


class ImageFolder:
    """A reader of `folder/<class>/**/image`; classes are the names of the sub-folders, sorted as text.

    Files that are no images, images in formats that are not read, and images outside of the class folders are
    left out and counted in `notices`.

    Args:
        folder: The folder that holds one folder for each class.
        root: No image may lie outside this folder once links are resolved; `folder` if not given.
        max_dropped: Largest fraction of the images that may be left out.

    Raises:
        DataError: The folder is missing or holds no class folders, a class folder holds no image, or more
            images than `max_dropped` would be left out.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        max_dropped: float = MAX_DROPPED,
    ) -> None:
        self.folder = Path(folder)
        self.root = Path(os.path.abspath(self.folder if root is None else root))  # noqa: PTH100
        if not self.folder.is_dir():
            raise DataError("Expected a folder of class folders, but there is none.", path=self.folder)
        names = class_folders(self.folder)
        if not names:
            raise DataError(
                f"Expected one sub-folder for each class, but found\n{tree(self.folder)}", path=self.folder
            )
        counter = NoticeCounter(max_fraction=max_dropped)
        self.classes: tuple[str, ...] = tuple(printable(name) for name in names)
        self.files: list[str] = []
        self.labels: Sequence[int] = []
        labels: list[int] = []
        others: list[str] = []
        hidden = hidden_folders(self.folder, os.listdir(self.folder))  # noqa: PTH208
        for label, name in enumerate(names):
            images, rest, unseen = images_below(self.folder / name)
            others += rest
            hidden += unseen
            if not images:
                raise _empty_class(self.folder / name, rest)
            self.files += images
            labels += [label] * len(images)
        self.labels = labels
        self.ignored = len(others)
        self.ids: Sequence[str] = [
            printable(Path(os.path.relpath(file, self.folder)).as_posix()) for file in self.files
        ]
        self.notices = self._count(counter, others, hidden)
        check_notices(self.notices, path=str(self.folder))

    def _count(self, counter: NoticeCounter, others: list[str], hidden: list[str]) -> tuple[Notice, ...]:
        """Return the notices of the files, those that are read and the others."""
        unread = count_other_files(counter, others)
        with os.scandir(self.folder) as entries:
            loose = sorted(
                entry.path
                for entry in entries
                if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
                and not entry.name.startswith(".")
            )
        if loose:
            text = f"{printable(loose[0])} stands beside the class folders"
            counter.add("images outside of the class folders ignored", text, count=len(loose))
        if hidden:
            text = f"{printable(hidden[0])}: its name begins with a dot; rename it if it belongs to the data"
            counter.add("hidden images and folders ignored", text, count=len(hidden), harmless=True)
        count_masks(counter, self.files)
        count_dark(counter, self.files, root=self.root)
        for one, other in name_twins(self.classes):
            text = f"{one!r} and {other!r} are two classes"
            counter.add("classes whose names differ by case or spaces only", text, harmless=True)
        return counter.notices(len(self.files) + unread + len(loose))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Read image `index` with `label`; raise `DataError` when it cannot be read."""
        image = load_image(os.path.abspath(self.files[index]), root=self.root)  # noqa: PTH100
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


def image_folder(
    root: str | os.PathLike[str],
    *,
    held_out: float = HOLDOUT,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of a folder of images.

    Folders of splits go by their usual names (train, training; val, valid, validation, dev; test, testing).
    Where folders with images and other names stand beside them, they are classes (a class may be called
    "train"); a notice says so. Without a validation folder a seeded fraction of the training images is held
    out, even over the classes; the test folder is never used for choices, and left out without classes.
    What was done stands in `facts`, what was left out or assumed in `notices`. A link that leads out of the
    folder is not followed: the image is an error.

    Args:
        root: The folder.
        held_out: Fraction of the training images that becomes validation where there is no such folder.
        seed: Seed of the hold-out.
        max_dropped: Largest fraction of a split's images that may be left out.

    Raises:
        DataError: No images, an empty class folder, classes that differ between splits, more than
            `max_dropped` left out, the layout of another task, or one that is not known; the text shows what
            was expected and what was found.
    """
    top = Path(root)
    readers, notices = open_folders(top, max_dropped=max_dropped)
    return folder_splits(top, readers, notices, held_out=held_out, seed=seed, max_dropped=max_dropped)


def folder_splits(
    top: Path,
    readers: Mapping[str, ImageFolder],
    notices: Sequence[Notice],
    *,
    held_out: float = HOLDOUT,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of a folder whose readers are made; the arguments are those of `image_folder`.

    Args:
        top: The folder.
        readers: The reader of each split.
        notices: What was left out.
        held_out: See `image_folder`.
        seed: See `image_folder`.
        max_dropped: See `image_folder`.

    Raises:
        DataError: Classes differ between splits, or too much is left out.
    """
    train = readers["train"]
    for split, reader in readers.items():
        if reader.classes != train.classes:
            raise DataError(
                classes_differ(train.classes, split, reader.classes), path=reader.folder, field="class"
            )
    files = {split: reader.files for split, reader in readers.items()}
    notices = (
        *with_limit(notices, max_dropped),
        *overlap_notices(files, max_dropped=max_dropped),
        *frame_notices(file for of_split in files.values() for file in of_split),
    )
    facts: dict[str, object] = {"root": str(top), "ignored_files": sum(r.ignored for r in readers.values())}
    remaining: Reader = train
    val: Reader
    if "val" in readers:
        val = readers["val"]
    else:
        remaining, val = holdout(train, held_out, seed=seed, path=top)
        facts["held_out"] = (
            f"there is no validation folder: {len(val)} of {len(train)} training images are held out "
            f"(share {held_out}, seed {seed})"
        )
    name = printable(top.resolve().name)
    return Splits(remaining, val, readers.get("test"), train.classes, name, facts, notices)


def join_classes(readers: Sequence[ImageFolder]) -> None:
    """Give the readers of the splits one list of classes, where each has its own.

    Args:
        readers: They are changed: their classes, and the numbers of them.
    """
    names = tuple(sorted({name for reader in readers for name in reader.classes}))
    numbers = {name: number for number, name in enumerate(names)}
    for reader in readers:
        own = reader.classes
        reader.labels = [numbers[own[label]] for label in reader.labels]
        reader.classes = names


def is_image_folder(root: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds class folders, and not the layout of another task; it never raises.

    Args:
        root: Any path.
    """
    top = Path(root)
    try:
        return top.is_dir() and bool(class_folders(top)) and foreign_layout(top) is None
    except OSError:
        return False


def open_folders(
    top: Path, *, max_dropped: float = MAX_DROPPED
) -> tuple[dict[str, ImageFolder], tuple[Notice, ...]]:
    """Return a reader for each split of a folder ("train" among them), and their notices.

    Args:
        top: The folder.
        max_dropped: Largest fraction of a split's images that may be left out.

    Raises:
        DataError: As `image_folder`, except for classes that differ between splits.
    """
    if not top.is_dir():
        raise DataError("Expected a folder of images, but there is none by this name.", path=top)
    foreign = foreign_layout(top)
    if foreign is not None:
        raise DataError(f"Expected folders of classes, but found {foreign}.", path=top)
    layout = folder_layout(top)
    if not class_folders(top):
        raise DataError(_LAYOUTS.format(root=top, listing=tree(top)), path=top)
    if "" not in layout.splits and "train" not in layout.splits:
        text = _LAYOUTS.format(root=top, listing=tree(top))
        raise DataError(f"There is no folder to train on. {text}", path=top)
    readers = {
        split or "train": ImageFolder(folder, root=top, max_dropped=max_dropped)
        for split, folder in layout.splits.items()
    }
    multiple = len(readers) > 1
    notices = [
        Notice(f"{split}: {n.what}" if multiple else n.what, n.count, n.total, n.first, n.max_fraction)
        for split, reader in readers.items()
        for n in reader.notices
    ]
    beside = NoticeCounter(max_fraction=max_dropped)
    for split, folder in layout.unlabelled.items():
        count = len(images_below(folder)[0])
        text = f"{printable(str(folder))} has no class folders, so that there is no {split} split"
        beside.add(f"images of {split} without a class left out", text, count=count, harmless=True)
    if layout.guessed:
        names = ", ".join(printable(repr(name)) for name in layout.guessed)
        text = f"{names} in {top}, since folders beside it have the name of no split"
        what = "folders with the name of a split taken for a class"
        beside.add(what, text, count=len(layout.guessed), choice=True)
    for folder in layout.ignored:
        count = len(images_below(folder)[0])
        text = f"{printable(str(folder))} has the name of no split (train, val, test)"
        what = f"{'images' if count else 'folders'} beside the splits ignored"
        beside.add(f"{what} ({printable(folder.name)})", text, count=count or 1, choice=not count)
    tables = [file for file in sorted(top.iterdir()) if is_image_table(file)]
    if tables:
        text = f"{printable(str(tables[0]))}: give the file itself to have its labels read"
        beside.add("tables of images beside the class folders not read", text, count=len(tables), choice=True)
    if len(readers["train"].classes) == 1:
        text = f"{readers['train'].classes[0]!r}: there is nothing to tell it from"
        beside.add("data sets of one class", text, choice=True)
    read = sum(map(len, readers.values()))
    left = sum(count for what, count in beside.counts.items() if what.startswith("images"))
    return readers, (*notices, *beside.notices(read + left))


def _empty_class(folder: Path, others: Sequence[str]) -> DataError:
    """Return the error of a class folder without an image that is read."""
    first = f" The first is {printable(Path(others[0]).name)}." if others else ""
    unread = sum(map(is_unread_image, others))
    if unread:
        first += f" {unread} are images in a format that is not read: convert them (to .png, say)."
    held = f"{len(others)} files, none of them an image that is read" if others else "no files"
    return DataError(
        f"Expected at least one image ({', '.join(sorted(IMAGE_SUFFIXES))}) in the folder of class "
        f"{printable(folder.name)!r}, but it holds {held}.{first} Put images there or remove the folder.",
        path=folder,
        field="class",
    )


def classes_differ(train: Sequence[str], split: str, classes: Sequence[str], *, of: str = "train") -> str:
    """Return the error text for a split that lacks or adds classes.

    Args:
        train: The classes of the training split.
        split: The other one.
        classes: Its classes.
        of: What the first split is called.
    """
    missing = sorted(set(train) - set(classes))
    extra = sorted(set(classes) - set(train))
    parts = [f"lacks {len(missing):,} of the {len(train):,} of {of}: {few(missing)}"] if missing else []
    parts += [f"adds {len(extra):,}: {few(extra)}"] if extra else []
    twins = name_twins([*missing, *extra])
    hint = f" {twins[0][0]!r} and {twins[0][1]!r} differ by case or spaces only." if twins else ""
    return (
        f"Expected the same classes in every split, but {split} {' and '.join(parts)}. "
        f"Rename the folders so that they agree, or remove the class from both.{hint}"
    )
