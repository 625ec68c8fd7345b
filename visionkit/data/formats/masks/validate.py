"""Everything that is wrong with a folder of images and masks, at once, each with its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from visionkit.data.formats.coco.class_maps import stuff_file
from visionkit.data.formats.coco.panoptic import check_panoptic
from visionkit.data.formats.coco.reader import CocoReader, coco_files
from visionkit.data.formats.coco.validate import check_coco_file
from visionkit.data.formats.masks.label_map import IGNORE, LabelMap
from visionkit.data.formats.masks.pairs import MaskPair, MaskSplit
from visionkit.data.formats.masks.read_mask import RawMask, orientation, raw_mask, size_fault, to_classes
from visionkit.data.formats.masks.sources import mask_format, mask_layout
from visionkit.data.formats.masks.statistics import only_0_and_255
from visionkit.data.read_image import read_image
from visionkit.errors import DataError

__all__ = ["check_masks"]


def check_masks(
    root: str | Path,
    *,
    classes: Sequence[str] | str | Path | None = None,
    ignore: Sequence[int] | None = None,
) -> list[DataError]:
    """Read every image and mask of a data set and return every fault.

    Found are: images without masks and masks without images, two files of one name, files that cannot be
    decoded, sizes that differ, values outside the classes, masks in colours or in a lossy format, palettes
    that differ between files, masks without a counted pixel, foregrounds saved as 255 (which would be
    ignored), and images whose EXIF orientation the mask lacks where the sizes do not tell which way it lies.

    Args:
        root: A folder of images and masks, of Pascal VOC, Cityscapes, ADE20K or COCO, or a COCO file. Of
            COCO, files and outlines are checked (see `visionkit.data.check_coco`), of things
            and of stuff; of COCO panoptic every image and PNG.
        classes: As in `mask_folder`.
        ignore: As in `mask_folder`.

    Returns:
        The faults, split by split in the order of names; none if all is well.

    Raises:
        DataError: There is nothing to check: no layout, or no classes.
    """
    root = Path(root)
    kind = mask_format(root)
    if kind == "coco":
        return _check_outlines(root)
    if kind == "panoptic":
        return check_panoptic(root)
    labels, layout = mask_layout(root, classes=classes, ignore=ignore)
    faults = _unpaired(layout)
    palette: tuple[str, np.ndarray] | None = None
    seen = np.zeros(256, dtype=np.int64)
    ambiguous: list[str] = []
    read = 0
    for split in layout.values():
        for pair in split.pairs:
            more, counts, raw = _check_pair(root, pair, labels)
            faults += more
            seen += counts
            read += int(counts.any())
            if raw is None:
                continue
            if only_0_and_255(raw, counts, labels):
                ambiguous.append(pair.mask)
            if raw.palette is None:
                continue
            if palette is None:
                palette = (pair.mask, raw.palette)
            elif not _same_palette(raw, palette[1]) and labels.numbered:
                faults.append(
                    DataError(
                        f"Expected the palette of {palette[0]}, but the colours of its values differ: one "
                        "index may mean two classes. Save all masks with one palette, or check that they "
                        "were made with one list of classes.",
                        path=pair.mask,
                        field="palette",
                    )
                )
    if read and seen[IGNORE] and not seen[1 : len(labels.classes)].any() and len(labels.classes) > 1:
        faults.append(
            DataError(
                f"Expected pixels of {', '.join(labels.classes[1:4])}, but every mask holds only "
                f"{labels.classes[0]!r} and the ignored value {IGNORE}. Foreground saved as 255? List it "
                f"in the label map file: '255 {labels.classes[1]}'.",
                path=root,
                field="mask",
            )
        )
    else:
        faults += [_unclear(name, labels) for name in ambiguous]
    return faults


def _unclear(name: str, labels: LabelMap) -> DataError:
    other = labels.classes[1]
    return DataError(
        f"Expected the values 0 and 1, but it holds 0 and 255 only, and 255 is ignored unless it is listed. "
        f"Is 255 {other!r} in this file? Then save it with 1, or list '0 {labels.classes[0]}', '1 {other}' "
        f"and '255 {other}' in the label map file. Are these pixels not to count? Then list '255 ignore'.",
        path=name,
        field="mask",
    )


def _check_outlines(root: Path) -> list[DataError]:
    """Return the faults of the COCO files of a folder: things, and stuff where there is a file of it."""
    faults: list[DataError] = []
    for file, images in coco_files(root).values():
        faults += check_coco_file(file, images, masks=True)[1]
        beside = stuff_file(file)
        if beside is None:
            continue
        faults += check_coco_file(beside, images, masks=True)[1]
        if not faults:
            ours, theirs = (set(CocoReader(path, images, masks=True).ids) for path in (file, beside))
            faults += [
                DataError("Expected the stuff of every image, but there is none.", path=beside, record=name)
                for name in sorted(ours - theirs)
            ]
    return faults


def _unpaired(layout: Mapping[str, MaskSplit]) -> list[DataError]:
    faults = []
    for split in layout.values():
        faults += split.faults
        faults += [
            DataError(
                "Expected a mask of the same name, but there is none. Add it, or remove the image.",
                path=name,
                field="mask",
            )
            for name in split.without_mask
        ]
        faults += [
            DataError(
                "Expected an image of the same name, but there is none. Add it, or remove the mask.",
                path=name,
                field="image",
            )
            for name in split.without_image
        ]
    return faults


def _check_pair(
    root: Path, pair: MaskPair, labels: LabelMap
) -> tuple[list[DataError], np.ndarray, RawMask | None]:
    """Return the faults of one sample, how many pixels of each class it has, and the decoded mask."""
    faults: list[DataError] = []
    counts = np.zeros(256, dtype=np.int64)
    size: tuple[int, ...] | None = None
    try:
        size = tuple(read_image(pair.image, root=root).shape[-2:])
    except DataError as error:
        faults.append(error)
    try:
        raw = raw_mask(pair.mask, root=root)
    except DataError as error:
        return [*faults, error], counts, None
    if size is not None and raw.values.shape != size:
        faults.append(size_fault(pair.image, pair.mask, size, raw.values.shape, root=root))
    elif size is not None:
        faults += _turned(root, pair, size)
    try:
        counts += np.bincount(to_classes(raw, labels, path=pair.mask).ravel(), minlength=256)
    except DataError as error:
        return [*faults, error], counts, raw
    if not counts[:IGNORE].any():
        faults.append(
            DataError(
                "Expected at least one pixel that counts, but every pixel has an ignored value. Remove the "
                "sample, or list the value as a class.",
                path=pair.mask,
                field="mask",
            )
        )
    return faults, counts, raw


def _turned(root: Path, pair: MaskPair, size: tuple[int, ...]) -> list[DataError]:
    """Return a fault where an image is turned by EXIF, its mask is not, and both ways would fit."""
    turn, own = orientation(pair.image, root=root), orientation(pair.mask, root=root)
    if turn == own or (turn >= 5 and size[0] != size[1] and own == 1):
        return []
    return [
        DataError(
            f"Expected the EXIF orientation of its image {pair.image} ({turn}), but the mask has "
            f"{'none' if own == 1 else own}. The image is turned when it is read: if the mask was drawn on "
            "it as it is stored, they do not lie on each other. Save both upright, without the tag.",
            path=pair.mask,
            field="orientation",
        )
    ]


def _same_palette(raw: RawMask, other: np.ndarray) -> bool:
    """Compare the colours of the values that a mask uses (writers cut unused ends off)."""
    own = raw.palette
    if own is None or np.array_equal(own, other):
        return True
    return all(
        value >= len(other) or value >= len(own) or own[value] == other[value]
        for value in np.unique(raw.values).tolist()
    )
