"""Folders of images and masks: one class number a pixel, in a file as large as the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionkit.data.formats.masks.label_map import LABEL_FILES, LabelMap, read_label_map
from visionkit.data.formats.masks.layout import find_folders, folder_layout
from visionkit.data.formats.masks.pairs import MaskPair, MaskSplit
from visionkit.data.formats.masks.read_mask import raw_mask, read_mask, size_fault
from visionkit.data.formats.masks.statistics import mask_notices
from visionkit.data.read_image import inside, read_image
from visionkit.data.splits import Splits, holdout
from visionkit.errors import DataError, InputError
from visionkit.notices import MAX_DROPPED, Notice, NoticeCounter
from visionkit.types import Reader, Sample

__all__ = ["MaskReader", "label_map", "mask_folder", "mask_splits", "raw_mask", "read_mask"]

_HOLDOUT = 0.15


@dataclass(frozen=True)
class MaskReader:
    """Images with class maps.

    Args:
        root: The folder that holds every file.
        pairs: Image and mask of each sample.
        labels: What the values in the masks mean.
    """

    root: Path
    pairs: Sequence[MaskPair]
    labels_of_values: LabelMap

    @property
    def ids(self) -> list[str]:
        """Names of the images, relative to the root."""
        return [pair.image for pair in self.pairs]

    @property
    def file_sizes(self) -> list[tuple[int, int]]:
        """Bytes of each image and mask."""
        return [
            ((self.root / pair.image).stat().st_size, (self.root / pair.mask).stat().st_size)
            for pair in self.pairs
        ]

    @property
    def files(self) -> list[str]:
        """The image of each sample."""
        return [str(self.root / pair.image) for pair in self.pairs]

    @property
    def recipe(self) -> str:
        """What else decides the samples: classes and values."""
        labels = self.labels_of_values
        return f"{labels.classes}{sorted(labels.values.items())}{sorted(labels.colours.items())}"

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read image and mask `index`.

        Raises:
            DataError: Either cannot be read, or they differ in size.
        """
        pair = self.pairs[index]
        image = read_image(pair.image, root=self.root)
        mask = read_mask(pair.mask, self.labels_of_values, root=self.root)
        height, width = image.shape[-2:]
        if mask.shape != (height, width):
            raise size_fault(pair.image, pair.mask, (height, width), tuple(mask.shape), root=self.root)
        return {"image": image, "mask": mask, "id": pair.image, "size": (height, width)}


def mask_folder(
    root: str | Path,
    *,
    classes: Sequence[str] | str | Path | None = None,
    ignore: Sequence[int] | None = None,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Read a folder of images and masks.

    The layouts are `<split>/images` beside `<split>/masks`, `images/<split>` beside `masks/<split>`, plain
    `images` beside `masks` (or `labels`, `annotations`), and `<split>` beside `<split>annot` or
    `<split>_labels`. An image and its mask share sub-folder and name before the ending; a mask may have
    `_mask`, `_L`, `mask_` and alike besides. Where there is no validation split, a share of the training
    images is held out, and the facts say so.

    Args:
        root: The folder.
        classes: Names of the classes (value 0, 1, ...), or a label map file; without it the first of
            `LABEL_FILES` that lies in the folder (see `read_label_map`).
        ignore: With names: values that do not count; 255 if not given.
        seed: Seed of the held-out share.
        max_dropped: See `mask_splits`.

    Raises:
        DataError: There is no such layout, an image lacks its mask, or the classes are not known.
    """
    root = Path(root)
    labels = label_map(root, classes, ignore=ignore)
    layout = folder_layout(root)
    more = NoticeCounter()
    for text in find_folders(root).unread:
        more.add("folders that look like a split but were not read", text, harmless=True)
    notices = more.notices(len(layout) + sum(more.counts.values()))
    return mask_splits(
        root,
        layout,
        labels,
        name=root.resolve().name,
        seed=seed,
        max_dropped=max_dropped,
        notices=notices,
    )


def label_map(
    root: Path,
    classes: Sequence[str] | str | Path | None,
    *,
    ignore: Sequence[int] | None = None,
    otherwise: LabelMap | None = None,
) -> LabelMap:
    """Return the label map of a folder: given names, a given file, or a file that lies in the folder.

    Args:
        root: The folder.
        classes: Names or a file; None: the first of `LABEL_FILES` in the folder.
        ignore: With names: values that do not count; 255 if not given.
        otherwise: The format's own label map, where there is no such file.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    if isinstance(classes, str | Path):
        return read_label_map(classes)
    if classes is not None:
        return LabelMap.of(classes, ignore=ignore)
    for name in LABEL_FILES:
        file = inside(root, name)
        if file.is_file():
            return read_label_map(file)
    if otherwise is not None:
        return otherwise
    raise DataError(
        "Expected a list of the classes, but there is no classes.txt and none was given. Write one class a "
        f"line in the order of the mask values, or lines of 'value name'; {', '.join(LABEL_FILES[1:])} are "
        "read as well.",
        path=root,
        field="classes",
    )


def mask_splits(
    root: Path,
    found: Mapping[str, MaskSplit],
    labels: LabelMap,
    *,
    name: str,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
    notices: Sequence[Notice] = (),
) -> Splits:
    """Make splits of the pairs of a layout; without a validation split a share of the training is held out.

    Up to 500 of the training masks are read for the notices (see `mask_notices`).

    Args:
        root: The folder that holds every file.
        found: The layout's splits.
        labels: What the values in the masks mean.
        name: What the data set is called.
        seed: Seed of the held-out share.
        max_dropped: The data set is refused if more masks than this share have no image, or hold 0 and 255
            where 255 may be the foreground. The share of ignored pixels may be a half, or this if larger.
        notices: What the layout left out.

    Raises:
        DataError: An image has no mask (up to five are named), files cannot be paired in one way only, or
            more than `max_dropped` is left out.
        InputError: There is no training image.
    """
    missing = [image for split in found.values() for image in split.without_mask]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(
            f"Expected a mask for every image, but {len(missing)} have none: {', '.join(missing[:5])}{more}. "
            "Add masks of the same names, or move these images away.",
            path=root,
            field="mask",
        )
    faults = [fault for split in found.values() for fault in split.faults]
    if faults:
        more = f" There are {len(faults) - 1} more such files." if len(faults) > 1 else ""
        fault = faults[0]
        raise DataError(f"{fault.message}{more}", path=fault.path, record=fault.record, field=fault.field)
    readers = {key: MaskReader(root, split.pairs, labels) for key, split in found.items()}
    if "train" not in readers or not readers["train"].pairs:
        raise InputError(f"Expected training images with masks under {root}, but there are none.")
    facts: dict[str, object] = {
        "root": str(root),
        "layout": "masks",
        "ignored_values": sorted(v for v, i in labels.values.items() if i == 255),
    }
    train: Reader = readers["train"]
    val: Reader | None = readers.get("val")
    if val is None or not len(val):
        train, val = holdout(train, _HOLDOUT, seed=seed, path=root)
        facts["val"] = f"{len(val)} of the {len(readers['train'])} training images, held out with seed {seed}"
    return Splits(
        train,
        val,
        readers.get("test"),
        labels.classes,
        name,
        facts,
        (
            *notices,
            *_left_out(found, max_dropped),
            *mask_notices(readers["train"].pairs, root, labels, max_dropped=max_dropped),
        ),
    )


def _left_out(found: Mapping[str, MaskSplit], max_dropped: float) -> tuple[Notice, ...]:
    """Return what lies in the folders of a layout and is not read."""
    counter = NoticeCounter(max_fraction=max_dropped)
    masks = 0
    for split in found.values():
        masks += len(split.pairs) + len(split.without_image)
        for name in split.without_image:
            counter.add("masks without an image left out", name)
    notices = counter.notices(masks)
    others = [name for split in found.values() for name in split.ignored]
    if others:
        total = len(others) + 2 * masks
        notices += (Notice("files that are no images ignored", len(others), total, others[0]),)
    return notices
