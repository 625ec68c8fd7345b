"""Where COCO files and their images lie: COCO's own layout, those of exports, and single files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from visionkit.data.formats.image_names import ImageFinder
from visionkit.data.splits import SPLIT_ALIASES
from visionkit.errors import DataError

__all__ = ["coco_files", "is_coco"]

_ALIAS = {alias: split for split, names in SPLIT_ALIASES.items() for alias in names}
_NAMED = re.compile(
    rf"(?:(?:instances|coco|annotations)[_-])?({'|'.join(sorted(_ALIAS, key=len, reverse=True))})"
    r"[_-]?(\d*)(?:[_-](?:instances|coco|annotations))?",
    re.IGNORECASE,
)
_EXPORTS = ("_annotations.coco.json", "labels.json", "annotations.json", "instances_default.json")
_OTHERS = ("captions_", "stuff_", "panoptic_", "image_info_")  # of COCO's own files, those without boxes
_ENDS = 1 << 18  # bytes at either end of a file that say what it is
_MARKS = re.compile(r'"(images|annotations|categories|bbox|image_id|file_name)"')
_MOST = 8  # files of no telling name that are looked into

Place = tuple[Path, Path]


def coco_files(root: str | os.PathLike[str]) -> dict[str, Place]:
    """Return the JSON file and the folder of images of each split, by the layouts that `coco` knows.

    Names of splits are those of `SPLIT_ALIASES`, in any case. Of several folders that could hold the images
    the one is taken in which the first image of the file lies.

    Args:
        root: A folder, or a JSON file, which is taken for the training split.

    Raises:
        DataError: There is no file of a training split, or more than one.
    """
    top = Path(root)
    if top.suffix.lower() == ".json":
        return {"train": (top, _images_of_single(top))}
    files: dict[str, Place] = {}
    for split, found in _by_split(top).items():
        if len(found) > 1:
            both = ", ".join(str(file.relative_to(top)) for file in found)
            text = f"Expected one COCO file of the split {split}, but there are {both}. Name one of them."
            raise DataError(text, path=top)
        files[split] = (found[0], _images_of_split(top, found[0]))
    if "train" in files:
        return files
    alone = [] if files else _unnamed(top)
    if len(alone) == 1:
        return {"train": (alone[0], _images_of_single(alone[0]))}
    if files or alone:
        there = [str(file.relative_to(top)) for file in [*(file for file, _ in files.values()), *alone]]
        raise DataError(
            f"Expected one COCO file to train on, but there are {', '.join(there[:5])}. Call it train.json, "
            "or give the file itself.",
            path=top,
        )
    raise DataError(
        "Expected annotations/instances_train*.json, train/_annotations.coco.json, train.json, or a single "
        "COCO file such as result.json, but there is none. A JSON file can be given too.",
        path=top,
    )


def is_coco(root: str | os.PathLike[str]) -> bool:
    """Return whether a path is a COCO file, or a folder that holds some; nothing is read whole.

    It says what the folder is, not that it is sound: faults of the layout are `coco_files`' to name.

    Args:
        root: Any path.
    """
    top = Path(root)
    if top.suffix.lower() == ".json":
        return top.is_file() and bool(_MARKS.search("".join(_ends(top))))
    return top.is_dir() and bool(_by_split(top) or _unnamed(top))


def _by_split(top: Path) -> dict[str, list[Path]]:
    """Return the files whose own name, or whose folder's name, is that of a split."""
    found: dict[str, list[Path]] = {}
    for folder in _folders(top):
        split = _ALIAS.get(folder.name.lower())
        if split is not None:
            files = _json_files(folder)
            exports = [file for file in files if file.name.lower() in _EXPORTS]
            if not exports and len(files) == 1:
                exports = files
            found.setdefault(split, []).extend(file for file in exports if _looks_like_coco(file))
    for folder in _homes(top):
        for file in _json_files(folder):
            named = _NAMED.fullmatch(file.stem)
            if named:
                found.setdefault(_ALIAS[named[1].lower()], []).append(file)
    return {split: found[split] for split in SPLIT_ALIASES if found.get(split)}


def _unnamed(top: Path) -> list[Path]:
    """Return the COCO files of a folder whose names tell no split."""
    files = [
        file
        for folder in _homes(top)
        for file in _json_files(folder)
        if not file.name.lower().startswith(_OTHERS)
    ]
    files.sort(key=lambda file: file.name.lower() not in (*_EXPORTS, "result.json"))
    return [file for file in files[:_MOST] if _looks_like_coco(file)]


def _homes(top: Path) -> list[Path]:
    return [*(folder for folder in _folders(top) if folder.name.lower() == "annotations"), top]


def _images_of_split(top: Path, file: Path) -> Path:
    """Return the folder of images of a file whose name or folder is that of a split."""
    if _ALIAS.get(file.parent.name.lower()) and not _NAMED.fullmatch(file.stem):
        return _choose(file.parent, ("", "images", "data"), file)
    named = _NAMED.fullmatch(file.stem)
    split, year = (named[1], named[2]) if named else ("", "")
    places = [f"images/{split}{year}", f"{split}{year}", f"images/{split}", split, "images", "data", ""]
    places += [
        place for alias in SPLIT_ALIASES[_ALIAS[split.lower()]] for place in (f"images/{alias}", alias)
    ]
    return _choose(top, places, file)


def _images_of_single(file: Path) -> Path:
    """Return the folder of images of a file that stands alone."""
    above = file.parent.parent if file.parent.name.lower() == "annotations" else file.parent
    named = _NAMED.fullmatch(file.stem) or re.fullmatch(r"(?:instances_)?([A-Za-z]+)(\d*)", file.stem)
    places = ["images", "data", ""]
    if named:
        split, year = named[1], named[2]
        places = [f"images/{split}{year}", f"{split}{year}", f"images/{split}", split, *places]
    return _choose(above, places, file)


def _choose(top: Path, places: Sequence[str], file: Path) -> Path:
    """Return the folder in which the first image of a file lies, or the first that there is."""
    finder = ImageFinder(top)
    folders = []
    for place in places:
        real = finder.find(place)[0] if place else ""
        if real is not None and (top / real).is_dir() and top / real not in folders:
            folders.append(top / real)
    name = _first_name(file)
    if name is not None:
        for folder in folders:
            if ImageFinder(folder).find(name)[0] is not None:
                return folder
    return folders[0] if folders else top


def _first_name(file: Path) -> str | None:
    for text in _ends(file):
        found = re.search(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', text)
        if found:
            try:
                name = json.loads(found[1])
            except ValueError:
                return None
            return name if ".." not in name and "\0" not in name else None
    return None


def _looks_like_coco(file: Path) -> bool:
    text = "".join(_ends(file))
    boxes = '"categories"' in text or '"bbox"' in text
    return boxes and '"file_name"' in text and '"segments_info"' not in text


def _ends(file: Path) -> tuple[str, str]:
    """Return the first and the last part of a file; nothing where it cannot be read."""
    try:
        with file.open("rb") as stream:
            first = stream.read(_ENDS)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(len(first), size - _ENDS))
            return first.decode("utf-8", "replace"), stream.read().decode("utf-8", "replace")
    except OSError:
        return "", ""


def _folders(top: Path) -> list[Path]:
    try:
        return sorted(entry for entry in top.iterdir() if entry.is_dir())
    except OSError:
        return []


def _json_files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(".json"))
    except OSError:
        return []
    return [folder / name for name in names if not name.startswith(".") and (folder / name).is_file()]
