"""What can be predicted on: files, folders, globs, arrays, PIL images and tensors, and lists of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionkit.data.read_image import IMAGE_SUFFIXES
from visionkit.data.transforms.reduced import load_image
from visionkit.errors import InputError, expected
from visionkit.files import local_path
from visionkit.tasks.image_inputs import as_image

__all__ = ["SourceItem", "source_items"]


@dataclass(frozen=True)
class SourceItem:
    """One image of a source, not yet read.

    Args:
        id: Its path as given, or its position in the source ("0", "1", ...).
        path: Its file; None for an image in memory.
        read: Gives `(3, H, W)` uint8, upright.
    """

    id: str
    path: str | None
    read: Callable[[], Tensor]


def source_items(source: Any) -> Iterator[SourceItem]:
    """Yield the images of a source, in its order; files are not opened here.

    Args:
        source: A path; a folder (searched recursively, sorted); a glob (`**` too); an array `(H, W, 3)`
            uint8, a PIL image or a tensor `(3, H, W)` uint8; a `SourceItem` of your own; or a list or an
            iterator of these.

    Raises:
        InputError: There is nothing by a name, a folder or glob holds no image, a source is empty, or
            something is none of these.
    """
    empty = True
    for index, one in enumerate(_flat(source)):
        empty = False
        if isinstance(one, SourceItem):
            yield one
        else:
            yield _in_memory(one, index) if not isinstance(one, str) else _file(one)
    if empty:
        raise InputError("Expected images to predict on, but the source is empty.")


def _flat(source: Any) -> Iterator[Any]:
    """Yield the names of files and the images in memory, one after another."""
    if isinstance(source, str | os.PathLike):
        yield from _paths(os.fspath(source))
    elif isinstance(source, Image.Image | SourceItem):
        yield source
    elif isinstance(source, np.ndarray | Tensor):
        yield from (source if source.ndim == 4 else [source])
    elif isinstance(source, Iterable):
        for one in source:
            yield from _flat(one)
    else:
        allowed = "a path, a folder, a glob, an array, a PIL image, a tensor, or a list of these"
        raise InputError(expected("images", allowed, type(source).__name__))


def _paths(name: str) -> Iterator[str]:
    path = local_path(name, "an image, a folder or a glob")
    if path.is_dir():
        yield from _files(sorted(each for each in path.rglob("*") if each.is_file()), f"the folder {name}")
    elif path.exists():
        yield name
    elif glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (an absolute pattern, too)
        yield from _files([each for match in matches if (each := Path(match)).is_file()], f"the glob {name}")
    else:
        raise InputError(f"Expected an image, a folder or a glob, but there is nothing at {name}.")


def _files(files: list[Path], where: str) -> Iterator[str]:
    images = [str(file) for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        endings = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(
            f"Expected images in {where}, but none of {len(files)} files is one by its ending ({endings})."
        )
    yield from images


def _file(name: str) -> SourceItem:
    return SourceItem(name, name, lambda: load_image(name))


def _in_memory(value: Any, index: int) -> SourceItem:
    image = as_image(value)
    if image.dtype != torch.uint8:
        fix = "Images in [0, 1] times 255 and rounded are uint8."
        raise InputError(expected(f"image {index}", "uint8 pixels", image.dtype, fix=fix))
    return SourceItem(str(index), None, lambda: image)
