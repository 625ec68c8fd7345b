"""Where COCO files and their images lie: COCO's own layout, those of exports, and single files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from visionkit.data.formats.image_names import ImageFinder
from visionkit.data.splits import SPLIT_ALIASES, split_of
from visionkit.errors import DataError

__all__ = ["coco_files", "is_coco"]

_ALIASES = [alias for names in SPLIT_ALIASES.values() for alias in names]
_SPLIT = rf"({'|'.join(sorted(_ALIASES, key=len, reverse=True))})[_-]?(\d*)"
_NAMED = re.compile(
    rf"(?:(?:instances|coco|annotations)[_-])?{_SPLIT}(?:[_-](?:instances|coco|annotations))?", re.IGNORECASE
)
_KEYPOINTS = re.compile(rf"(?:person[_-])?keypoints[_-]{_SPLIT}", re.IGNORECASE)
_EXPORTS = ("_annotations.coco.json", "labels.json", "annotations.json", "instances_default.json")
_OTHERS = ("captions_", "stuff_", "panoptic_", "image_info_")  # of COCO's own files, those without boxes
_ENDS = 1 << 18  # bytes at either end of a file that say what it is
_KEYS = re.compile(r'"(images|annotations|categories|bbox|image_id|file_name)"')
_MAX_FILES = 8  # files without the name of a split whose content is read

FileAndFolder = tuple[Path, Path]


def coco_files(root: str | os.PathLike[str], *, keypoints: bool = False) -> dict[str, FileAndFolder]:
    """Return the JSON file and the folder of images of each split, by the layouts that `coco` knows.

    Names of splits are those of `SPLIT_ALIASES`, in any case. Of several folders that could hold the images
    the one is taken in which the first image of the file lies.

    Args:
        root: A folder, or a JSON file, which is taken for the training split.
        keypoints: Where there are `person_keypoints_train2017.json` and its like, take those.

    Raises:
        DataError: There is no file of a training split, or more than one.
    """
    top = Path(root)
    if top.suffix.lower() == ".json":
        return {"train": (top, _images_of_single(top))}
    files: dict[str, FileAndFolder] = {}
    by_split = (_by_name(top, _KEYPOINTS) if keypoints else {}) or _by_split(top)
    for split, candidates in by_split.items():
        if len(candidates) > 1:
            both = ", ".join(str(file.relative_to(top)) for file in candidates)
            text = f"Expected one COCO file of the split {split}, but there are {both}. Name one of them."
            raise DataError(text, path=top)
        files[split] = (candidates[0], _images_of_split(top, candidates[0]))
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
    """Return whether a path is a COCO file, or a folder that holds some; no file is read completely.

    Errors of the layout are raised by `coco_files`, not here.

    Args:
        root: Any path.
    """
    top = Path(root)
    if top.suffix.lower() == ".json":
        return top.is_file() and bool(_KEYS.search("".join(_ends(top))))
    return top.is_dir() and bool(_by_split(top) or _unnamed(top))


def _by_split(top: Path) -> dict[str, list[Path]]:
    """Return the files whose own name, or whose folder's name, is that of a split."""
    by_split: dict[str, list[Path]] = {}
    for folder in _folders(top):
        split = split_of(folder.name)
        if split is not None:
            files = _json_files(folder)
            exports = [file for file in files if file.name.lower() in _EXPORTS]
            if not exports and len(files) == 1:
                exports = files
            by_split.setdefault(split, []).extend(file for file in exports if _is_coco_objects(file))
    for split, named in _by_name(top, _NAMED).items():
        by_split.setdefault(split, []).extend(named)
    return {split: by_split[split] for split in SPLIT_ALIASES if by_split.get(split)}


def _by_name(top: Path, pattern: re.Pattern[str]) -> dict[str, list[Path]]:
    """Return the files whose own name, by a pattern, is that of a split."""
    by_split: dict[str, list[Path]] = {}
    for folder in _homes(top):
        for file in _json_files(folder):
            named = pattern.fullmatch(file.stem)
            if named:
                by_split.setdefault(str(split_of(named[1])), []).append(file)
    return {split: by_split[split] for split in SPLIT_ALIASES if split in by_split}


def _unnamed(top: Path) -> list[Path]:
    """Return the COCO files of a folder whose names tell no split."""
    files = [
        file
        for folder in _homes(top)
        for file in _json_files(folder)
        if not file.name.lower().startswith(_OTHERS)
    ]
    files.sort(key=lambda file: file.name.lower() not in (*_EXPORTS, "result.json"))
    return [file for file in files[:_MAX_FILES] if _is_coco_objects(file)]


def _homes(top: Path) -> list[Path]:
    return [*(folder for folder in _folders(top) if folder.name.lower() == "annotations"), top]


def _images_of_split(top: Path, file: Path) -> Path:
    """Return the folder of images of a file whose name or folder is that of a split."""
    if split_of(file.parent.name) and not _NAMED.fullmatch(file.stem):
        return _choose(file.parent, ("", "images", "data"), file)
    named = _NAMED.fullmatch(file.stem) or _KEYPOINTS.fullmatch(file.stem)
    split, year = (named[1], named[2]) if named else ("", "")
    folders = [f"images/{split}{year}", f"{split}{year}", f"images/{split}", split, "images", "data", ""]
    for alias in SPLIT_ALIASES.get(split_of(split) or "", ()):
        folders += [f"images/{alias}", alias]
    return _choose(top, folders, file)


def _images_of_single(file: Path) -> Path:
    """Return the folder of images of a file that stands alone."""
    above = file.parent.parent if file.parent.name.lower() == "annotations" else file.parent
    named = _NAMED.fullmatch(file.stem) or re.fullmatch(r"(?:instances_)?([A-Za-z]+)(\d*)", file.stem)
    folders = ["images", "data", ""]
    if named:
        split, year = named[1], named[2]
        folders = [f"images/{split}{year}", f"{split}{year}", f"images/{split}", split, *folders]
    return _choose(above, folders, file)


def _choose(top: Path, names: Sequence[str], file: Path) -> Path:
    """Return the folder in which the first image of a file lies, or the first that there is."""
    finder = ImageFinder(top)
    folders = []
    for candidate in names:
        real = finder.find(candidate)[0] if candidate else ""
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
        matched = re.search(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', text)
        if matched:
            try:
                name = json.loads(matched[1])
            except ValueError:
                return None
            return name if ".." not in name and "\0" not in name else None
    return None


def _is_coco_objects(file: Path) -> bool:
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
