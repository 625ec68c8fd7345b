"""Captions that lie with their images: one text file an image, and Hugging Face image folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from visionkit.data.formats.captions.collector import CaptionCollector, CaptionImages
from visionkit.data.formats.huggingface.reader import metadata_columns, read_metadata
from visionkit.data.read_image import IMAGE_SUFFIXES
from visionkit.data.splits import split_of
from visionkit.errors import DataError
from visionkit.text.read_text import read_lines

__all__ = ["caption_column", "is_text_per_image", "read_huggingface_captions", "read_text_per_image"]

_COLUMNS = ("caption", "captions", "text", "sentence", "sentences", "description", "raw")
_TEXTS = ("captions", "texts", "text", "txt")
_IMAGES = ("images", "Images", "image")
_WORDS = re.compile(r"[^\W\d_]{2}")
_MAX_ENTRIES = 400  # of a folder, read to detect what it holds


def caption_column(root: Path) -> str | None:
    """Return the column of captions in a Hugging Face image folder, or None; it never raises.

    Args:
        root: Any path.
    """
    columns = metadata_columns(root) if root.is_dir() else ()
    lower = {name.lower(): name for name in reversed(columns)}
    return next((lower[name] for name in _COLUMNS if name in lower), None)


def read_huggingface_captions(root: Path, collector: CaptionCollector) -> None:
    """Read the captions of a Hugging Face image folder: a column `text`, `caption` or alike of its metadata.

    Args:
        root: The folder.
        collector: Where records and errors go.

    Raises:
        DataError: The metadata cannot be read.
    """
    column = caption_column(root)
    metadata = read_metadata(root)
    collector.errors += metadata.errors
    collector.more += metadata.notices(collector.max_dropped)
    folder = CaptionImages(root)
    named = len({row.split for row in metadata.rows}) > 1
    for row in metadata.rows:
        value = row.values.get(column or "")
        texts: list[Any] = value if isinstance(value, list) else [value]
        texts = [text.get("raw") if isinstance(text, dict) else text for text in texts]
        captions = [(text, f"line {row.line}") for text in texts]
        collector.add(row.image, row.image, captions, row.split if named else "", folder, file=row.file)


def is_text_per_image(root: Path) -> bool:
    """Return whether a folder holds images, each with a text file of its name that holds words; never raises.

    Args:
        root: Any path.
    """
    try:
        for images, texts, _ in _pairs_of_folders(root):
            names = [entry.name for entry in islice(os.scandir(images), _MAX_ENTRIES)]
            stems = [os.path.splitext(name) for name in names]  # noqa: PTH122 (once for each file)
            files = [texts / f"{stem}.txt" for stem, end in stems if end.lower() in IMAGE_SUFFIXES]
            there = [file for file in files if file.is_file()][:3]
            # A YOLO folder has a text of numbers beside each image.
            if there and all(_WORDS.search(_start(file)) for file in there):
                return True
    except OSError:
        pass
    return False


def _start(file: Path) -> str:
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        return stream.read(2000)


def _pairs_of_folders(root: Path) -> Iterator[tuple[Path, Path, str]]:
    """Yield folders of images with their folders of texts, and the split that they are."""
    if not root.is_dir():
        return
    tops = [(root, "")]
    for entry in sorted(root.iterdir()):
        split = split_of(entry.name)
        if split is not None and entry.is_dir():
            tops.append((entry, split))
    for top, split in tops:
        yield top, top, split
        for name in _IMAGES:
            if (top / name).is_dir():
                yield top / name, top / name, split
                yield from ((top / name, top / texts, split) for texts in _TEXTS if (top / texts).is_dir())


def read_text_per_image(root: Path, collector: CaptionCollector) -> None:
    """Read images that each have a text file of the same name: a caption a line.

    Args:
        root: The folder, or one with folders of splits; images may lie in `images/`, texts in `captions/`.
        collector: Where records and errors go.
    """
    folder = CaptionImages(root)
    alone: dict[str, Path] = {}
    taken: set[str] = set()
    for images, texts, split in _pairs_of_folders(root):
        for entry in sorted(os.scandir(images), key=lambda each: each.name):
            stem, end = os.path.splitext(entry.name)  # noqa: PTH122 (once for each file)
            if end.lower() not in IMAGE_SUFFIXES:
                continue
            path = Path(os.path.relpath(entry.path, root)).as_posix()
            text = texts / f"{stem}.txt"
            if not text.is_file():
                alone[path] = text
                continue
            try:
                lines = [
                    (line, f"line {number}")
                    for number, line in enumerate(read_lines(text), 1)
                    if line.strip()
                ]
            except DataError as error:
                collector.errors.append(error)
                continue
            taken.add(path)
            collector.add(path, path, lines, split, folder, file=text)
    for path, text in alone.items():
        if path not in taken:
            collector.seen["images"] += 1
            case = DataError(f"Expected the captions of {path!r} here, but there is no such file.", path=text)
            collector.drop(collector.images, "images without captions left out", case)
