"""Detect the kind of masks that a folder holds, and open it with its reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visionkit.data.formats.coco.class_maps import coco_class_maps
from visionkit.data.formats.coco.layout import is_coco
from visionkit.data.formats.coco.panoptic import is_panoptic, panoptic
from visionkit.data.formats.masks.ade20k import ade20k, ade20k_labels, ade20k_layout, is_ade20k
from visionkit.data.formats.masks.cityscapes import (
    cityscapes_labels,
    cityscapes_layout,
    cityscapes_masks,
    cityscapes_notices,
    is_cityscapes,
)
from visionkit.data.formats.masks.label_map import LabelMap, read_label_map
from visionkit.data.formats.masks.layout import folder_layout, is_mask_folder
from visionkit.data.formats.masks.pairs import MaskSplit
from visionkit.data.formats.masks.reader import label_map, mask_folder, unread_notices
from visionkit.data.formats.voc.class_maps import is_voc_masks, voc_labels, voc_layout, voc_masks
from visionkit.data.splits import Splits
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED, Notice

__all__ = ["chosen_categories", "is_masks", "layout_notices", "mask_format", "mask_layout", "open_masks"]


def mask_format(root: str | Path) -> str:
    """Return "cityscapes", "voc", "panoptic", "coco", "ade20k", or "folder" for images beside masks.

    Args:
        root: A folder or a file.

    Raises:
        DataError: There is nothing by this name.
    """
    top = Path(root)
    if not top.exists():
        raise DataError("Expected a folder of images and masks, but there is none by this name.", path=top)
    if is_cityscapes(top):
        return "cityscapes"
    if is_voc_masks(top):
        return "voc"
    if is_panoptic(top) and (top.is_file() or not is_coco(top)):
        return "panoptic"
    if is_coco(top):
        return "coco"
    return "ade20k" if is_ade20k(top) else "folder"


def is_masks(root: str | Path) -> bool:
    """Return whether a path holds images with masks, in a format other than COCO's outlines.

    Args:
        root: Any path.
    """
    top = Path(root)
    return any(each(top) for each in (is_cityscapes, is_voc_masks, is_panoptic, is_mask_folder))


def open_masks(
    root: str | Path,
    *,
    classes: str | Path | None = None,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Open images with masks of any kind this package reads.

    A VOC folder with `trainaug.txt` and `SegmentationClassAug` is trained on those.

    Args:
        root: The folder, or a COCO file.
        classes: A label map file: what the values in the masks mean, in place of the format's own. For COCO,
            the names of the categories that are classes, besides "background".
        seed: Seed of a held-out validation fraction, where there is no split.
        max_dropped: Largest fraction that may be left out, see
            `visionkit.data.formats.masks.reader.mask_splits`.

    Raises:
        DataError: As the readers.
        InputError: As the readers.
    """
    top, kind = Path(root), mask_format(root)
    if kind == "cityscapes":
        return cityscapes_masks(top, classes=classes, seed=seed, max_dropped=max_dropped)
    if kind == "voc":
        extra = _has_extra(top)
        return voc_masks(top, classes=classes, extra=extra, seed=seed, max_dropped=max_dropped)
    if kind == "ade20k":
        return ade20k(top, classes=classes, seed=seed, max_dropped=max_dropped)
    if kind in ("coco", "panoptic"):
        read = coco_class_maps if kind == "coco" else panoptic
        return read(top, categories=chosen_categories(classes), seed=seed, max_dropped=max_dropped)
    return mask_folder(top, classes=classes, seed=seed, max_dropped=max_dropped)


def chosen_categories(classes: str | Path | None) -> list[str] | None:
    """Return the names in a label map file, besides "background"; None without a file.

    Args:
        classes: The file.

    Raises:
        DataError: It cannot be read.
    """
    if classes is None:
        return None
    return [name for name in read_label_map(classes).classes if name != "background"]


def mask_layout(
    root: Path, *, classes: Sequence[str] | str | Path | None = None, ignore: Sequence[int] | None = None
) -> tuple[LabelMap, dict[str, MaskSplit]]:
    """Return what the values mean and which image goes with which mask, for every kind but COCO's.

    Args:
        root: The folder.
        classes: As in `visionkit.data.formats.masks.reader.mask_folder`.
        ignore: As there.

    Raises:
        DataError: There is no layout, or no classes.
    """
    kind = mask_format(root)
    given = LabelMap.of(classes, ignore=ignore) if classes and not isinstance(classes, str | Path) else None
    if kind == "cityscapes":
        layout = cityscapes_layout(root)
        return given or cityscapes_labels(root, classes, layout), layout
    if kind == "voc":
        return given or voc_labels(root, classes), voc_layout(root, extra=_has_extra(root))
    if kind == "ade20k":
        return given or ade20k_labels(root, classes), ade20k_layout(root)
    return label_map(root, classes, ignore=ignore), folder_layout(root)


def layout_notices(root: Path, layout: dict[str, MaskSplit]) -> tuple[Notice, ...]:
    """Return the notices of folders of a layout that are not read, for every kind but COCO's.

    Args:
        root: The folder.
        layout: Of `mask_layout`.
    """
    kind = mask_format(root)
    if kind == "cityscapes":
        return cityscapes_notices(root, layout)
    return unread_notices(root, layout) if kind in ("folder", "ade20k") else ()


def _has_extra(root: Path) -> bool:
    """Return whether a VOC folder holds the extra masks and their list."""
    lists = root / "ImageSets" / "Segmentation"
    return (lists / "trainaug.txt").is_file() and (root / "SegmentationClassAug").is_dir()
