"""JPEGs that are decoded at 1/2, 1/4 or 1/8 of their size, once the crop that is needed of them is known.

A transform with `reduced_jpegs` draws its crop from the size of the whole image, which the header says. Only
then the image is decoded, as small as the crop allows, and the crop is cut where it is, between pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionkit.data.read_image import decode_image, open_jpeg, read_image, regular_file
from visionkit.errors import DataError, expected
from visionkit.types import Sample

__all__ = [
    "GAP",
    "DeferredImage",
    "deferred_decoding",
    "load_bytes",
    "load_image",
    "map_box",
    "reduction_of",
    "resize_part",
    "transformed",
]

GAP = 2.0
"""Minimum pixels of the reduced crop for each pixel of the result, a side."""

_REDUCTIONS = (8, 4, 2)  # what libjpeg decodes at, the coarsest first
_START = b"\xff\xd8"  # of every JPEG
_UP = (3, 4, 7, 8)  # orientations whose rows run backward in the file
_LEFT = (2, 3, 6, 7)  # and whose columns do
_DEFERRED: ContextVar[bool] = ContextVar("deferred", default=False)


class DeferredImage:
    """A JPEG of which the header was read; it stands for the image of a sample until its crop is known.

    Args:
        data: The file's bytes.
        name: What it is called in errors.

    Attributes:
        shape: `(3, H, W)` of the whole image, upright.

    Raises:
        DataError: The header cannot be read, or is of another format.
    """

    def __init__(self, data: bytes | memoryview, *, name: str) -> None:
        self._data, self._name = data, name
        size, self._orientation, decode = self._open()
        self._decode: Callable[[int], Tensor] | None = decode  # once
        self.shape = torch.Size((3, *size))

    def decode(
        self, box: tuple[int, int, int, int], size: tuple[int, int]
    ) -> tuple[Tensor, tuple[float, float, float, float]]:
        """Return the image as small as a crop of it allows, and where the crop is in it.

        Args:
            box: `(top, left, height, width)` of the crop in the whole image, in pixels.
            size: `(height, width)` that the crop is resized to.

        Returns:
            `(3, h, w)` uint8, channels last, and the box in pixels of it, with fractions.

        Raises:
            DataError: As `read_image`.
        """
        decode, self._decode = self._decode or self._open()[2], None
        reduction = reduction_of(box[2:], size)
        whole = int(self.shape[1]), int(self.shape[2])
        return decode(reduction), map_box(box, whole, self._orientation, reduction)

    def _open(self) -> tuple[tuple[int, int], int, Callable[[int], Tensor]]:
        opened = open_jpeg(self._data, name=self._name)
        if opened is None:
            raise DataError(expected("a file that begins as a JPEG", "one", "another"), path=self._name)
        return opened


def reduction_of(crop: tuple[int, int], size: tuple[int, int]) -> int:
    """Return the largest reduction, 8, 4, 2 or 1, at which a crop has `GAP` times the sides of its result.

    Args:
        crop: `(height, width)` in the whole image.
        size: `(height, width)` of the result.
    """
    ratio = min(crop[0] / size[0], crop[1] / size[1])
    return next((each for each in _REDUCTIONS if ratio >= GAP * each), 1)


def map_box(
    box: tuple[int, int, int, int], size: tuple[int, int], orientation: int, reduction: int
) -> tuple[float, float, float, float]:
    """Return where a box of the whole image is in the reduced one.

    A reduced pixel covers `reduction` pixels a side, counted from the first of the file; where that is the
    last of the upright image, what is missing of the last reduced pixel is at its beginning.

    Args:
        box: `(top, left, height, width)` in pixels.
        size: `(H, W)` of the whole image, upright.
        orientation: 1 to 8, of EXIF.
        reduction: 8, 4, 2 or 1.
    """
    rows = -size[0] % reduction if orientation in _UP else 0
    columns = -size[1] % reduction if orientation in _LEFT else 0
    top, left, height, width = box
    return (top + rows) / reduction, (left + columns) / reduction, height / reduction, width / reduction


def resize_part(image: Tensor, box: tuple[float, float, float, float], size: tuple[int, int]) -> Tensor:
    """Return a part of an image whose borders are between pixels, resized in one antialiased step.

    Args:
        image: `(3, h, w)` uint8, channels last.
        box: `(top, left, height, width)` in pixels.
        size: `(height, width)` of the result.

    Returns:
        `(3, height, width)` uint8, channels last.
    """
    top, left, height, width = box
    row, column = math.floor(top), math.floor(left)
    pixels = image[:, row : math.ceil(top + height), column : math.ceil(left + width)].permute(1, 2, 0)
    whole = Image.fromarray(np.ascontiguousarray(pixels.numpy()))
    right, bottom = min(left - column + width, whole.width), min(top - row + height, whole.height)
    part = (left - column, top - row, right, bottom)
    resized = whole.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=part)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


@contextmanager
def deferred_decoding() -> Iterator[None]:
    """Have the readers of image files give a `DeferredImage` of each JPEG."""
    token = _DEFERRED.set(True)
    try:
        yield
    finally:
        _DEFERRED.reset(token)


def load_image(path: str, *, root: str | Path | None = None) -> Tensor:
    """Decode an image file for a sample; within `deferred_decoding` a JPEG is deferred.

    Args:
        path: As `read_image`.
        root: As `read_image`.

    Returns:
        `(3, H, W)` uint8, or a `DeferredImage` in its stead.

    Raises:
        DataError: As `read_image`, of a deferred image that of its header alone.
    """
    if not _DEFERRED.get():
        return read_image(path, root=root)
    file = regular_file(path, root)
    try:
        with Path(file).open("rb") as stream:
            start = stream.read(len(_START))
            data = start + stream.read() if start == _START else b""
    except OSError:  # which `read_image` names
        data = b""
    return _deferred(data, file) if data else read_image(path, root=root)


def load_bytes(data: memoryview, *, name: str, plain: bool = False) -> Tensor:
    """Decode an image file that is in memory for a sample, as `load_image` does one on disk.

    Args:
        data: The file's bytes.
        name: What the image is called in errors.
        plain: See `decode_image`.

    Raises:
        DataError: As `load_image`.
    """
    if _DEFERRED.get() and data[: len(_START)] == _START:
        return _deferred(data, name)
    return decode_image(data, name=name, plain=plain)


def transformed(
    read: Callable[[], Sample],
    transform: Callable[[Sample, torch.Generator], Sample],
    generator: Callable[[], torch.Generator],
) -> Sample:
    """Return a sample after its transform; JPEGs are decoded reduced where the transform has `reduced_jpegs`.

    What cannot be decoded so is read as without: the same error, with the reader's file and record, or the
    same sample.

    Args:
        read: Reads the sample.
        transform: The transform.
        generator: Makes the generator that it draws from.

    Raises:
        DataError: The sample cannot be read.
    """
    if getattr(transform, "reduced_jpegs", False) is True:
        try:
            with deferred_decoding():
                sample = read()
            return transform(sample, generator())
        except DataError:
            pass
    return transform(read(), generator())


def _deferred(data: bytes | memoryview, name: str) -> Tensor:
    image: Any = DeferredImage(data, name=name)
    return cast(Tensor, image)
