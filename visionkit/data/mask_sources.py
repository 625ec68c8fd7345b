"""Which kind of masks a folder holds, told by what lies in it, and the reader for it."""

from __future__ import annotations

from pathlib import Path

from visionkit.data.cityscapes import cityscapes_masks
from visionkit.data.masks import mask_folder, voc_masks
from visionkit.data.splits import Splits
from visionkit.errors import DataError

__all__ = ["mask_kind", "open_masks"]


def mask_kind(root: str | Path) -> str:
    """Return "cityscapes", "voc" or "folder" (pictures beside masks, told by the readers' own layouts).

    Raises:
        DataError: There is no such folder.
    """
    top = Path(root)
    if not top.is_dir():
        raise DataError("Expected a folder of pictures and masks, but there is none by this name.", path=top)
    if (top / "leftImg8bit").is_dir():
        return "cityscapes"
    if (top / "ImageSets" / "Segmentation").is_dir():
        return "voc"
    return "folder"


def open_masks(root: str | Path, *, classes: str | Path | None = None, seed: int = 0) -> Splits:
    """Open a folder of pictures and masks of any kind this package reads.

    A VOC folder with `trainaug.txt` and `SegmentationClassAug` is trained on those.

    Args:
        root: The folder.
        classes: A label map file, for plain folders of masks.
        seed: Seed of a held-out validation share, where there is no split.

    Raises:
        DataError: As the readers.
    """
    top, kind = Path(root), mask_kind(root)
    if kind == "cityscapes":
        return cityscapes_masks(top)
    if kind == "voc":
        lists = top / "ImageSets" / "Segmentation" / "trainaug.txt"
        return voc_masks(top, extra=lists.is_file() and (top / "SegmentationClassAug").is_dir())
    return mask_folder(top, classes=classes, seed=seed)
