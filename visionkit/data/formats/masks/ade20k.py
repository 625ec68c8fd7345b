"""ADE20K for scene parsing (ADEChallengeData2016): 150 classes, 0 is none of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visionkit.data.formats.masks.label_map import IGNORE, LabelMap
from visionkit.data.formats.masks.layout import folder_layout, is_mask_folder
from visionkit.data.formats.masks.pairs import MaskSplit
from visionkit.data.formats.masks.reader import label_map, mask_splits, unread_notices
from visionkit.data.read_image import inside
from visionkit.data.splits import Splits
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED
from visionkit.text.read_text import read_lines

__all__ = ["ade20k", "ade20k_labels", "ade20k_layout", "is_ade20k"]

_NAMES = "objectInfo150.txt"


def is_ade20k(root: str | Path) -> bool:
    """Return whether a path is a folder of images and annotations with `objectInfo150.txt`.

    Args:
        root: Any path.
    """
    return (Path(root) / _NAMES).is_file() and is_mask_folder(root)


def ade20k(
    root: str | Path,
    *,
    classes: Sequence[str] | str | Path | None = None,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Read ADE20K for scene parsing: `images/training` beside `annotations/training`, and so on.

    Mask value 0 ("other") is ignored, values 1 to 150 are the classes 0 to 149.

    Args:
        root: The folder (`ADEChallengeData2016`).
        classes: Names of the classes by mask value, or a label map file, in place of `objectInfo150.txt`.
        seed: Seed of a held-out fraction, where there is no validation split.
        max_dropped: See `visionkit.data.formats.masks.reader.mask_splits`.

    Raises:
        DataError: A folder, a mask or the list of names is missing, or the list cannot be read.
    """
    top = Path(root)
    labels = ade20k_labels(top, classes)
    layout = ade20k_layout(top)
    return mask_splits(
        top,
        layout,
        labels,
        name="ade20k",
        seed=seed,
        max_dropped=max_dropped,
        notices=unread_notices(top, layout),
    )


def ade20k_layout(root: Path) -> dict[str, MaskSplit]:
    """Return the splits of a folder of ADE20K.

    Args:
        root: The folder.

    Raises:
        DataError: A folder is missing.
    """
    return folder_layout(root)


def ade20k_labels(root: Path, classes: Sequence[str] | str | Path | None = None) -> LabelMap:
    """Return the label map: as given, or as `objectInfo150.txt` says.

    Args:
        root: The folder.
        classes: As in `ade20k`.

    Raises:
        DataError: The list cannot be read.
    """
    if classes is not None:
        return label_map(root, classes)
    file = inside(root, _NAMES)
    names: list[str] = []
    for number, line in enumerate(read_lines(file), start=1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not cells[0].isdecimal():
            continue  # the header, or an empty line
        if int(cells[0]) != len(names) + 1 or len(cells) < 2:
            raise DataError(
                f"Expected the columns Idx ... Name, with Idx {len(names) + 1}, but line {number} is "
                f"{line!r}.",
                path=file,
                record=number,
            )
        names.append(_name(cells[-1], names))
    if not names:
        raise DataError("Expected lines of Idx, Ratio, Train, Val and Name, but there are none.", path=file)
    values = {0: IGNORE, IGNORE: IGNORE} | {index + 1: index for index in range(len(names))}
    return LabelMap(tuple(names), values)


def _name(synonyms: str, taken: Sequence[str]) -> str:
    """Return the first of some names, or all of them where another class has the first."""
    first = synonyms.partition(",")[0].partition(";")[0].strip()
    return synonyms if first in taken else first
