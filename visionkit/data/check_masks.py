"""Everything that is wrong with a folder of pictures and masks, at once, each with its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from visionkit.data.check_coco import check_coco_file
from visionkit.data.coco import CocoReader, coco_files
from visionkit.data.coco_class_maps import stuff_file
from visionkit.data.label_map import IGNORE, LabelMap
from visionkit.data.mask_layout import MaskPair, MaskSplit
from visionkit.data.mask_sources import mask_kind, mask_layout
from visionkit.data.masks import raw_mask, read_mask
from visionkit.data.read_image import read_image
from visionkit.errors import DataError

__all__ = ["check_masks"]


def check_masks(
    root: str | Path, *, classes: Sequence[str] | str | Path | None = None, ignore: Sequence[int] = (255,)
) -> list[DataError]:
    """Read every picture and mask of a data set and return every fault.

    Found are: pictures without masks and masks without pictures, files that cannot be decoded, sizes that
    differ, values outside the classes, masks in colours or in a lossy format, palettes that differ between
    files, masks without a counted pixel, and foregrounds saved as 255 (which would be ignored in silence).

    Args:
        root: A folder of pictures and masks, of Pascal VOC, Cityscapes or COCO, or a COCO file. Of COCO,
            files and outlines are checked (see `visionkit.data.coco.check_coco`), of things and of stuff.
        classes: As in `mask_folder`.
        ignore: As in `mask_folder`.

    Returns:
        The faults, split by split in the order of names; none if all is well.

    Raises:
        DataError: There is nothing to check: no layout, or no classes.
    """
    root = Path(root)
    if mask_kind(root) == "coco":
        return _check_outlines(root)
    labels, layout = mask_layout(root, classes=classes, ignore=ignore)
    faults = _unpaired(layout)
    palette: tuple[str, bytes] | None = None
    seen = np.zeros(256, dtype=np.int64)
    read = 0
    for split in layout.values():
        for pair in split.pairs:
            more, counts = _check_pair(root, pair, labels)
            faults += more
            seen += counts
            read += int(counts.any())
            own = _palette(root / pair.mask)
            if own is None:
                continue
            if palette is None:
                palette = (pair.mask, own)
            elif not _same_palette(own, palette[1], root / pair.mask):
                faults.append(
                    DataError(
                        f"Expected the palette of {palette[0]}, but the colours of its values differ: one "
                        "index "
                        "may mean two classes. Save all masks with one palette, or check that they were "
                        "made with one list of classes.",
                        path=pair.mask,
                        field="palette",
                    )
                )
    if read and seen[IGNORE] and not seen[1 : len(labels.classes)].any() and len(labels.classes) > 1:
        faults.append(
            DataError(
                f"Expected pixels of {', '.join(labels.classes[1:4])}, but every mask holds only "
                f"{labels.classes[0]!r} and the ignored value {IGNORE}. Foreground saved as 255? List it "
                "in the "
                f"label map file: '255 {labels.classes[1]}'.",
                path=root,
                field="mask",
            )
        )
    return faults


def _check_outlines(root: Path) -> list[DataError]:
    """Return the faults of the COCO files of a folder: things, and stuff where there is a file of it."""
    faults: list[DataError] = []
    for file, pictures in coco_files(root).values():
        faults += check_coco_file(file, pictures, masks=True)[1]
        beside = stuff_file(file)
        if beside is None:
            continue
        faults += check_coco_file(beside, pictures, masks=True)[1]
        if not faults:
            ours, theirs = (set(CocoReader(path, pictures, masks=True).ids) for path in (file, beside))
            faults += [
                DataError("Expected the stuff of every picture, but there is none.", path=beside, record=name)
                for name in sorted(ours - theirs)
            ]
    return faults


def _unpaired(layout: Mapping[str, MaskSplit]) -> list[DataError]:
    faults = []
    for split in layout.values():
        faults += [
            DataError(
                "Expected a mask of the same name, but there is none. Add it, or remove the picture.",
                path=name,
                field="mask",
            )
            for name in split.without_mask
        ]
        faults += [
            DataError(
                "Expected a picture of the same name, but there is none. Add it, or remove the mask.",
                path=name,
                field="image",
            )
            for name in split.without_picture
        ]
    return faults


def _check_pair(root: Path, pair: MaskPair, labels: LabelMap) -> tuple[list[DataError], np.ndarray]:
    """Return the faults of one sample, and how many pixels of each class it has."""
    faults: list[DataError] = []
    counts = np.zeros(256, dtype=np.int64)
    size: tuple[int, ...] | None = None
    try:
        size = tuple(read_image(pair.image, root=root).shape[-2:])
    except DataError as error:
        faults.append(error)
    try:
        raw, _ = raw_mask(pair.mask, root=root)
    except DataError as error:
        return [*faults, error], counts
    if size is not None and raw.shape != size:
        faults.append(
            DataError(
                f"Expected a mask as large as its picture {pair.image} ({size[0]} x {size[1]}), but it is "
                f"{raw.shape[0]} x {raw.shape[1]} (height x width). Make it again at the picture's size.",
                path=pair.mask,
                field="size",
            )
        )
    try:
        mask = read_mask(pair.mask, labels, root=root)
    except DataError as error:
        return [*faults, error], counts
    counts += np.bincount(mask.numpy().ravel(), minlength=256)
    if not counts[:IGNORE].any():
        faults.append(
            DataError(
                "Expected at least one pixel that counts, but every pixel has an ignored value. Remove the "
                "sample, or list the value as a class.",
                path=pair.mask,
                field="mask",
            )
        )
    return faults, counts


def _palette(file: Path) -> bytes | None:
    """Return the colours of a palette file, None for other files and those that cannot be read."""
    try:
        with Image.open(file, formats=("PNG", "TIFF", "BMP", "GIF")) as image:
            if image.mode != "P":
                return None
            palette = image.getpalette("RGB")
    except Exception:
        return None
    return None if palette is None else bytes(palette)


def _same_palette(one: bytes, other: bytes, file: Path) -> bool:
    """Compare the colours of the values that the file uses (writers cut unused ends off)."""
    if one == other:
        return True
    try:
        values, _ = raw_mask(file)
    except DataError:
        return True  # reported already
    return all(
        one[3 * value : 3 * value + 3] == other[3 * value : 3 * value + 3] or 3 * value >= len(other)
        for value in np.unique(values).tolist()
    )
