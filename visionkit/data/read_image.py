"""The image decoder: any usual image file to `(3, H, W)` uint8 RGB, or an error that names the file.

The header is read first: only formats on a short list are opened, and an image above the pixel limit is
refused before anything is decoded. Pillow decodes, because damaged files raise an exception there and can end
the process in other decoders. Where simplejpeg is installed (the extra `fast`), it decodes intact JPEGs to
the same bytes in two thirds of the time; files that it refuses go to Pillow.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import cache, partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from visionkit.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "UNREAD_SUFFIXES",
    "check_images",
    "decode_image",
    "inside",
    "jpeg_decoder",
    "open_jpeg",
    "read_image",
    "read_size",
    "regular_file",
    "to_rgb",
]

MAX_PIXELS = 64_000_000
"""Largest image that is decoded, in pixels, by default."""

IMAGE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".gif", ".jfi", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm",
    ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip
"""File endings that folders are searched for (lower case)."""

UNREAD_SUFFIXES = frozenset({
    ".arw", ".cr2", ".cr3", ".cur", ".dcm", ".dds", ".dib", ".dicom", ".dng", ".emf", ".eps", ".exr",
    ".fit", ".fits", ".hdr", ".heic", ".heif", ".hif", ".ico", ".j2k", ".jp2", ".jpf", ".jpx", ".jxl",
    ".jxr", ".mha", ".nef", ".nii", ".nrrd", ".orf", ".pcx", ".pfm", ".psd", ".qoi", ".raf", ".raw",
    ".rw2", ".sgi", ".svg", ".svgz", ".tga", ".wmf", ".xbm", ".xpm",
})  # fmt: skip
"""File endings of images in formats that are not read (lower case)."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
_ORIENTATION = 0x0112
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(
    path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Decode an image file to RGB.

    EXIF orientation is applied. 16-bit grey is scaled to 8 bits (not cut off), palettes are looked up, CMYK
    and grey are converted, transparent pixels are laid over white. Of an animation the first frame is read.

    Args:
        path: A regular file in JPEG, PNG, WebP, BMP, GIF, TIFF, PPM (PGM, PBM) or AVIF format, which is
            detected from the content, not from the name.
        root: The file must lie inside this folder, once links and `..` are resolved; relative paths are
            taken from it. (A hard link cannot be distinguished from a file of the folder.)
        max_pixels: Larger images are refused from their header.

    Returns:
        `(3, H, W)` uint8, with the strides of an `(H, W, 3)` array (channels last).

    Raises:
        DataError: The file is missing, outside `root`, no regular file, no image of a known format, above
            the limit, damaged, or of a pixel type without a known range (32-bit integers, floats, Lab).
    """
    file = regular_file(path, root)
    return _decoded(file, file, max_pixels)


def check_images(
    files: Iterable[str | os.PathLike[str]],
    *,
    root: str | os.PathLike[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[DataError]:
    """Decode every image and return the errors.

    Args:
        files: Paths of images; relative ones are taken from the root, if there is one.
        root: Images outside this folder, once links are resolved, are errors.
        max_pixels: Larger images are errors.
    """
    errors = []
    for file in files:
        try:
            read_image(file if root else os.path.abspath(file), root=root, max_pixels=max_pixels)  # noqa: PTH100
        except DataError as error:
            errors.append(error)
    return errors


def decode_image(
    data: bytes | memoryview, *, name: str, max_pixels: int = MAX_PIXELS, plain: bool = False
) -> Tensor:
    """Decode an image file that is in memory, as `read_image` decodes one on disk.

    Args:
        data: The file's bytes.
        name: What the image is called in errors.
        max_pixels: Larger images are refused from their header.
        plain: It is an upright JPEG in RGB that this library wrote: its header is not checked first.

    Returns:
        `(3, H, W)` uint8, channels last.

    Raises:
        DataError: As `read_image`.
    """
    decode = _fast_decoder()
    if plain and decode is not None:
        try:
            return torch.from_numpy(decode(data, colorspace="RGB")).permute(2, 0, 1)
        except Exception:
            return _decoded(io.BytesIO(data), name, max_pixels)
    return _decoded(io.BytesIO(data), name, max_pixels)


def open_jpeg(
    data: bytes | memoryview, *, name: str, max_pixels: int = MAX_PIXELS
) -> tuple[tuple[int, int], int, Callable[[int], Tensor]] | None:
    """Read the header of a JPEG that is in memory, and decode it later; None for another format.

    Args:
        data: The file's bytes.
        name: What the image is called in errors.
        max_pixels: Larger images are refused.

    Returns:
        `(H, W)` of the upright image, its EXIF orientation, and what decodes it, once: of a reduction (1, 2,
        4 or 8) it makes `(3, H, W)` uint8, channels last, with sides divided by it and rounded up.

    Raises:
        DataError: As `read_image`; for damage after the header it is raised by what decodes.
    """
    image = _opened(io.BytesIO(data), name, max_pixels)
    if not isinstance(image, JpegImageFile):
        return None
    turn, (width, height) = _orientation(image), image.size
    return (width, height) if turn >= 5 else (height, width), turn, partial(_pixels, image, name)


def jpeg_decoder() -> str:
    """Return the name and version of the library that decodes JPEGs."""
    name = "pillow" if _fast_decoder() is None else "simplejpeg"
    return f"{name} {metadata.version(name)}"


def read_size(
    path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Return `(H, W)` as `read_image` would give it, from the header alone.

    Args:
        path: An image file.
        root: The file must lie inside this folder.
        max_pixels: Larger images are refused.

    Raises:
        DataError: As `read_image`, except for damage after the header.
    """
    file = regular_file(path, root)
    with closing(_opened(file, file, max_pixels)) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def inside(root: str | os.PathLike[str], name: str | os.PathLike[str]) -> Path:
    """Return the real path of `name`, which must lie inside `root` once links and `..` are resolved.

    Args:
        root: The folder that may be read.
        name: A path from an untrusted file; relative ones are taken from `root`.

    Raises:
        DataError: The path leaves the folder, or is no path at all.
    """
    text = os.fspath(name)
    if not text or "\0" in text:
        raise DataError(f"Expected a file name, but got {text!r}.", path=os.fspath(root), field="path")
    top = os.path.realpath(root)
    real = os.path.realpath(os.path.join(top, text))  # noqa: PTH118 (an absolute name must win, and be refused)
    if real != top and not real.startswith(top.rstrip(os.sep) + os.sep):
        raise DataError(
            f"Expected a file inside {top}, but it leads to {real}. Move the image into the folder, or "
            "name the folder that holds it as the root.",
            path=text,
            field="path",
        )
    return Path(real)


def regular_file(path: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> str:
    """Return the path to open; anything but a regular file is refused before it is opened.

    Args:
        path: A file.
        root: The file must lie inside this folder.

    Raises:
        DataError: The file is missing, outside `root`, or a folder, a pipe, a socket or a device.
    """
    file = os.fspath(path) if root is None else str(inside(root, path))
    try:
        mode = os.stat(file).st_mode  # noqa: PTH116 (a worker calls this for each image)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        what = "there is none by this name" if missing else f"it cannot be reached ({_reason(error)})"
        raise DataError(f"Expected an image file, but {what}.", path=file, field="path") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file (a pipe, socket or device)"
        raise DataError(f"Expected an image file, but it is {kind}.", path=file, field="path")
    return file


def _decoded(source: str | io.BytesIO, file: str, max_pixels: int) -> Tensor:
    """Decode a file, by its path or its bytes; `file` names it."""
    with closing(_opened(source, file, max_pixels)) as image:
        return _pixels(image, file)


def _pixels(image: Image.Image, file: str, reduction: int = 1) -> Tensor:
    """Decode an image that was opened, and turn it upright."""
    try:
        turn = _TURN.get(_orientation(image))
        if reduction > 1:  # Pillow takes the largest of 1/8, 1/4 and 1/2 that is no smaller than this
            image.draft(None, (max(1, image.width // reduction), max(1, image.height // reduction)))
        array = _fast_jpeg(image, reduction) if turn is None else None
        if array is None:
            pixels = to_rgb(image, file)
            array = np.array(pixels if turn is None else pixels.transpose(turn))
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            f"Expected an image that fits in memory, but decoding {image.width} x {image.height} pixels "
            "ran out of it. Make the image smaller.",
            path=file,
            field="pixels",
        ) from error
    except Exception as error:
        raise DataError(
            f"Expected a whole image, but decoding stopped: {_reason(error)}. The file is truncated or "
            "damaged; fetch it again or remove it.",
            path=file,
            field="pixels",
        ) from error
    return torch.from_numpy(array).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W), same memory


@cache
def _fast_decoder() -> Callable[..., np.ndarray] | None:
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg  # type: ignore[no-any-return]


def _fast_jpeg(image: Image.Image, reduction: int) -> np.ndarray | None:
    """Return the pixels `(H, W, 3)` of a usual JPEG; None for all other files, which go to Pillow."""
    decode, stream = _fast_decoder(), image.fp  # type: ignore[attr-defined]
    if decode is None or image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    position = stream.tell()
    stream.seek(0)
    smallest = {"min_height": image.height, "min_width": image.width} if reduction > 1 else {}
    try:
        pixels = decode(stream.read(), colorspace="RGB", **smallest)
        return pixels if reduction == 1 or pixels.shape[:2] == (image.height, image.width) else None
    except Exception:
        return None
    finally:
        stream.seek(position)


def _opened(source: str | io.BytesIO, file: str, max_pixels: int) -> Image.Image:
    """Open the header of a file, which the caller closes; nothing is decoded yet."""
    limit = f"Expected at most {max_pixels / 1e6:g} megapixels"
    fix = "Make the image smaller, or raise max_pixels if the file is to be trusted."
    try:
        image = Image.open(source, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow refuses what is much larger before it tells the sides.
        count = re.search(r"[0-9]+(?= pixels)", str(error))
        text = f"it has {int(count[0]) / 1e6:.0f}" if count else _reason(error)
        raise DataError(f"{limit}, but {text}. {fix}", path=file, field="header") from error
    except Exception as error:
        raise DataError(_unreadable(source, error), path=file, field="header") from error
    width, height = image.size
    if width * height > max_pixels:
        text = f"{limit}, but it is {width} x {height} ({width * height / 1e6:.0f} megapixels). {fix}"
    elif width < 1 or height < 1:
        text = f"Expected at least one pixel, but it is {width} x {height}."
    else:
        return image
    image.close()
    raise DataError(text, path=file, field="header")


def _unreadable(source: str | io.BytesIO, error: Exception) -> str:
    """Return the error text, which says what the file is instead of an image."""
    try:
        with Path(source).open("rb") if isinstance(source, str) else source as stream:
            stream.seek(0)
            head = stream.read(512)
    except OSError as reason:
        return f"Expected a readable file, but {_reason(reason)}."
    if not head:
        got = "it is empty (0 bytes). Fetch it again or remove it"
    elif head.lstrip()[:1] == b"<":
        got = "it holds HTML or XML text, as a failed download does. Fetch it again"
    elif head.startswith(b"version https://git-lfs"):
        got = "it is a pointer to git-lfs storage. Run `git lfs pull`"
    elif isinstance(error, UnidentifiedImageError):
        got = f"it starts with {head[:8]!r}. Convert it, or remove it"
    else:
        got = f"its header is damaged ({_reason(error)}). Fetch it again or remove it"
    return f"Expected an image in {', '.join(_FORMATS)} format, but {got}."


def _reason(error: BaseException) -> str:
    """Return the message of an exception on one line, or its type when it has none."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split()).rstrip(".")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; a damaged EXIF block counts as none, as does a TIFF's: Pillow turns it."""
    if image.format == "TIFF":
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def to_rgb(image: Image.Image, file: str) -> Image.Image:
    """Decode and convert to 8-bit RGB by a rule for each pixel type."""
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        grey = np.asarray(image).astype(np.uint32)
        scaled = (grey * 255 + 32767) // 65535
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if mode in {"I", "F", "LAB", "HSV"}:
        raise DataError(
            f"Expected 8-bit or 16-bit pixels, but the pixel type is {mode!r}, which has no known range as a "
            "image. Save it as 8-bit RGB or 16-bit grey.",
            path=file,
            field="mode",
        )
    if mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        return _over_white(image.convert("RGBA"))
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Blend the image over white: the colour of transparent pixels is arbitrary and must not be visible."""
    rgba = np.asarray(image).astype(np.uint32)
    alpha = rgba[..., 3:]
    mixed = (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return Image.fromarray(mixed.astype(np.uint8), "RGB")
