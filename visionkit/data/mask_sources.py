"""Which kind of masks a folder holds, told by what lies in it, and the reader for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visionkit.data.cityscapes import CITYSCAPES_LABELS, cityscapes_layout, cityscapes_masks
from visionkit.data.coco import is_coco
from visionkit.data.coco_class_maps import coco_class_maps
from visionkit.data.label_map import LabelMap, read_label_map
from visionkit.data.mask_layout import MaskSplit, folder_layout, voc_layout
from visionkit.data.masks import VOC_CLASSES, label_map, mask_folder, voc_masks
from visionkit.data.splits import Splits
from visionkit.errors import DataError

__all__ = ["mask_kind", "mask_layout", "open_masks"]


def mask_kind(root: str | Path) -> str:
    """Return "cityscapes", "voc", "coco", or "folder" for pictures beside masks.

    Raises:
        DataError: There is nothing by this name.
    """
    top = Path(root)
    if not top.exists():
        raise DataError("Expected a folder of pictures and masks, but there is none by this name.", path=top)
    if (top / "leftImg8bit").is_dir():
        return "cityscapes"
    if (top / "ImageSets" / "Segmentation").is_dir():
        return "voc"
    return "coco" if is_coco(top) else "folder"


def open_masks(root: str | Path, *, classes: str | Path | None = None, seed: int = 0) -> Splits:
    """Open pictures with masks of any kind this package reads.

    A VOC folder with `trainaug.txt` and `SegmentationClassAug` is trained on those.

    Args:
        root: The folder, or a COCO file.
        classes: A label map file. For folders of masks, what the values mean; for COCO, the names of the
            categories that are classes, besides "background".
        seed: Seed of a held-out validation share, where there is no split.

    Raises:
        DataError: As the readers.
        InputError: As the readers.
    """
    top, kind = Path(root), mask_kind(root)
    if kind == "cityscapes":
        return cityscapes_masks(top)
    if kind == "voc":
        return voc_masks(top, extra=_has_extra(top))
    if kind == "coco":
        names = None if classes is None else read_label_map(classes).classes
        chosen = None if names is None else [name for name in names if name != "background"]
        return coco_class_maps(top, categories=chosen, seed=seed)
    return mask_folder(top, classes=classes, seed=seed)


def mask_layout(
    root: Path, *, classes: Sequence[str] | str | Path | None = None, ignore: Sequence[int] = (255,)
) -> tuple[LabelMap, dict[str, MaskSplit]]:
    """Return what the values mean and which picture goes with which mask, for every kind but COCO.

    Args:
        root: The folder.
        classes: As in `visionkit.data.masks.mask_folder`.
        ignore: As there.

    Raises:
        DataError: There is no layout, or no classes.
    """
    kind = mask_kind(root)
    if kind == "cityscapes":
        return CITYSCAPES_LABELS, cityscapes_layout(root)
    if kind == "voc":
        return LabelMap.of(VOC_CLASSES), voc_layout(root, extra=_has_extra(root))
    return label_map(root, classes, ignore=ignore), folder_layout(root)


def _has_extra(root: Path) -> bool:
    """Return whether a VOC folder holds the extra masks and their list."""
    lists = root / "ImageSets" / "Segmentation"
    return (lists / "trainaug.txt").is_file() and (root / "SegmentationClassAug").is_dir()
