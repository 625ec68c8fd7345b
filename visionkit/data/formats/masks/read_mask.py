"""Decode mask files: the numbers that a file stores, or an error that names the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from visionkit.data.formats.masks.label_map import IGNORE, LabelMap
from visionkit.data.read_image import read_size
from visionkit.errors import DataError

__all__ = ["RawMask", "orientation", "raw_mask", "read_mask", "size_error", "to_classes"]

_ORIENTATION = 0x0112  # EXIF
_BITS_PER_SAMPLE = 258  # TIFF
_LOSSY = ("JPEG", "WEBP")
_FORMATS = ("PNG", "TIFF", "BMP", "GIF", *_LOSSY)


@dataclass(frozen=True)
class RawMask:
    """The pixels of a mask file.

    Args:
        values: `(H, W)`: numbers from 0 to 65535, or colours, 24 bits in one number.
        coloured: Whether they are colours.
        transparent: `(H, W)` bool, where the file has an alpha channel.
        palette: `(N,)` colours of the numbers, for palette files.
    """

    values: np.ndarray
    coloured: bool
    transparent: np.ndarray | None = None
    palette: np.ndarray | None = None


def read_mask(path: str | Path, labels: LabelMap, *, root: str | Path | None = None) -> Tensor:
    """Read a mask file as class numbers.

    Palette files give their indices, grey files their values, colour files the classes of their colours (or
    their values, where red, green and blue are equal and no such colour is listed). EXIF orientation is
    applied, as it is to images. Pixels that an alpha channel makes transparent do not count; a transparent
    entry of a palette is a number as any other.

    Args:
        path: The mask file.
        labels: What the values mean.
        root: The file must lie inside this folder.

    Returns:
        `(H, W)` int64; `IGNORE` where the pixel does not count.

    Raises:
        DataError: The file is missing, damaged, too large, of a lossy or unclear kind, or holds values that
            no class has; the text names up to five of them.
    """
    return torch.from_numpy(to_classes(raw_mask(path, root=root), labels, path=path))


def to_classes(raw: RawMask, labels: LabelMap, *, path: str | Path) -> np.ndarray:
    """Return the class numbers `(H, W)` int64 of a decoded mask.

    Args:
        raw: The decoded file.
        labels: What the values mean.
        path: What errors name.

    Raises:
        DataError: It is drawn in colours and none are listed, or it holds values that no class has.
    """
    classes = _classes(raw, labels)
    if classes is None:
        raise DataError(
            "Expected a mask of class numbers (an index or palette file), but it is an image in colours. "
            "Save it with one number a pixel, or list the colour of each class in the label map file: "
            "'road 128 64 128'.",
            path=path,
            field="mode",
        )
    if raw.transparent is not None:
        classes[raw.transparent] = IGNORE
    unexpected = raw.values[classes < 0]
    if unexpected.size:
        unlisted, counts = np.unique(unexpected, return_counts=True)
        names = [f"#{value:06x}" if raw.coloured else str(value) for value in unlisted[:5]]
        listed = ", ".join(f"{name} ({count} pixels)" for name, count in zip(names, counts))
        more = f" and {len(unlisted) - 5} more" if len(unlisted) > 5 else ""
        raise DataError(
            f"Expected values of the {len(labels.classes)} classes, but got {listed}{more}. List these "
            "values in the label map file, as a class or as 'ignore'.",
            path=path,
            field="mask",
        )
    return classes.astype(np.int64)


def _classes(raw: RawMask, labels: LabelMap) -> np.ndarray | None:
    """Return the class of each pixel, -1 where the list has none; None for colours without a list."""
    if not raw.coloured:
        if raw.palette is not None and not labels.numbered:
            by_colour = np.full(65536, -1, dtype=np.int16)
            by_colour[: len(raw.palette)] = labels.colour_table[raw.palette]
            classes: np.ndarray = by_colour[raw.values]
            if (classes >= 0).all():
                return classes
        return labels.table[raw.values]  # type: ignore[no-any-return]
    counted = raw.values if raw.transparent is None else raw.values[~raw.transparent]
    known = bool(labels.colours) and (labels.colour_table[counted] >= 0).all()
    if not known:
        grey = counted & 255
        if (counted == (grey << 16 | grey << 8 | grey)).all():
            numbers = labels.table[raw.values & 255]
            if not labels.colours or (labels.table[grey] >= 0).all():
                return numbers  # type: ignore[no-any-return]
    return labels.colour_table[raw.values] if labels.colours else None


def raw_mask(path: str | Path, *, root: str | Path | None = None) -> RawMask:
    """Return the pixels of a mask file as they are stored.

    Args:
        path: The mask file.
        root: The file must lie inside this folder.

    Raises:
        DataError: As `read_mask`, except for values.
    """
    read_size(path, root=root)  # a regular file inside the root, of a known format, below the pixel limit
    file = Path(path) if root is None else Path(root, path)
    try:
        bits, channels = _png_depth(file)
        with Image.open(file, formats=_FORMATS) as image:
            _refuse_lossy(image, path)
            if image.format == "TIFF":
                stored = image.tag_v2.get(_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
                bits, channels = int(max(stored)), len(stored)
            image.load()
            upright = ImageOps.exif_transpose(image) if _tag(image) > 1 else image
            pixels, mode = np.array(upright), image.mode
            palette = image.getpalette("RGB") if mode in ("P", "PA") else None
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"Expected a whole mask, but decoding stopped: {reason}. Make the file again.",
            path=path,
            field="pixels",
        ) from error
    if bits > 8 and channels > 1:
        raise DataError(
            f"Expected 8 bits a channel, but it has {bits} bits in each of {channels} channels. Save it as "
            "an 8-bit or 16-bit PNG with one number a pixel.",
            path=path,
            field="mode",
        )
    if mode == "L" and bits in (2, 4):
        pixels = pixels // (255 // (2**bits - 1))  # the decoder spreads 0 .. 3 and 0 .. 15 over 0 .. 255
    return _sorted_out(pixels, mode, palette, path)


def _sorted_out(pixels: np.ndarray, mode: str, palette: list[int] | None, path: str | Path) -> RawMask:
    """Return the numbers or colours of decoded pixels, and which of them are transparent."""
    transparent = None
    if mode in ("RGBA", "LA", "PA"):
        alpha = pixels[..., -1]
        partly = int(((alpha > 0) & (alpha < 255)).sum())
        if partly:
            raise DataError(
                f"Expected each pixel to be opaque or transparent, but {partly} are half transparent. Save "
                "the mask without smoothed edges.",
                path=path,
                field="mode",
            )
        transparent = alpha == 0
        pixels = pixels[..., :-1] if mode == "RGBA" else pixels[..., 0]
    if mode in ("RGB", "RGBA"):
        wide = pixels.astype(np.int32)
        return RawMask((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2], True, transparent)
    if mode in ("1", "L", "P", "LA", "PA"):
        colours = None
        if palette is not None:
            parts = np.asarray(palette, dtype=np.int32).reshape(-1, 3)
            colours = (parts[:, 0] << 16) | (parts[:, 1] << 8) | parts[:, 2]
        return RawMask(pixels.astype(np.uint8), False, transparent, colours)
    if mode.startswith("I") and pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 65535:
        return RawMask(pixels.astype(np.uint16), False)
    raise DataError(
        f"Expected a mask with one whole number from 0 to 65535 a pixel, but the pixel type is {mode!r}. "
        "Save it as an 8-bit or 16-bit PNG.",
        path=path,
        field="mode",
    )


def _refuse_lossy(image: Image.Image, path: str | Path) -> None:
    kind = image.format or ""
    if kind == "TIFF" and "jpeg" in str(image.info.get("compression", "")).lower():
        kind = "JPEG in a TIFF"
    if kind in (*_LOSSY, "JPEG in a TIFF"):
        raise DataError(
            f"Expected a mask in a lossless format, but it is {kind}, which changes the numbers. Make it "
            "again as PNG.",
            path=path,
            field="format",
        )


def _png_depth(file: Path) -> tuple[int, int]:
    """Return bits a channel and channels, as the header of a PNG says; (8, 1) for other files."""
    with file.open("rb") as stream:
        head = stream.read(26)  # signature (8), length and name of IHDR (8), sides (8), depth, colour type
    if len(head) < 26 or not head.startswith(b"\x89PNG\r\n\x1a\n"):
        return 8, 1
    return head[24], {2: 3, 4: 2, 6: 4}.get(head[25], 1)


def orientation(path: str | Path, *, root: str | Path | None = None) -> int:
    """Return the EXIF orientation of a file, 1 (upright) to 8; 1 where there is none, or no image.

    Args:
        path: An image or a mask.
        root: Relative paths are taken from it.
    """
    try:
        with Image.open(Path(path) if root is None else Path(root, path), formats=_FORMATS) as image:
            return _tag(image)
    except Exception:
        return 1


def _tag(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def size_error(
    image: str, mask: str, image_size: tuple[int, ...], mask_size: tuple[int, ...], *, root: str | Path
) -> DataError:
    """Return the error of a mask that is not as large as its image; EXIF is named where it is the reason.

    Args:
        image: The image's file.
        mask: The mask's file.
        image_size: Height and width of the image, upright.
        mask_size: Height and width of the mask, upright.
        root: The folder that holds both.
    """
    image_turn, mask_turn = orientation(image, root=root), orientation(mask, root=root)
    why = ""
    if image_turn != mask_turn:
        why = (
            f" The image's EXIF orientation is {image_turn}, the mask's {mask_turn}: the mask was drawn on "
            "the image before it was turned. Save the image upright, without the tag, and draw on that, or "
            "give the mask the same tag."
        )
    return DataError(
        f"Expected a mask as large as its image {image} ({image_size[0]} x {image_size[1]}), but it is "
        f"{mask_size[0]} x {mask_size[1]} (height x width). Make it again at the image's size.{why}",
        path=mask,
        field="size",
    )
