"""Folders of pictures and masks: one class number a pixel, in a file as large as the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionkit.data.label_map import LabelMap, read_label_map
from visionkit.data.mask_layout import MaskPair, MaskSplit, folder_layout, voc_layout
from visionkit.data.read_image import inside, read_image, read_size
from visionkit.data.splits import Splits, holdout
from visionkit.errors import DataError, InputError
from visionkit.types import Reader, Sample

__all__ = ["MaskReader", "mask_folder", "mask_splits", "raw_mask", "read_mask", "voc_masks"]

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
_HOLDOUT = 0.15


def read_mask(path: str | Path, labels: LabelMap, *, root: str | Path | None = None) -> Tensor:
    """Read a mask file as class numbers.

    Palette files give their indices, grey files their values, colour files the classes of their colours.

    Args:
        path: The mask file.
        labels: What the values mean.
        root: The file must lie inside this folder.

    Returns:
        `(H, W)` int64; `IGNORE` where the pixel does not count.

    Raises:
        DataError: The file is missing, damaged, too large, of a lossy or unclear kind, or holds values that
        no
            class has; the text names up to five of them.
    """
    values, coloured = raw_mask(path, root=root)
    if coloured and not labels.colours:
        raise DataError(
            "Expected a mask of class numbers (an index or palette file), but it is a picture in colours. "
            "Save "
            "it with one number a pixel, or list the colour of each class in the label map file.",
            path=path,
            field="mode",
        )
    classes = (labels.colour_table if coloured else labels.table)[values]
    strange = values[classes < 0]
    if strange.size:
        found, counts = np.unique(strange, return_counts=True)
        names = [f"#{value:06x}" if coloured else str(value) for value in found[:5]]
        listed = ", ".join(f"{name} ({count} pixels)" for name, count in zip(names, counts))
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise DataError(
            f"Expected values of the {len(labels.classes)} classes, but got {listed}{more}. List these "
            "values "
            "in the label map file, as a class or as 'ignore'.",
            path=path,
            field="mask",
        )
    return torch.from_numpy(classes.astype(np.int64))


def raw_mask(path: str | Path, *, root: str | Path | None = None) -> tuple[np.ndarray, bool]:
    """Return the pixels of a mask file as they are, and whether they are colours (24 bits in one number).

    Raises:
        DataError: As `read_mask`, except for values.
    """
    read_size(path, root=root)  # a regular file inside the root, of a known format, below the pixel limit
    file = Path(path) if root is None else Path(root, path)
    try:
        with Image.open(file, formats=("PNG", "TIFF", "BMP", "GIF", "JPEG", "WEBP")) as image:
            if image.format in ("JPEG", "WEBP"):
                raise DataError(
                    f"Expected a mask in a lossless format, but it is {image.format}, which changes the "
                    "numbers. "
                    "Make it again as PNG.",
                    path=path,
                    field="format",
                )
            pixels = np.array(image)
            mode = image.mode
    except DataError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"Expected a whole mask, but decoding stopped: {said}. Make the file again.",
            path=path,
            field="pixels",
        ) from error
    if mode in ("RGB", "RGBA"):
        wide = pixels.astype(np.int32)
        return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2], True
    if mode == "1" or mode == "L" or mode == "P":
        return pixels.astype(np.uint8), False
    if mode.startswith("I") and pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 65535:
        return pixels.astype(np.uint16), False
    raise DataError(
        f"Expected a mask with one whole number from 0 to 65535 a pixel, but the pixel type is {mode!r}. "
        "Save it "
        "as an 8-bit or 16-bit PNG without alpha.",
        path=path,
        field="mode",
    )


@dataclass(frozen=True)
class MaskReader:
    """Pictures with class maps.

    Args:
        root: The folder that holds every file.
        pairs: Picture and mask of each sample.
        labels: What the values in the masks mean.
    """

    root: Path
    pairs: Sequence[MaskPair]
    labels_of_values: LabelMap

    @property
    def ids(self) -> list[str]:
        """Names of the pictures, relative to the root."""
        return [pair.image for pair in self.pairs]

    @property
    def file_sizes(self) -> list[tuple[int, int]]:
        """Bytes of each picture and mask."""
        return [
            ((self.root / pair.image).stat().st_size, (self.root / pair.mask).stat().st_size)
            for pair in self.pairs
        ]

    @property
    def files(self) -> list[str]:
        """The picture of each sample."""
        return [str(self.root / pair.image) for pair in self.pairs]

    @property
    def recipe(self) -> str:
        """What else decides the samples: classes and values."""
        labels = self.labels_of_values
        return f"{labels.classes}{sorted(labels.values.items())}{sorted(labels.colours.items())}"

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read picture and mask `index`.

        Raises:
            DataError: Either cannot be read, or they differ in size.
        """
        pair = self.pairs[index]
        image = read_image(pair.image, root=self.root)
        mask = read_mask(pair.mask, self.labels_of_values, root=self.root)
        height, width = image.shape[-2:]
        if mask.shape != (height, width):
            raise DataError(
                f"Expected a mask as large as its picture {pair.image} ({height} x {width}), but it is "
                f"{mask.shape[0]} x {mask.shape[1]} (height x width). Make it again at the picture's size.",
                path=pair.mask,
                field="size",
            )
        return {"image": image, "mask": mask, "id": pair.image, "size": (height, width)}


def mask_folder(
    root: str | Path,
    *,
    classes: Sequence[str] | str | Path | None = None,
    ignore: Sequence[int] = (255,),
    seed: int = 0,
) -> Splits:
    """Read a folder of pictures and masks.

    The layouts are `<split>/images` beside `<split>/masks`, `images/<split>` beside `masks/<split>`, and
    plain
    `images` beside `masks`. A picture and its mask share the name before the ending. Where there is no
    validation split, a share of the training pictures is held out, and the facts say so.

    Args:
        root: The folder.
        classes: Names of the classes (value 0, 1, ...), or a label map file; without it `classes.txt` in the
            folder (see `read_label_map`).
        ignore: With names: values that do not count.
        seed: Seed of the held-out share.

    Raises:
        DataError: There is no such layout, a picture lacks its mask, or the classes are not known.
    """
    root = Path(root)
    labels = label_map(root, classes, ignore=ignore)
    return mask_splits(root, folder_layout(root), labels, name=root.resolve().name, seed=seed)


def voc_masks(root: str | Path, *, extra: bool = False) -> Splits:
    """Read a Pascal VOC segmentation folder: `JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation`.

    Args:
        root: The folder of a year (`VOC2012`).
        extra: Train on `trainaug.txt` with the masks of `SegmentationClassAug` (10,582 pictures).

    Raises:
        DataError: A list, picture or mask is missing.
    """
    root = Path(root)
    return mask_splits(root, voc_layout(root, extra=extra), LabelMap.of(VOC_CLASSES), name="voc")


def label_map(
    root: Path, classes: Sequence[str] | str | Path | None, *, ignore: Sequence[int] = (255,)
) -> LabelMap:
    """Return the label map of a folder: given names, a given file, or `classes.txt`.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    if isinstance(classes, str | Path):
        return read_label_map(classes)
    if classes is not None:
        return LabelMap.of(classes, ignore=ignore)
    file = inside(root, "classes.txt")
    if not file.is_file():
        raise DataError(
            "Expected a list of the classes, but there is no classes.txt and none was given. Write one "
            "class a "
            "line in the order of the mask values, or lines of 'value name'.",
            path=root,
            field="classes",
        )
    return read_label_map(file)


def mask_splits(
    root: Path, found: Mapping[str, MaskSplit], labels: LabelMap, *, name: str, seed: int = 0
) -> Splits:
    """Make splits of the pairs of a layout; without a validation split a share of the training is held out.

    Args:
        root: The folder that holds every file.
        found: The layout's splits.
        labels: What the values in the masks mean.
        name: What the data set is called.
        seed: Seed of the held-out share.

    Raises:
        DataError: A picture has no mask; up to five are named.
        InputError: There is no training picture.
    """
    missing = [image for split in found.values() for image in split.without_mask]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(
            f"Expected a mask for every picture, but {len(missing)} have none: "
            f"{', '.join(missing[:5])}{more}. Add "
            "masks of the same names, or move these pictures away.",
            path=root,
            field="mask",
        )
    readers: dict[str, Reader] = {key: MaskReader(root, split.pairs, labels) for key, split in found.items()}
    if not len(readers.get("train", [])):
        raise InputError(f"Expected training pictures with masks under {root}, but there are none.")
    facts: dict[str, object] = {
        "layout": "masks",
        "ignored_values": sorted(v for v, i in labels.values.items() if i == 255),
    }
    train, val = readers["train"], readers.get("val")
    if val is None or not len(val):
        train, val = holdout(train, _HOLDOUT, seed=seed)
        facts["val"] = (
            f"{len(val)} of the {len(readers['train'])} training pictures, held out with seed {seed}"
        )
    return Splits(train, val, readers.get("test"), labels.classes, name, facts)
