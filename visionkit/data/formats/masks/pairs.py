"""Pair images with masks by their names; no file is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from visionkit.data.read_image import IMAGE_SUFFIXES
from visionkit.errors import DataError

__all__ = [
    "Key",
    "MaskPair",
    "MaskSplit",
    "files_below",
    "holds_images",
    "holds_pairs",
    "is_mask_name",
    "match_files",
    "match_keys",
]

Key = tuple[str, str]  # folder below the split's, and the name before the ending

_ENDINGS = (
    *("", "_mask", "_label", "_L", "_labels", "_masks", "_seg", "_segmentation", "_gt", "_annotation"),
    *("-mask", "-label", "_Mask", "_MASK"),
)
_MASK_ENDINGS = ("_mask", "-mask", "_label", "_labels", "_masks", "_seg", "_segmentation", "_gt")
_BEGINNINGS = ("mask_", "label_", "seg_", "gt_", "mask-")
_IMAGE_ENDINGS = ("_sat", "_image", "_img")
_IMAGE_BEGINNINGS = ("image_", "img_")
_ARRAYS = frozenset({".npy", ".npz", ".mat"})


@dataclass(frozen=True)
class MaskPair:
    """An image and its mask, both relative to the root."""

    image: str
    mask: str


@dataclass
class MaskSplit:
    """What one split holds.

    Args:
        pairs: Images with masks, by name.
        without_mask: Images that lack one.
        without_image: Masks that lack an image.
        errors: Files that cannot be paired in one way only, or cannot be read at all.
        ignored: Other files that lie there.
    """

    pairs: list[MaskPair] = field(default_factory=list)
    without_mask: list[str] = field(default_factory=list)
    without_image: list[str] = field(default_factory=list)
    errors: list[DataError] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def match_files(root: Path, images: Path, masks: Path) -> MaskSplit:
    """Pair the files below two folders by sub-folder and the name before the ending.

    A mask may carry `_mask`, `_label`, `_L`, `mask_` and alike beside the image's name, and an image `_sat`,
    `_image`, `img_`.

    Args:
        root: Names are relative to this folder.
        images: The folder of the images.
        masks: The folder of the masks; the same folder, where names tell masks from images.
    """
    result = MaskSplit()
    image_files, others = files_below(images)
    arrays: list[Path] = []
    if images == masks:
        mask_files = [file for file in image_files if is_mask_name(file)]
        image_files = [file for file in image_files if not is_mask_name(file)]
    else:
        mask_files, arrays = files_below(masks)
    result.ignored = [file.relative_to(root).as_posix() for file in (*others, *arrays)]
    result.errors = [_array(file.relative_to(root).as_posix()) for file in arrays if _is_array(file)]
    return match_keys(
        root,
        ((_key(file, images), file) for file in image_files),
        ((_key(file, masks), file) for file in mask_files),
        _names,
        result,
    )


def match_keys(
    root: Path,
    images: Iterable[tuple[Key, Path]],
    masks: Iterable[tuple[Key, Path]],
    names: Callable[[Key], Iterator[Key]],
    result: MaskSplit,
) -> MaskSplit:
    """Pair files by their keys; two files of one key, and two images of one mask, are errors.

    Args:
        root: Names are relative to this folder.
        images: Key and file of each image.
        masks: Key and file of each mask.
        names: The keys that the mask of an image may have, the likeliest first.
        result: What pairs and errors are added to.
    """
    by_image = _by_key(root, images, "image", result)
    by_mask = _by_key(root, masks, "mask", result)
    taken: dict[Key, str] = {}
    for key, file in by_image.items():
        image = file.relative_to(root).as_posix()
        mask_key = next((name for name in names(key) if name in by_mask), None)
        if mask_key is None:
            result.without_mask.append(image)
            continue
        mask = by_mask[mask_key].relative_to(root).as_posix()
        if mask_key in taken:
            result.errors.append(
                DataError(
                    f"Expected one image for each mask, but {taken[mask_key]} and {image} both go with it. "
                    "Rename one of them.",
                    path=mask,
                    field="image",
                )
            )
            continue
        taken[mask_key] = image
        result.pairs.append(MaskPair(image, mask))
    result.without_image = [
        file.relative_to(root).as_posix() for key, file in by_mask.items() if key not in taken
    ]
    return result


def files_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images below a folder, sorted, and the other files.

    Args:
        folder: Hidden files and folders are passed over; links to folders are not followed.
    """
    images: list[Path] = []
    others: list[Path] = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                file = Path(base, name)
                (images if file.suffix.lower() in IMAGE_SUFFIXES else others).append(file)
    return sorted(images), sorted(others)


def is_mask_name(file: Path) -> bool:
    """Return whether a file is called like the mask of another one (`street_mask.png`).

    Args:
        file: Its path.
    """
    return file.stem.lower().endswith(_MASK_ENDINGS)


def holds_pairs(folder: Path) -> bool:
    """Return whether images and masks lie beside each other in a folder: `a.jpg` and `a_mask.png`.

    Every file that is called like a mask must have its image, and half of the images a mask.

    Args:
        folder: Any folder; what lies in folders of it does not count.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    masks = [file.stem.lower() for file in files if is_mask_name(file)]
    images = {file.stem.lower() for file in files if not is_mask_name(file)}
    paired = {mask.removesuffix(end) for mask in masks for end in _MASK_ENDINGS if mask.endswith(end)}
    return bool(masks) and len(masks) <= len(paired & images) and 2 * len(masks) >= len(images)


def holds_images(folder: Path) -> bool:
    """Return whether any image lies below a folder; the walk ends at the first.

    Args:
        folder: A folder.
    """
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names):
            return True
    return False


def _by_key(root: Path, files: Iterable[tuple[Key, Path]], what: str, result: MaskSplit) -> dict[Key, Path]:
    """Return the file of each key; a second one of the same key is an error."""
    by_key: dict[Key, Path] = {}
    for key, file in files:
        first = by_key.setdefault(key, file)
        if first is not file:
            result.errors.append(
                DataError(
                    f"Expected one {what} of each name, but {first.relative_to(root).as_posix()} has the "
                    "same. Which of them belongs to the data set cannot be told: rename or remove one.",
                    path=file.relative_to(root).as_posix(),
                    field=what,
                )
            )
    return by_key


def _key(file: Path, folder: Path) -> Key:
    relative = file.relative_to(folder)
    return relative.parent.as_posix(), relative.stem


def _names(key: Key) -> Iterator[Key]:
    """Yield the keys that the mask of an image may have."""
    folder, stem = key
    bases = [stem]
    bases += [stem.removesuffix(end) for end in _IMAGE_ENDINGS if stem.endswith(end)]
    bases += [stem.removeprefix(start) for start in _IMAGE_BEGINNINGS if stem.startswith(start)]
    for base in bases:
        yield from ((folder, base + end) for end in _ENDINGS)
        yield from ((folder, start + base) for start in _BEGINNINGS)
    for suffix in IMAGE_SUFFIXES:
        yield folder, stem + suffix  # street.jpg.png


def _is_array(file: Path) -> bool:
    return file.suffix.lower() in _ARRAYS


def _array(name: str) -> DataError:
    return DataError(
        "Expected masks as image files, but this is a file of arrays. Save each as an 8-bit or 16-bit PNG: "
        "Image.fromarray(numpy.load(file).astype('uint8')).save(name).",
        path=name,
        field="mask",
    )
