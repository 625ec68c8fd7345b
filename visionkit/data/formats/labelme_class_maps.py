"""labelme polygons as class maps for segmentation: the shapes of a file painted in their order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from visionkit.data.formats.box_records import BoxCounts
from visionkit.data.formats.box_splits import validation_split
from visionkit.data.formats.coco.segmentations import OutlineBuilder
from visionkit.data.formats.coco.validate import size_error
from visionkit.data.formats.labelme import (
    LabelmeFile,
    LabelmeResults,
    count_left_out,
    labelme_errors,
    read_labelme_folder,
)
from visionkit.data.formats.masks.label_map import IGNORE, LabelMap, read_label_map
from visionkit.data.formats.source import Source, sound
from visionkit.data.formats.split_notices import split_notices
from visionkit.data.read_image import read_image
from visionkit.data.splits import Splits
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED, Notice, check_notices
from visionkit.types import Sample

__all__ = ["LabelmeClassMaps", "labelme_class_maps", "read_labelme_class_maps"]

_BACKGROUND = ("background", "_background_")
_IGNORED = "__ignore__"  # labelme's own name for pixels that do not count
_NOT_LISTED = "shapes of labels that are no class, left to the background"


@dataclass(frozen=True)
class LabelmeClassMaps:
    """A reader of labelme files that gives class maps.

    Shapes are painted in the order of the file, so that a later one lies on top. Pixels of no shape are
    class 0, the background; the label `__ignore__` gives 255, which does not count, and `_background_` 0.

    Args:
        root: No file outside this folder is opened.
        records: The files, each with its image.
        classes: Names of the classes; the first is the background.
    """

    root: Path
    records: Sequence[LabelmeFile]
    classes: tuple[str, ...]

    @property
    def ids(self) -> list[str]:
        """Names of the images, from the root."""
        return [str(record.image) for record in self.records]

    @property
    def files(self) -> list[str]:
        """The image of each sample."""
        return [str(self.root / name) for name in self.ids]

    @property
    def object_counts(self) -> list[int]:
        """How many shapes each image has."""
        return [len(record.shapes) for record in self.records]

    @property
    def recipe(self) -> str:
        """What else decides the samples, for the fingerprint."""
        shapes = [[(shape.label, shape.polygon) for shape in record.shapes] for record in self.records]
        return repr((self.classes, shapes))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        """Read image `index` and paint its class map `(H, W)`.

        Raises:
            DataError: The image cannot be read, has another size, or a shape lies far outside of it.
        """
        record = self.records[index]
        image = read_image(str(record.image), root=self.root)
        size = (int(image.shape[1]), int(image.shape[2]))
        if record.size is not None and record.size != size:
            raise DataError(size_error(record.size, size), path=record.path, field="imageHeight")
        values = _values(self.classes)
        shapes = [shape for shape in record.shapes if shape.label in values and shape.kind != "mask"]
        builder = OutlineBuilder()
        try:
            for shape in shapes:
                builder.add([shape.polygon])
            outlines = builder.done()
            wrong = next(outlines.errors(np.tile(size, (len(shapes), 1))), None)
            if wrong is not None:
                raise ValueError(wrong[1])
        except ValueError as error:
            raise DataError(str(error), path=record.path, field="points") from None
        mask = np.zeros(size, dtype=np.int64)
        for row, shape in enumerate(shapes):
            mask[outlines.mask(row, size) > 0] = values[shape.label]
        return {"image": image, "mask": torch.from_numpy(mask), "id": str(record.image), "size": size}


def labelme_class_maps(
    root: str | os.PathLike[str],
    *,
    classes: str | Path | None = None,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of a folder of labelme as class maps.

    Class 0 is "background", then come the labels that occur, sorted; polygons, rectangles and circles are
    filled, later shapes on top of earlier ones. Without a validation folder a fifth of the training images is
    held out.

    Args:
        root: The folder.
        classes: A file of names, one a line in the order of the class numbers; it sets the order, and leaves
            other labels to the background.
        seed: Seed of the hold-out.
        max_dropped: Fraction of a split's shapes, and of its files, that may be left out.

    Raises:
        DataError: There are no such files, one is wrong, or too much would be left out.
    """
    return read_labelme_class_maps(root, classes=classes, seed=seed).splits(max_dropped)


def read_labelme_class_maps(
    root: str | os.PathLike[str], *, classes: str | Path | None = None, seed: int = 0
) -> Source:
    """Read the files of a folder of labelme; the arguments are those of `labelme_class_maps`.

    Args:
        root: The folder.
        classes: A file of names.
        seed: Seed of the hold-out.

    Raises:
        DataError: There are no such files.
    """
    top = Path(root)
    read = read_labelme_folder(top)
    return Source(
        lambda max_dropped: _splits(top, read, classes, seed, max_dropped),
        lambda left_out: labelme_errors(top, read, left_out=left_out),
    )


def _splits(
    top: Path, results: LabelmeResults, classes: str | Path | None, seed: int, max_dropped: float
) -> Splits:
    read = {split: sound(files) for split, files in results.items()}
    labels = sorted({shape.label for files in read.values() for file in files for shape in file.shapes})
    if classes is None:
        names = LabelMap.of(
            ["background", *(each for each in labels if each not in (*_BACKGROUND, _IGNORED))]
        )
    else:
        names = read_label_map(classes)
    readers: dict[str, LabelmeClassMaps] = {}
    notices: list[Notice] = []
    known = _values(names.classes)
    for split, files in read.items():
        counted = BoxCounts(max_dropped)
        count_left_out(files, counted)
        records = []
        for file in files:
            for shape in file.shapes:
                if shape.label not in known:
                    text = f"{file.path}: {shape.label!r} is none of {', '.join(names.classes[:6])}"
                    counted.objects.add(_NOT_LISTED, text, harmless=True)
                elif shape.kind == "mask":
                    text = f"{file.path}: {shape.label!r}: draw a polygon, or save the masks as image files"
                    counted.add("shapes drawn as masks, left out", text)
            records += [file] if file.image is not None else []
        readers[split] = LabelmeClassMaps(top, records, names.classes)
        notices += counted.notices(split)
    notices += split_notices(top, readers, max_dropped=max_dropped)
    check_notices(notices, path=str(top))
    train, val, held = validation_split(readers["train"], readers.get("val"), top, seed=seed)
    facts = {"root": str(top), "layout": "labelme", **held}
    return Splits(train, val, readers.get("test"), names.classes, top.resolve().stem, facts, tuple(notices))


def _values(classes: Sequence[str]) -> Mapping[str, int]:
    """Return the number that each label is painted with."""
    return (
        {name: index for index, name in enumerate(classes)}
        | dict.fromkeys(_BACKGROUND, 0)
        | {_IGNORED: IGNORE}
    )
