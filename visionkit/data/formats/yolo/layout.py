"""Where the images and labels of a YOLO folder lie: as data.yaml names them, or by the names of folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from visionkit.data.formats.yolo.data_yaml import (
    NAME_FILES,
    class_names,
    load_yaml,
    names_in,
    text_of,
    yaml_files,
)
from visionkit.data.read_image import IMAGE_SUFFIXES, inside
from visionkit.data.splits import SPLIT_ALIASES, split_of
from visionkit.errors import DataError

__all__ = ["YoloLayout", "is_yolo", "label_file", "yolo_layout"]


@dataclass
class YoloLayout:
    """The images of each split, and the names of the classes.

    Args:
        root: The folder; no file outside it is opened.
        images: The images of each split, from the root.
        names: Names of the classes, by number.
        keypoints: Whether data.yaml has `kpt_shape`: lines then go on with key points, which are not read.
        named: Whether there are names; else the classes are called by their numbers.
        no_test: Where data.yaml names test images that are not there; "" where they are there or not named.
    """

    root: Path
    images: dict[str, list[str]]
    names: list[str]
    keypoints: bool = False
    named: bool = True
    no_test: str = ""


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


def yolo_layout(root: Path) -> YoloLayout:
    """Find the images of each split, and the names of the classes.

    Args:
        root: The folder, or its `data.yaml`.

    Raises:
        DataError: It is laid out otherwise, or names images that are not there.
    """
    files = yaml_files(root)
    if len(files) > 1 and files[0].stem.lower() != "data":
        both = ", ".join(each.name for each in files)
        text = f"Expected one YAML file of names and splits, but there are {both}. Give the path of one."
        raise DataError(text, path=root)
    file = files[0] if files else None
    top = root if root.is_dir() else root.parent
    content: dict[str, Any] = load_yaml(file) if file is not None else {}
    names, named = class_names(top, content)
    images: dict[str, list[str]] = {}
    no_test = ""
    for split, aliases in SPLIT_ALIASES.items():
        given = next((content[alias] for alias in aliases if content.get(alias)), None)
        present, absent = _given(top, content, given) if given else ([], [])
        images[split] = present or _conventional(top, aliases)
        if absent and split == "test" and not images[split]:
            no_test = f"{file}, field 'test': {absent[0]}"  # exports name a test folder that they leave out
            continue
        if absent and (present or (split != "train" and not images[split])):
            text = f"Expected images at {split}: {absent[0]}, but there are none. Correct or remove it."
            raise DataError(text, path=file, field=split)
    if not images["train"]:
        everything = _images_in(top, "images") or _images_in(top, "")
        if not everything or any(images.values()):
            raise DataError(
                "Expected training images: data.yaml with train: ..., images/train, train/images, or "
                "images/ beside labels/, but found none.",
                path=file or top,
            )
        images["train"] = everything
    return YoloLayout(
        top,
        {split: present for split, present in images.items() if present},
        names,
        "kpt_shape" in content,
        named,
        no_test,
    )


def _given(top: Path, content: dict[str, Any], given: Any) -> tuple[list[str], list[str]]:
    """Return the images that an entry of data.yaml names, and the parts of it at which there are none.

    They are below the folder, whatever path the entry was made for.
    """
    images: list[str] = []
    absent: list[str] = []
    base = str(content.get("path") or "").replace("\\", "/")
    for entry in given if isinstance(given, list) else [given]:
        text = str(entry).replace("\\", "/")
        parts = [part for part in PurePosixPath(text).parts if part not in ("/", ".", "..")]
        tries = [f"{base}/{text}", text] if base and not base.startswith("/") else [text]
        # Made on another machine, or relative to another folder: the end of the path is what is here.
        tries += ["/".join(parts[index:]) for index in range(len(parts))]
        before = len(images)
        for each in tries:
            clean = os.path.normpath(each)
            if clean.startswith((os.sep, "..")) or not (top / clean).exists():
                continue
            inside(top, clean)
            images += _listed(top, clean) if (top / clean).is_file() else _images_in(top, clean)
            break
        absent += [text] if len(images) == before else []
    return list(dict.fromkeys(images)), absent


def _listed(top: Path, file: str) -> list[str]:
    """Return the images that a text file lists, one a line."""
    images = []
    for number, line in enumerate(text_of(top / file).splitlines(), 1):
        parts = [part for part in PurePosixPath(line.strip().replace("\\", "/")).parts if part not in "./.."]
        start = next((p for p in range(len(parts)) if (top / "/".join(parts[p:])).is_file()), None)
        if line.strip() and start is None:
            text = f"Expected an image below {top}, but there is none at {line.strip()!r}."
            raise DataError(text, path=top / file, record=f"line {number}", field="path")
        images += [] if start is None else ["/".join(parts[start:])]
    return images


def _conventional(top: Path, aliases: Sequence[str]) -> list[str]:
    listed = {name.lower(): name for name in names_in(top)}
    inner = {name.lower(): name for name in names_in(top / "images")}
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
        for name in names_in(top / folder)
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (once for each file)
    ]


def label_file(top: Path, image: str) -> Path | None:
    """Return the file of labels of an image: in `labels` where it lies in `images`, or beside it.

    Args:
        top: The folder of the data set.
        image: The image, from there.
    """
    parts = list(PurePosixPath(image).parts)
    indices = [index for index, part in enumerate(parts[:-1]) if part.lower() == "images"]
    tries = [[*parts[:index], "labels", *parts[index + 1 :]] for index in reversed(indices)]
    tries += [parts, ["labels", *parts], [*parts[:-1], "labels", parts[-1]]]
    for each in tries:
        file = top.joinpath(*each).with_suffix(".txt")
        if file.is_file():
            return inside(top, file.relative_to(top))
    return None


def _yaml_of(root: Path) -> Path | None:
    """Return the data.yaml of a folder, or the first YAML file that has names and a split."""
    return next(iter(yaml_files(root)), None)


def _label_folders(top: Path) -> list[str]:
    """Return the folders in which files of labels may lie."""
    folders = ["labels", *(f"labels/{name}" for name in names_in(top / "labels"))]
    for name in names_in(top):
        if split_of(name):
            folders += [f"{name}/labels", name]
    return [*folders, ""]


def _holds_labels(folder: Path) -> bool:
    """Return whether the first text file of a folder that is not empty is one of YOLO's."""
    names = [name for name in names_in(folder) if name.endswith(".txt") and name not in NAME_FILES]
    for name in names[:20]:
        with (folder / name).open("rb") as stream:
            line = stream.read(2000).decode("utf-8", "replace").split("\n")[0].split()
        if line:
            numbers = [float(word) for word in line]
            return len(numbers) >= 5 and numbers[0].is_integer() and all(abs(v) <= 2 for v in numbers[1:])
    return False
