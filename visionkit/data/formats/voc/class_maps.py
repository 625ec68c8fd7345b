"""Pascal VOC's segmentation folder: lists of names, images and masks; also as CVAT and others export it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visionkit.data.formats.masks.label_map import LabelMap
from visionkit.data.formats.masks.pairs import MaskPair, MaskSplit, files_below
from visionkit.data.formats.masks.reader import label_map, mask_splits
from visionkit.data.read_image import inside
from visionkit.data.splits import Splits, split_of
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED
from visionkit.text.read_text import read_lines

__all__ = ["VOC_CLASSES", "is_voc_masks", "voc_labels", "voc_layout", "voc_masks"]

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
"""The classes of Pascal VOC by mask value."""

_LISTS = Path("ImageSets", "Segmentation")
_FULL_LISTS = ("trainval", "default", "all")  # lists that a validation fraction is held out of


def is_voc_masks(root: str | Path) -> bool:
    """Return whether a path is a folder with `JPEGImages` and `SegmentationClass`.

    Args:
        root: Any path.
    """
    top = Path(root)
    masks = (top / "SegmentationClass").is_dir() or (top / "SegmentationClassAug").is_dir()
    return (masks and (top / "JPEGImages").is_dir()) or (top / _LISTS).is_dir()


def voc_masks(
    root: str | Path,
    *,
    classes: Sequence[str] | str | Path | None = None,
    extra: bool = False,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Read a Pascal VOC segmentation folder: `JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation`.

    Where there is no list of a validation split, some training images are held out; where there is no
    list at all, all masks are taken.

    Args:
        root: The folder of a year (`VOC2012`).
        classes: Names of the classes by mask value, or a label map file; else a label map file in the folder
            (`classes.txt`, CVAT's `labelmap.txt`), else Pascal VOC's 21.
        extra: Train on `trainaug.txt` with the masks of `SegmentationClassAug` (10,582 images).
        seed: Seed of a held-out fraction.
        max_dropped: See `mask_splits`.

    Raises:
        DataError: A list, image or mask is missing.
    """
    top = Path(root)
    labels = voc_labels(top, classes)
    layout = voc_layout(top, extra=extra)
    return mask_splits(top, layout, labels, name="voc", seed=seed, max_dropped=max_dropped)


def voc_labels(root: Path, classes: Sequence[str] | str | Path | None = None) -> LabelMap:
    """Return the label map of a VOC folder: as given, as a file in it says, or Pascal VOC's own.

    Args:
        root: The folder.
        classes: As in `voc_masks`.

    Raises:
        DataError: A file cannot be read.
    """
    return label_map(root, classes, otherwise=LabelMap.of(VOC_CLASSES))


def voc_layout(root: Path, *, extra: bool = False) -> dict[str, MaskSplit]:
    """Find the splits of a Pascal VOC folder by its lists.

    Args:
        root: The folder of a year.
        extra: Take `trainaug.txt` and `SegmentationClassAug`.

    Raises:
        DataError: A list is missing, or a name in it leaves the folder.
    """
    folder = root / ("SegmentationClassAug" if extra else "SegmentationClass")
    for part in (root / "JPEGImages", folder):
        if not part.is_dir():
            raise DataError(
                "Expected JPEGImages, SegmentationClass and ImageSets/Segmentation, but this is missing. "
                "Name the folder that holds them.",
                path=part,
            )
    errors = MaskSplit()
    images, masks = (_by_name(root, part, errors) for part in (root / "JPEGImages", folder))
    layout: dict[str, MaskSplit] = {}
    for split, file in _lists(root, extra=extra).items():
        result = layout[split] = MaskSplit()
        seen: set[str] = set()
        for number, line in enumerate(read_lines(inside(root, file.relative_to(root))), start=1):
            name = _name(line, images)
            if name in seen:
                result.errors.append(
                    DataError(
                        f"Expected each image once, but {name!r} comes twice.", path=file, record=number
                    )
                )
            elif name and name in images and name in masks:
                result.pairs.append(MaskPair(images[name], masks[name]))
            elif name and name in masks:
                result.without_image.append(masks[name])
            elif name:
                inside(root, f"JPEGImages/{name}.jpg")
                result.without_mask.append(images.get(name, f"JPEGImages/{name}.jpg"))
            seen |= {name} - {""}
    if not layout:
        layout["train"] = MaskSplit([MaskPair(images[name], masks[name]) for name in masks if name in images])
        layout["train"].without_image = [masks[name] for name in masks if name not in images]
    if "test" in layout and not layout["test"].pairs:
        del layout["test"]  # the masks of Pascal VOC's test images are not published
    taken = {mask for split in layout.values() for pair in split.pairs for mask in (pair.image, pair.mask)}
    layout["train"].errors += [error for error in errors.errors if error.record in taken]
    return layout


def _lists(root: Path, *, extra: bool) -> dict[str, Path]:
    """Return the list of each split.

    Raises:
        DataError: There are lists, but none to train on.
    """
    folder = root / _LISTS
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    lists = {split: file for file in reversed(files) if (split := split_of(file.stem)) is not None}
    if extra:
        lists["train"] = folder / "trainaug.txt"
    if "train" not in lists:
        full = [file for name in _FULL_LISTS for file in files if file.stem.lower() == name]
        lists |= {"train": full[0]} if full else {}
    if (files or extra) and not lists.get("train", folder / "train.txt").is_file():
        raise DataError(
            "Expected the list of a Pascal VOC segmentation split, but there is none. Name the folder that "
            "holds JPEGImages, SegmentationClass and ImageSets.",
            path=lists.get("train", folder / "train.txt"),
        )
    return lists


def _by_name(root: Path, folder: Path, errors: MaskSplit) -> dict[str, str]:
    """Return the files below a folder by name without ending; a second one of a name is an error."""
    by_name: dict[str, str] = {}
    for file in files_below(folder)[0]:
        name = file.relative_to(folder).with_suffix("").as_posix()
        shown = file.relative_to(root).as_posix()
        first = by_name.setdefault(name, shown)
        if first != shown:
            text = f"Expected one file of each name, but {shown} has the same. Rename or remove one."
            errors.errors.append(DataError(text, path=root / first, record=first))
    return by_name


def _name(line: str, images: dict[str, str]) -> str:
    """Return the name of an image on a line of a list.

    The lists of the extra masks name both files on a line; names with spaces are taken as they are.
    """
    text = line.strip()
    if text in images or not text:
        return text
    words = text.split()
    if len(words) > 1 and " ".join(words[:-1]) in images:
        return " ".join(words[:-1])  # followed by 1, -1 or the mask
    path = Path(words[0].lstrip("/"))
    parts = path.parts[1:] if path.parts[0] == "JPEGImages" else path.parts
    name = Path(*parts) if parts else path
    return (name.with_suffix("") if name.suffix.lower() in _SUFFIXES else name).as_posix()


_SUFFIXES = (".jpg", ".jpeg", ".png")
