"""Notices about the files of a folder: images that are not read, masks among images, dark images."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from visionkit.data.read_image import IMAGE_SUFFIXES, UNREAD_SUFFIXES, regular_file
from visionkit.errors import printable
from visionkit.notices import NoticeCounter

__all__ = ["count_dark", "count_masks", "count_other_files", "is_unread_image", "name_twins"]

_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")
_MASK_ENDS = (
    "_mask",
    "-mask",
    "_mask_1",
    "_mask_2",
    "_seg",
    "_segmentation",
    "_gt",
    "_groundtruth",
    "_label",
)
_DARK = 4096  # of 65,536: 12 bits in 16


def is_unread_image(file: str) -> bool:
    """Return whether a file that is not read is probably an image: by its ending, or by its first bytes.

    Args:
        file: Its path.
    """
    suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122 (once for each file)
    if suffix in UNREAD_SUFFIXES:
        return True
    if suffix and not suffix.startswith((".jp", ".jf", ".pn", ".gi", ".ti", ".we", ".bm")):
        return False
    try:
        if not stat.S_ISREG(os.lstat(file).st_mode):
            return False  # to open a pipe would wait for ever
        with open(file, "rb") as stream:  # noqa: PTH123
            head = stream.read(12)
    except OSError:
        return False
    return head.startswith(_HEADS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def count_other_files(counter: NoticeCounter, files: Iterable[str]) -> int:
    """Count the files that are left out of a folder of images; return how many are images.

    Args:
        counter: Where they are counted: images are limited, other files are harmless.
        files: Their paths.
    """
    images = 0
    for file in files:
        if is_unread_image(file):
            images += 1
            fix = f"convert it, or give it one of the endings {' '.join(sorted(IMAGE_SUFFIXES))}"
            counter.add("images ignored for their format or file ending", f"{printable(file)}: {fix}")
        else:
            counter.add("files that are no images ignored", printable(file), harmless=True)
    return images


def count_masks(counter: NoticeCounter, files: Sequence[str]) -> None:
    """Count the images that are probably the mask of another one beside it (`x_mask.png` beside `x.png`).

    Args:
        counter: Where they are counted.
        files: Paths of images that are read.
    """
    stems = {os.path.splitext(file)[0] for file in files}  # noqa: PTH122
    for file in files:
        stem = os.path.splitext(file)[0]  # noqa: PTH122
        end = next((end for end in _MASK_ENDS if stem.lower().endswith(end)), None)
        if end is not None and stem[: -len(end)] in stems:
            text = f"{printable(file)}: it stands beside its image; move the masks to another folder"
            counter.add("images that are named like the mask of another one", text)


def count_dark(
    counter: NoticeCounter,
    files: Sequence[str],
    *,
    root: str | os.PathLike[str] | None = None,
    limit: int = 8,
) -> int:
    """Count 16-bit images that use less than a sixteenth of their range: they become nearly black.

    Args:
        counter: Where they are counted, as harmless.
        files: Paths of images; of those that may have 16 bits a few are looked at, evenly spread.
        root: Images outside this folder are not looked at.
        limit: How many.

    Returns:
        How many were looked at.
    """
    deep = [file for file in files if file.lower().endswith((".png", ".tif", ".tiff", ".pgm", ".pnm"))]
    chosen = [deep[index * len(deep) // min(len(deep), limit)] for index in range(min(len(deep), limit))]
    for file in chosen:
        try:
            path = regular_file(os.path.abspath(file), root)  # noqa: PTH100
            with Image.open(path, formats=("PNG", "TIFF", "PPM")) as image:
                if not image.mode.startswith("I") or image.width * image.height > 16_000_000:
                    continue
                brightest = int(np.asarray(image).max())
        except Exception:  # whoever reads the image names its error
            continue
        if 0 < brightest < _DARK:
            text = (
                f"{printable(file)}: its brightest value is {brightest:,} of 65,535, as of 12 bits or fewer. "
                "16 bits are scaled to 8, so that it becomes nearly black; save it with its range stretched"
            )
            counter.add("16-bit images that are nearly black", text, harmless=True)
    return len(chosen)


def name_twins(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ by case or spaces only.

    Args:
        names: Names of classes.
    """
    seen: dict[str, str] = {}
    pairs = []
    for name in names:
        key = " ".join(name.casefold().split())
        if key in seen:
            pairs.append((seen[key], name))
        seen.setdefault(key, name)
    return pairs
