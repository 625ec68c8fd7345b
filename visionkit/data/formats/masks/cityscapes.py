"""Cityscapes: a folder a city below each split, masks of 34 label ids of which 19 are scored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from visionkit.data.formats.masks.label_map import IGNORE, LabelMap
from visionkit.data.formats.masks.pairs import Key, MaskSplit, files_below, match_keys
from visionkit.data.formats.masks.reader import label_map, mask_splits
from visionkit.data.formats.split_notices import unread_folder_notices
from visionkit.data.splits import Splits, split_of
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED, Notice

__all__ = [
    "CITYSCAPES_LABELS",
    "cityscapes_labels",
    "cityscapes_layout",
    "cityscapes_masks",
    "cityscapes_notices",
    "is_cityscapes",
]

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

_IMAGES = ("leftImg8bit", "imgsFine/leftImg8bit")  # the latter as CVAT exports it
_MASKS = "gtFine"
_IMAGE_ENDING = re.compile(r"_leftImg8bit$", re.IGNORECASE)
_MASK_ENDING = re.compile(r"(?:_gtFine|_gtCoarse)?_label((?:cs|level\d)?(?:Train)?Ids)$", re.IGNORECASE)
_KINDS = ("ids", "trainids", "cstrainids")  # of masks, the first that is there is read; then IDD's level ids


def is_cityscapes(root: str | Path) -> bool:
    """Return whether a path is a folder that holds `leftImg8bit`.

    Args:
        root: Any path.
    """
    return any((Path(root) / name).is_dir() for name in _IMAGES)


def cityscapes_layout(root: Path) -> dict[str, MaskSplit]:
    """Find the splits: `leftImg8bit/<split>/<city>` beside `gtFine/<split>/<city>`.

    A name is what is left without `_leftImg8bit` and `_gtFine_labelIds` (or `_gtFine_labelTrainIds`, where
    there are no others). The masks of the test split are blank in what is published, so it is left out.

    Args:
        root: The folder that holds both.

    Raises:
        DataError: A folder is missing, or two folders claim the same split.
    """
    images = next((root / name for name in _IMAGES if (root / name).is_dir()), root / _IMAGES[0])
    below = {part: _splits(part) for part in (images, root / _MASKS)}
    for part, splits in below.items():
        if "train" not in splits:
            raise DataError("Expected leftImg8bit and gtFine with a folder train, but it is missing.",
                            path=part / "train")  # fmt: skip
    layout: dict[str, MaskSplit] = {}
    for split in ("train", "val"):
        if split not in below[images]:
            continue
        result = MaskSplit()
        image_files, _ = files_below(below[images][split])
        masks = [] if split not in below[root / _MASKS] else files_below(below[root / _MASKS][split])[0]
        kinds = {kind for file in masks if (kind := _kind(file))}
        chosen = next((kind for kind in (*_KINDS, *sorted(kinds)) if kind in kinds), "")
        match_keys(
            root,
            ((_key(file, below[images][split], _IMAGE_ENDING), file) for file in image_files),
            (
                (_key(file, below[root / _MASKS][split], _MASK_ENDING), file)
                for file in masks
                if _kind(file) == chosen
            ),
            _itself,
            result,
        )
        layout[split] = result
    return layout


def cityscapes_masks(
    root: str | Path,
    *,
    classes: Sequence[str] | str | Path | None = None,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Read Cityscapes' fine annotations as they are unpacked, or data laid out like it.

    Args:
        root: The folder that holds `leftImg8bit` and `gtFine`.
        classes: Names of the classes by mask value, or a label map file; else a label map file in the
            folder, else Cityscapes' 19.
        seed: Seed of a held-out fraction, where there is no validation split.
        max_dropped: See `mask_splits`.

    Raises:
        DataError: A folder or a mask is missing.
    """
    root = Path(root)
    layout = cityscapes_layout(root)
    labels = cityscapes_labels(root, classes, layout)
    return mask_splits(
        root,
        layout,
        labels,
        name="cityscapes",
        seed=seed,
        max_dropped=max_dropped,
        notices=cityscapes_notices(root, layout),
    )


def cityscapes_notices(root: Path, layout: dict[str, MaskSplit]) -> tuple[Notice, ...]:
    """Return the notices of folders of splits that are not read; that of the test split has blank masks.

    Args:
        root: As in `cityscapes_masks`.
        layout: The splits.
    """
    files = {split: [str(root / pair.image) for pair in each.pairs] for split, each in layout.items()}
    return unread_folder_notices(root, files, unscored=("test",))


def cityscapes_labels(
    root: Path, classes: Sequence[str] | str | Path | None, layout: dict[str, MaskSplit]
) -> LabelMap:
    """Return the label map: as given, as a file in the folder says, or Cityscapes' own.

    Args:
        root: The folder.
        classes: As in `cityscapes_masks`.
        layout: The splits; masks of training ids hold class numbers.

    Raises:
        DataError: A file cannot be read.
    """
    kinds = [_kind(Path(pair.mask)) for pair in layout["train"].pairs[:1]]
    default: LabelMap | None = CITYSCAPES_LABELS
    if kinds and kinds[0] != "ids":
        default = LabelMap.of(tuple(_IDS.values()), ignore=(IGNORE,)) if kinds[0] in _KINDS else None
    return label_map(root, classes, otherwise=default)


def _splits(folder: Path) -> dict[str, Path]:
    """Return the folder of each split."""
    splits: dict[str, Path] = {}
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        split = split_of(each.name) if each.is_dir() else None
        if split is not None and split in splits:
            text = f"Expected one folder of the split {split!r}, but {splits[split].name} is there as well."
            raise DataError(text, path=each)
        if split is not None:
            splits[split] = each
    return splits


def _kind(file: Path) -> str:
    """Return which ids a mask holds, by its name; "" for other files."""
    ended = _MASK_ENDING.search(file.stem)
    return ended[1].lower() if ended else ""


def _key(file: Path, folder: Path, ending: re.Pattern[str]) -> Key:
    """Return the city and the part of a name that image and mask share: city, sequence, frame."""
    return file.relative_to(folder).parent.as_posix(), ending.sub("", file.stem)


def _itself(key: Key) -> Iterator[Key]:
    yield key
