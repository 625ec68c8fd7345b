"""Where the annotations and the images of a VOC folder lie: VOC's own lists, or files side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionkit.data.read_image import IMAGE_SUFFIXES, inside
from visionkit.data.splits import SPLIT_ALIASES, split_of
from visionkit.errors import DataError

__all__ = ["VocPart", "is_voc", "voc_parts"]

_IMAGES = ("images", "jpegimages", "imgs", "img")
_ANNOTATIONS = ("annotations", "annotation", "xml", "xmls", "labels")
_LISTS = {
    split: (*names, *(("trainval",) if split == "train" else ())) for split, names in SPLIT_ALIASES.items()
}
_FLAGS = ("1", "0", "-1")  # of class lists: present, difficult, absent
_MAX_FILES = 20  # of a folder, read to detect what it holds


@dataclass
class VocPart:
    """One split: names of annotations, and the folders of annotations and images.

    Args:
        root: No file outside this folder is opened.
        images: The folder of the images, from `root`.
        annotations: The folder of the XML files, from `root`.
        names: The annotations, without suffix, each once.
        missing: Names of a list without an annotation, as errors.
        twice: Names listed again, as errors.
        unlabelled: Images without an annotation, as errors, where no list names the images.
    """

    root: Path
    images: Path
    annotations: Path
    names: list[str]
    missing: list[DataError] = field(default_factory=list)
    twice: list[DataError] = field(default_factory=list)
    unlabelled: list[DataError] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path, folders: tuple[str, str], names: Sequence[str]) -> VocPart:
        """Return the part of a list of names, without looking whether there are such annotations."""
        return cls(root, Path(folders[0]), Path(folders[1]), list(names))

    def __post_init__(self) -> None:
        """List the images once."""
        self._listed: dict[str, list[str]] = {}
        self._exact: set[str] = set()
        for name in _names(self.root / self.images):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 (once for each file)
            if suffix.lower() in IMAGE_SUFFIXES:
                self._listed.setdefault(stem, []).append(name)
                self._exact.add(name)

    def annotation(self, name: str) -> Path:
        """Return the path of an annotation from the root."""
        return self.annotations / f"{name}.xml"

    def images_of(self, name: str) -> list[Path]:
        """Return the images of an annotation's name, whatever their suffix, from the root."""
        return [self.images / each for each in self._listed.get(name, ())]

    def image_named(self, file_name: str) -> Path | None:
        """Return the image of a file name, from the root; None if there is none."""
        last = file_name.replace("\\", "/").rsplit("/", 1)[-1]
        if last in self._exact:
            return self.images / last
        alone = self._listed.get(last, ()) if last else ()
        return self.images / alone[0] if len(alone) == 1 else None


def is_voc(root: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds VOC annotations, detected by names and by a look at one file.

    Args:
        root: Any path.
    """
    top = Path(root)
    try:
        if (top / "Annotations").is_dir() and (top / "JPEGImages").is_dir():
            return True
        return bool(_beside(top))
    except (OSError, DataError):
        return False


def voc_parts(root: Path) -> dict[str, VocPart]:
    """Return the parts of a folder by split; all annotations are training where nothing says otherwise.

    Args:
        root: The folder.

    Raises:
        DataError: It is laid out otherwise, or a list is empty or cannot be read.
    """
    if (root / "ImageSets" / "Main").is_dir():
        for part in ("JPEGImages", "Annotations"):
            if not (root / part).is_dir():
                text = f"Expected JPEGImages, Annotations and ImageSets/Main, but {part} is missing."
                raise DataError(text, path=root)
        return _by_lists(root)
    folders = _beside(root)
    if not folders:
        missing = next(
            (p for p in ("JPEGImages", "Annotations") if not (root / p).is_dir()), "ImageSets/Main"
        )
        raise DataError(
            "Expected JPEGImages, Annotations and ImageSets/Main, or images and VOC annotations (.xml) side "
            "by side, in images/ and annotations/, or in train/, valid/ and test/, but "
            f"{missing} is missing and no such file was found.",
            path=root,
        )
    return {
        split: _part_of_folders(root, images, annotations) for split, (images, annotations) in folders.items()
    }


def _beside(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return the folders of images and annotations of each split that is not detected by lists."""
    by_split: dict[str, tuple[Path, Path]] = {}
    for name in _folders(root):
        split = split_of(name)
        pair = None if split is None else _pair(root, Path(name))
        if split is not None and pair is not None:
            if split in by_split:
                text = f"Expected one folder of the split {split}, but there are "
                text += f"{by_split[split][1]} and {name}."
                raise DataError(text, path=root)
            by_split[split] = pair
    if "train" in by_split:
        return by_split
    pair = _pair(root, Path())
    return by_split if pair is None else {"train": pair}


def _pair(root: Path, folder: Path) -> tuple[Path, Path] | None:
    """Return the folders of images and of annotations in a folder, if it holds VOC annotations."""
    if _holds_voc(root / folder):
        return folder, folder
    inner = {name.lower(): folder / name for name in _folders(root / folder)}
    annotations = next((inner[name] for name in _ANNOTATIONS if name in inner), None)
    if annotations is None or not _holds_voc(root / annotations):
        return None
    return next((inner[name] for name in _IMAGES if name in inner), folder), annotations


def _holds_voc(folder: Path) -> bool:
    files = [name for name in _names(folder) if name.lower().endswith(".xml")]
    for name in files[:_MAX_FILES]:
        with (folder / name).open("rb") as stream:
            if b"<annotation" in stream.read(4096):
                return True
    return False


def _part_of_folders(root: Path, images: Path, annotations: Path) -> VocPart:
    names = [name[:-4] for name in _names(root / annotations) if name.lower().endswith(".xml")]
    part = VocPart(root, images, annotations, names)
    lonely = sorted(set(part._listed) - set(names))
    part.unlabelled = [
        DataError("Expected an annotation of this image, but there is none.", path=root / images / each)
        for stem in lonely
        for each in part._listed[stem]
    ]
    return part


def _by_lists(root: Path) -> dict[str, VocPart]:
    folder = root / "ImageSets" / "Main"
    known = {name[:-4] for name in _names(root / "Annotations") if name.lower().endswith(".xml")}
    listed = {name.lower(): name for name in _names(folder)}
    parts = {}
    for split, names in _LISTS.items():
        file = next((listed[f"{name}.txt"] for name in names if f"{name}.txt" in listed), None)
        if file is not None:
            path = inside(root, Path("ImageSets", "Main", file))
            parts[split] = _listed_part(root, path, known)
    if not parts:
        raise DataError("Expected train.txt, val.txt or test.txt, but there is none.", path=folder)
    return parts


def _listed_part(root: Path, file: Path, known: set[str]) -> VocPart:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"Expected a list in UTF-8, but {error.reason}.", path=file) from None
    names: dict[str, None] = {}
    missing, twice = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name = _listed_name(line.strip(), known)
        where = f"line {number}"
        if name in names:
            text = f"Expected each image once, but {name!r} comes again."
            twice.append(DataError(text, path=file, record=where, field="name"))
        elif name not in known:
            inside(root, Path("Annotations") / f"{name}.xml")
            text = f"Expected an annotation, but there is no such file as Annotations/{name}.xml."
            missing.append(DataError(text, path=file, record=where, field="name"))
        else:
            names[name] = None
    return VocPart(root, Path("JPEGImages"), Path("Annotations"), list(names), missing, twice)


def _listed_name(line: str, known: set[str]) -> str:
    """Return the annotation's name that a line means: all of it, or without suffix, folder or mark."""
    tries = [line]
    words = line.rsplit(None, 1)
    if len(words) == 2 and words[1] in _FLAGS:
        tries.append(words[0])
    tries += [os.path.splitext(os.path.basename(each))[0] for each in tries]  # noqa: PTH119, PTH122
    return next((each for each in tries if each in known), words[0] if len(tries) == 4 else line)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []


def _folders(root: Path) -> list[str]:
    return [name for name in _names(root) if not name.startswith(".") and (root / name).is_dir()]
