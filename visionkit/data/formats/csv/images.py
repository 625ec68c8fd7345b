"""Which file a table means by the path of an image: its folder, and an ending that was left out."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from visionkit.data.formats.image_names import ImageFinder
from visionkit.data.read_image import IMAGE_SUFFIXES, UNREAD_SUFFIXES, inside
from visionkit.errors import DataError, nearest
from visionkit.notices import NoticeCounter

__all__ = ["TableImages", "image_root"]

_MAX_ROWS = 20  # the folder is guessed from


class TableImages:
    """Finds the images of a table below a folder.

    Args:
        root: The folder.
        counter: Where names that had to be completed are counted.
    """

    def __init__(self, root: Path, counter: NoticeCounter) -> None:
        self.root = root
        self.counter = counter
        self.stems: dict[Path, dict[str, list[str]]] = {}
        self.names = ImageFinder(root)
        self.hints = 3  # names near a wrong one are looked for so many times

    def find(self, name: str) -> str:
        """Return the path of an image, relative to the root: as written, completed, or in the file's case.

        Args:
            name: The path as written.

        Raises:
            DataError: There is no such file, or several with an ending; or it lies outside of the folder.
        """
        file = inside(self.root, name)
        if not file.is_file() and "\\" in name:
            name = name.replace("\\", "/")
            file = inside(self.root, name)
        if file.is_file():
            return name
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            ends = self._stems(file.parent).get(file.name, [])
            if len(ends) > 1:
                files = ", ".join(f"{file.name}{end}" for end in ends)
                raise DataError(f"Expected one image called {name!r} in {file.parent}, but found {files}.")
            if ends:
                text = f"{name!r} is taken for {file.name}{ends[0]}"
                self.counter.add("image names completed by their ending", text, harmless=True)
                return name + ends[0]
        other = self.names.find(name)[0]
        if other is not None and other.count("/") == name.count("/") and inside(self.root, other).is_file():
            text = f"{name!r} is taken for {other!r}"
            self.counter.add("image names in other case or spelling", text, harmless=True)
            return other
        raise DataError(
            f"Expected an image at {file}, but there is none. {self._near(file, Path(name).parent)}"
        )

    def _stems(self, folder: Path) -> dict[str, list[str]]:
        """Return the endings of the images in a folder, by the name before the ending."""
        if folder not in self.stems:
            stems: dict[str, list[str]] = defaultdict(list)
            if folder.is_dir():
                for entry in sorted(os.listdir(folder)):  # noqa: PTH208 (a name for each file)
                    stem, end = os.path.splitext(entry)  # noqa: PTH122
                    if end.lower() in IMAGE_SUFFIXES or end.lower() in UNREAD_SUFFIXES:
                        stems[stem].append(end)
            self.stems[folder] = stems
        return self.stems[folder]

    def _near(self, file: Path, folder: Path) -> str:
        """Return what there is instead of a file, named as in the table, with its folder."""
        stems = self._stems(file.parent)
        same = [file.stem + end for end in stems.get(file.stem, [])]
        if same:
            return f"There is {str(folder / same[0])!r}: write the name as the file has it."
        self.hints -= 1
        if self.hints < 0:
            return f"Paths are taken from {self.root}."
        close = nearest(
            file.name, [stem + end for stem, ends in stems.items() for end in ends][:5000], limit=1
        )
        hint = f" Did you mean {str(folder / close[0])!r}?" if close else ""
        others = [folder for folder in folders_below(self.root) if (folder / file.name).is_file()]
        if others:
            hint = f" There is one in {others[0]}."
        return f"Paths are taken from {self.root}; name another folder with root=... (--table.root).{hint}"


def image_root(file: Path, names: Sequence[str], counter: NoticeCounter) -> Path:
    """Return the folder from which a table's paths are taken.

    It is the table's own, unless none of the first images lies there and all of them lie in one folder below.

    Args:
        file: The table.
        names: The paths as written.
        counter: Where a guess is counted.
    """
    top, some = file.parent, list(names[:_MAX_ROWS])
    quiet = NoticeCounter()
    if any(_there(TableImages(top, quiet), name) for name in some):
        return top
    finders = [TableImages(folder, quiet) for folder in folders_below(top)]
    fits = [finder.root for finder in finders if all(_there(finder, name) for name in some)]
    if len(fits) != 1:
        return top
    text = f"{names[0]!r} is not beside {file.name} but in {fits[0]}"
    counter.add("folders of images found below the table's", text, choice=True)
    return fits[0]


def folders_below(root: Path, *, max_folders: int = 50) -> list[Path]:
    """Return the folders in a folder, and those in them.

    Args:
        root: A folder.
        max_folders: No more than this on each level.
    """
    folders: list[Path] = []
    level = [root]
    for _ in range(2):
        level = [folder for top in level for folder in _folders(top)][:max_folders]
        folders += level
    return folders


def _folders(top: Path) -> list[Path]:
    try:
        with os.scandir(top) as entries:
            return sorted(
                Path(e.path) for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] != "."
            )
    except OSError:
        return []


def _there(finder: TableImages, name: str) -> bool:
    try:
        file = inside(finder.root, name)
        return file.is_file() or bool(finder._stems(file.parent).get(file.name))
    except (DataError, OSError):
        return False
