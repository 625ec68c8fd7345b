"""Images of any number of channels: grey, TIFF with a page or a sample a channel, and numpy's arrays."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from visionkit.data.read_image import MAX_PIXELS, regular_file
from visionkit.errors import DataError

__all__ = ["read_channels"]

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_KINDS = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


def read_channels(
    path: str | os.PathLike[str],
    *,
    channels: int,
    white: float = 0.0,
    root: str | os.PathLike[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read an image of some number of channels.

    A `.npy` file holds `(C, H, W)` or `(H, W, C)`. A TIFF has a page a channel, or its samples one after
    another (more than four need the package tifffile). Any file that Pillow reads serves one channel.

    Args:
        path: The file.
        channels: How many channels there must be.
        white: The value that becomes 1 in the result, such as 10000 for reflectances; 0: 255 of 8 bits, 65535
            of 16, 1 of floats.
        root: The file must lie inside this folder.
        max_pixels: Larger images are refused from their header.

    Returns:
        `(C, H, W)`: uint8 for 8 bits without `white`, else float32 in [0, 1].

    Raises:
        DataError: The file is missing, damaged, too large, of another number of channels, or of a pixel type
            without a known range.
    """
    file = regular_file(path, root)
    try:
        array = _npy(file, max_pixels) if file.endswith(".npy") else _pages(file, channels, max_pixels)
    except DataError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(
            f"Expected an image that can be read, but: {text}.", path=file, field="pixels"
        ) from error
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim == 3 and array.shape[0] != channels and array.shape[2] == channels:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or array.shape[0] != channels or 0 in array.shape:
        got = " x ".join(map(str, array.shape))
        raise DataError(f"Expected {channels} channels, but its shape is {got}.", path=file, field="pixels")
    kind = str(array.dtype.newbyteorder("="))
    if kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise DataError(f"Expected pixels of {known}, but they are {kind}.", path=file, field="pixels")
    if kind == "uint8" and not white:
        return torch.from_numpy(np.ascontiguousarray(array))
    scaled = array.astype(np.float32) / np.float32(white or _KINDS[kind])
    if not np.isfinite(scaled).all():
        raise DataError("Expected finite pixels, but it holds NaN or infinity.", path=file, field="pixels")
    return torch.from_numpy(np.ascontiguousarray(scaled.clip(0, 1)))


def _npy(file: str, max_pixels: int) -> np.ndarray:
    array = np.load(file, mmap_mode="r", allow_pickle=False)  # nothing is read but the header
    _check_size(array.size // max(1, min(array.shape, default=1)), file, max_pixels)
    return np.array(array)


def _pages(file: str, channels: int, max_pixels: int) -> np.ndarray:
    """Return the pages or samples of an image file; tifffile reads what Pillow cannot."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            _check_size(image.width * image.height, file, max_pixels)
            count = getattr(image, "n_frames", 1)
            if image.format == "TIFF" and count == channels > 1:
                pages = []
                for page in range(count):
                    image.seek(page)
                    _check_size(image.width * image.height, file, max_pixels)
                    pages.append(np.array(image))
                return np.stack(pages)
            grey = channels == 1 and image.mode not in ("L", "F") and not image.mode.startswith("I")
            return np.array(image.convert("L") if grey else image)
    except UnidentifiedImageError:
        return _by_tifffile(file, max_pixels)


def _by_tifffile(file: str, max_pixels: int) -> np.ndarray:
    try:
        import tifffile
    except ImportError:
        raise DataError(
            "Expected an image that Pillow reads. TIFF files with more than four samples a pixel need "
            "tifffile: pip install tifffile. Or save a page a channel, or the array as .npy.",
            path=file,
            field="header",
        ) from None
    with tifffile.TiffFile(file) as opened:
        shape = opened.series[0].shape
        _check_size(int(np.prod(shape)) // max(1, min(shape, default=1)), file, max_pixels)
        return np.asarray(opened.asarray())


def _check_size(pixels: int, file: str, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise DataError(
            f"Expected at most {max_pixels / 1e6:g} megapixels, but it has {pixels / 1e6:.0f}.",
            path=file,
            field="header",
        )
