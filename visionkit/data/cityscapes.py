"""Cityscapes: a folder a city below each split, masks of 34 label ids of which 19 are scored."""

from __future__ import annotations

from pathlib import Path

from visionkit.data.label_map import IGNORE, LabelMap
from visionkit.data.mask_layout import MaskPair, MaskSplit
from visionkit.data.masks import mask_splits
from visionkit.data.splits import Splits
from visionkit.errors import DataError

__all__ = ["CITYSCAPES_LABELS", "cityscapes_layout", "cityscapes_masks"]

_IDS = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
    27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
_HIGHEST = 33

CITYSCAPES_LABELS = LabelMap(
    tuple(_IDS.values()),
    dict.fromkeys((*range(_HIGHEST + 1), 255), IGNORE) | {value: index for index, value in enumerate(_IDS)},
)
"""The 19 scored classes by the ids in `*_labelIds.png`; every other id is ignored."""


def cityscapes_layout(root: Path) -> dict[str, MaskSplit]:
    """Find the splits: `leftImg8bit/<split>/<city>` beside `gtFine/<split>/<city>`.

    The masks of the test split are blank in what is published, so it is left out.

    Raises:
        DataError: A folder is missing.
    """
    for part in ("leftImg8bit/train", "gtFine/train"):
        if not (root / part).is_dir():
            raise DataError("Expected leftImg8bit and gtFine with a folder train, but it is missing.",
                            path=root / part)  # fmt: skip
    found = {}
    for split in ("train", "val"):
        result = MaskSplit()
        images = {_frame(file): file for file in sorted((root / "leftImg8bit" / split).glob("*/*.png"))}
        masks = {_frame(file): file for file in sorted((root / "gtFine" / split).glob("*/*_labelIds.png"))}
        for frame, file in images.items():
            image = file.relative_to(root).as_posix()
            if frame in masks:
                result.pairs.append(MaskPair(image, masks[frame].relative_to(root).as_posix()))
            else:
                result.without_mask.append(image)
        result.without_picture = [
            file.relative_to(root).as_posix() for frame, file in masks.items() if frame not in images
        ]
        found[split] = result
    return found


def cityscapes_masks(root: str | Path) -> Splits:
    """Read Cityscapes' fine annotations as they are unpacked: `leftImg8bit` and `gtFine`.

    Args:
        root: The folder that holds both.

    Raises:
        DataError: A folder or a mask is missing.
    """
    root = Path(root)
    return mask_splits(root, cityscapes_layout(root), CITYSCAPES_LABELS, name="cityscapes")


def _frame(file: Path) -> str:
    """Return the part of a name that picture and mask share: city, sequence, frame."""
    return "_".join(file.stem.split("_")[:3])
