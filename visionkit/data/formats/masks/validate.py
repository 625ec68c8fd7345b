"""Validate a folder of images and masks: every error at once, each with its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from visionkit.data.formats.coco.class_maps import read_coco_class_maps
from visionkit.data.formats.coco.panoptic import check_panoptic, read_panoptic
from visionkit.data.formats.masks.label_map import IGNORE, LabelMap
from visionkit.data.formats.masks.pairs import MaskPair, MaskSplit
from visionkit.data.formats.masks.read_mask import orientation, size_error
from visionkit.data.formats.masks.reader import mask_splits
from visionkit.data.formats.masks.sources import (
    chosen_categories,
    layout_notices,
    mask_format,
    mask_layout,
)
from visionkit.data.formats.masks.statistics import MaskSummaries, MaskSummary
from visionkit.data.formats.source import Source
from visionkit.data.read_image import read_image
from visionkit.errors import DataError

__all__ = ["check_masks", "read_masks"]


def check_masks(
    root: str | Path,
    *,
    classes: Sequence[str] | str | Path | None = None,
    ignore: Sequence[int] | None = None,
    left_out: bool = True,
) -> list[DataError]:
    """Read every image and mask of a data set and return every error.

    Found are: images without masks and masks without images, two files of one name, files that cannot be
    decoded, sizes that differ, values outside the classes, masks in colours or in a lossy format, palettes
    that differ between files, masks without a counted pixel, foregrounds saved as 255 (which would be
    ignored), and images whose EXIF orientation the mask lacks where both ways would fit.

    Args:
        root: A folder of images and masks, of Pascal VOC, Cityscapes, ADE20K or COCO, or a COCO file. Of
            COCO, files and outlines are checked, of things and of the stuff that is joined; of COCO panoptic
            every image and PNG.
        classes: As in `mask_folder`.
        ignore: As in `mask_folder`.
        left_out: Whether masks without an image, masks of 0 and 255 only, and objects of COCO that are left
            out or cut are listed, too: readers count them and go on while they are few.

    Returns:
        The errors, split by split in the order of names; none if all is well.

    Raises:
        DataError: There is nothing to check: no layout, or no classes.
    """
    root = Path(root)
    kind = mask_format(root)
    if kind == "coco":
        return read_coco_class_maps(root).errors(left_out)
    if kind == "panoptic":
        return check_panoptic(root)
    labels, layout = mask_layout(root, classes=classes, ignore=ignore)
    return _errors(layout, MaskSummaries(root, labels), left_out)


def read_masks(root: Path, *, classes: str | None = None, seed: int = 0) -> Source:
    """List the images and masks of a data set; each mask is decoded once, for notices and errors together.

    Args:
        root: The folder, or a COCO file.
        classes: A label map file.
        seed: Seed of the hold-out.

    Raises:
        DataError: There is no layout, or no classes.
    """
    kind = mask_format(root)
    if kind == "panoptic":
        return read_panoptic(root, categories=chosen_categories(classes), seed=seed)
    if kind == "coco":
        return read_coco_class_maps(root, categories=chosen_categories(classes), seed=seed)
    labels, layout = mask_layout(root, classes=classes)
    summaries = MaskSummaries(root, labels)
    notices = layout_notices(root, layout)
    return Source(
        lambda max_dropped: mask_splits(
            root,
            layout,
            labels,
            name=root.resolve().name if kind == "folder" else kind,
            seed=seed,
            max_dropped=max_dropped,
            notices=notices,
            summaries=summaries,
        ),
        lambda left_out: _errors(layout, summaries, left_out),
    )


def _errors(layout: Mapping[str, MaskSplit], summaries: MaskSummaries, left_out: bool) -> list[DataError]:
    """Return everything that is wrong with pairs of images and masks."""
    root, labels = summaries.root, summaries.labels
    errors = _unpaired(layout, left_out)
    palette: tuple[str, np.ndarray] | None = None
    seen = np.zeros(256, dtype=np.int64)
    ambiguous: list[str] = []
    read = 0
    for split in layout.values():
        for pair in split.pairs:
            more, summary = _check_pair(pair, summaries)
            errors += more
            if summary is None:
                continue
            if summary.pixels is not None:
                seen += summary.pixels
                read += int(summary.pixels.any())
            if summary.ambiguous:
                ambiguous.append(pair.mask)
            if summary.palette is None:
                continue
            if palette is None:
                palette = (pair.mask, summary.palette)
            elif not _same_palette(summary, palette[1]) and labels.numbered:
                errors.append(
                    DataError(
                        f"Expected the palette of {palette[0]}, but the colours of its values differ: one "
                        "index may mean two classes. Save all masks with one palette, or check that they "
                        "were made with one list of classes.",
                        path=pair.mask,
                        field="palette",
                    )
                )
    if read and seen[IGNORE] and not seen[1 : len(labels.classes)].any() and len(labels.classes) > 1:
        errors.append(
            DataError(
                f"Expected pixels of {', '.join(labels.classes[1:4])}, but every mask holds only "
                f"{labels.classes[0]!r} and the ignored value {IGNORE}. Foreground saved as 255? List it "
                f"in the label map file: '255 {labels.classes[1]}'.",
                path=root,
                field="mask",
            )
        )
    elif left_out:
        errors += [_unclear(name, labels) for name in ambiguous]
    return errors


def _unclear(name: str, labels: LabelMap) -> DataError:
    other = labels.classes[1]
    return DataError(
        f"Expected the values 0 and 1, but it holds 0 and 255 only, and 255 is ignored unless it is listed. "
        f"Is 255 {other!r} in this file? Then save it with 1, or list '0 {labels.classes[0]}', '1 {other}' "
        f"and '255 {other}' in the label map file. Are these pixels not to count? Then list '255 ignore'.",
        path=name,
        field="mask",
    )


def _unpaired(layout: Mapping[str, MaskSplit], left_out: bool) -> list[DataError]:
    errors = []
    for split in layout.values():
        errors += split.errors
        errors += [
            DataError(
                "Expected a mask of the same name, but there is none. Add it, or remove the image.",
                path=name,
                field="mask",
            )
            for name in split.without_mask
        ]
        errors += [
            DataError(
                "Expected an image of the same name, but there is none. Add it, or remove the mask.",
                path=name,
                field="image",
            )
            for name in (split.without_image if left_out else ())
        ]
    return errors


def _check_pair(pair: MaskPair, summaries: MaskSummaries) -> tuple[list[DataError], MaskSummary | None]:
    """Return the errors of one sample, and what its mask holds."""
    errors: list[DataError] = []
    root = summaries.root
    size: tuple[int, ...] | None = None
    try:
        size = tuple(read_image(pair.image, root=root).shape[-2:])
    except DataError as error:
        errors.append(error)
    try:
        summary = summaries.of(pair.mask)
    except DataError as error:
        return [*errors, error], None
    if size is not None and summary.size != size:
        errors.append(size_error(pair.image, pair.mask, size, summary.size, root=root))
    elif size is not None:
        errors += _turned(root, pair, size)
    if summary.error is not None:
        errors.append(summary.error)
    elif summary.pixels is not None and not summary.pixels[:IGNORE].any():
        errors.append(
            DataError(
                "Expected at least one pixel that counts, but every pixel has an ignored value. Remove the "
                "sample, or list the value as a class.",
                path=pair.mask,
                field="mask",
            )
        )
    return errors, summary


def _turned(root: Path, pair: MaskPair, size: tuple[int, ...]) -> list[DataError]:
    """Return an error where an image is turned by EXIF, its mask is not, and both ways would fit."""
    image_turn, mask_turn = orientation(pair.image, root=root), orientation(pair.mask, root=root)
    if image_turn == mask_turn or (image_turn >= 5 and size[0] != size[1] and mask_turn == 1):
        return []
    return [
        DataError(
            f"Expected the EXIF orientation of its image {pair.image} ({image_turn}), but the mask has "
            f"{'none' if mask_turn == 1 else mask_turn}. The image is turned when it is read: if the mask "
            "was drawn on it as it is stored, they do not lie on each other. Save both upright, without the "
            "tag.",
            path=pair.mask,
            field="orientation",
        )
    ]


def _same_palette(summary: MaskSummary, other: np.ndarray) -> bool:
    """Compare the colours of the values that a mask uses (writers cut unused ends off)."""
    palette = summary.palette
    if palette is None or np.array_equal(palette, other):
        return True
    return all(
        value >= len(other) or value >= len(palette) or palette[value] == other[value]
        for value in summary.stored.tolist()
    )
