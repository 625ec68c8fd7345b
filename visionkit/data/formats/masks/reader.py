"""Folders of images and masks: one class number a pixel, in a file as large as the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionkit.data.formats.masks.label_map import LABEL_FILES, LabelMap, read_label_map
from visionkit.data.formats.masks.layout import find_folders, folder_layout
from visionkit.data.formats.masks.pairs import MaskPair, MaskSplit
from visionkit.data.formats.masks.read_mask import raw_mask, read_mask, size_error
from visionkit.data.formats.masks.statistics import MaskSummaries, mask_notices
from visionkit.data.formats.split_notices import UNREAD_SPLITS, frame_notices, overlap_notices
from visionkit.data.read_image import inside, read_image
from visionkit.data.splits import HOLDOUT, Splits, holdout
from visionkit.errors import DataError, InputError
from visionkit.notices import MAX_DROPPED, Notice, NoticeCounter
from visionkit.types import Reader, Sample

__all__ = ["MaskReader", "label_map", "mask_folder", "mask_splits", "raw_mask", "read_mask"]


@dataclass(frozen=True)
class MaskReader:
    """Images with class maps.

    Args:
        root: The folder that holds every file.
        pairs: Image and mask of each sample.
        labels_of_values: What the values in the masks mean.
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
            raise size_error(pair.image, pair.mask, (height, width), tuple(mask.shape), root=self.root)
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
    `_mask`, `_L`, `mask_` and alike besides. Where there is no validation split, a fraction of the training
    images is held out, and the facts say so.

    Args:
        root: The folder.
        classes: Names of the classes (value 0, 1, ...), or a label map file; without it the first of
            `LABEL_FILES` that lies in the folder (see `read_label_map`).
        ignore: With names: values that do not count; 255 if not given.
        seed: Seed of the held-out fraction.
        max_dropped: See `mask_splits`.

    Raises:
        DataError: There is no such layout, an image lacks its mask, or the classes are not known.
    """
    root = Path(root)
    labels = label_map(root, classes, ignore=ignore)
    layout = folder_layout(root)
    return mask_splits(
        root,
        layout,
        labels,
        name=root.resolve().name,
        seed=seed,
        max_dropped=max_dropped,
        notices=unread_notices(root, layout),
    )


def unread_notices(root: Path, layout: Mapping[str, MaskSplit]) -> tuple[Notice, ...]:
    """Return the notice of folders that look like a split but are not read, each with the reason.

    Args:
        root: The folder of the data set.
        layout: The splits that are read.
    """
    counter = NoticeCounter()
    for text in find_folders(root).unread:
        counter.add("folders that look like a split but were not read", text, harmless=True)
    return counter.notices(len(layout) + sum(counter.counts.values()))


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
        f"line in the order of the mask values, or lines of 'value name', into {LABEL_FILES[0]} there or a "
        f"file that you name (--classes FILE); {', '.join(LABEL_FILES[1:])} are read as well.",
        path=root,
        field="classes",
    )


def mask_splits(
    root: Path,
    layout: Mapping[str, MaskSplit],
    labels: LabelMap,
    *,
    name: str,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
    notices: Sequence[Notice] = (),
    summaries: MaskSummaries | None = None,
) -> Splits:
    """Make splits of the pairs of a layout; without a validation split some training pairs are held out.

    Up to 500 of the training masks are read for the notices (see `mask_notices`).

    Args:
        root: The folder that holds every file.
        layout: The layout's splits.
        labels: What the values in the masks mean.
        name: What the data set is called.
        seed: Seed of the held-out fraction.
        max_dropped: The data set is refused if more masks than this fraction have no image, or hold 0 and 255
            where 255 may be the foreground. The fraction of ignored pixels may be a half, or this if larger.
        notices: What the layout left out.
        summaries: Masks that were read already.

    Raises:
        DataError: An image has no mask (up to five are named), files cannot be paired in one way only, or
            more than `max_dropped` is left out.
        InputError: There is no training image.
    """
    missing = [image for split in layout.values() for image in split.without_mask]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(
            f"Expected a mask for every image, but {len(missing)} have none: {', '.join(missing[:5])}{more}. "
            "Add masks of the same names, or move these images away.",
            path=root,
            field="mask",
        )
    errors = [error for split in layout.values() for error in split.errors]
    if errors:
        more = f" There are {len(errors) - 1} more such files." if len(errors) > 1 else ""
        error = errors[0]
        raise DataError(f"{error.message}{more}", path=error.path, record=error.record, field=error.field)
    readers = {key: MaskReader(root, split.pairs, labels) for key, split in layout.items()}
    if "train" not in readers or not readers["train"].pairs:
        raise InputError(f"Expected training images with masks under {root}, but there are none.")
    known = summaries or MaskSummaries(root, labels)
    facts: dict[str, object] = {
        "root": str(root),
        "layout": "masks",
        "ignored_values": sorted(v for v, i in labels.values.items() if i == 255),
    }
    train: Reader = readers["train"]
    val: Reader | None = readers.get("val")
    files = {split: reader.files for split, reader in readers.items()}
    notices = [*notices, *overlap_notices(files, max_dropped=max_dropped)]
    notices += frame_notices(file for of_split in files.values() for file in of_split)
    if val is None or not len(val):
        if val is not None and all(each.what != UNREAD_SPLITS for each in notices):
            text = f"{root}: no image and mask in val, so that part of the training images is held out"
            notices.append(Notice(UNREAD_SPLITS, 1, 0, text))
        train, val = holdout(train, HOLDOUT, seed=seed, path=root)
        facts["held_out"] = (
            f"{len(val)} of the {len(readers['train'])} training images, held out with seed {seed}"
        )
    return Splits(
        train,
        val,
        readers.get("test"),
        labels.classes,
        name,
        facts,
        (
            *notices,
            *_left_out(layout, max_dropped),
            *mask_notices(readers["train"].pairs, known, max_dropped=max_dropped),
        ),
    )


def _left_out(layout: Mapping[str, MaskSplit], max_dropped: float) -> tuple[Notice, ...]:
    """Return what lies in the folders of a layout and is not read."""
    counter = NoticeCounter(max_fraction=max_dropped)
    masks = 0
    for split in layout.values():
        masks += len(split.pairs) + len(split.without_image)
        for name in split.without_image:
            counter.add("masks without an image left out", name)
    notices = counter.notices(masks)
    others = [name for split in layout.values() for name in split.ignored]
    if others:
        total = len(others) + 2 * masks
        notices += (Notice("files that are no images ignored", len(others), total, others[0]),)
    return notices
