"""Which picture goes with which mask, found by names alone: nothing is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from visionkit.data.read_image import PICTURE_SUFFIXES, inside
from visionkit.errors import DataError

__all__ = ["MaskPair", "MaskSplit", "folder_layout", "voc_layout"]

_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}
_ENDINGS = ("", "_mask", "_label", "_L")


@dataclass(frozen=True)
class MaskPair:
    """A picture and its mask, both relative to the root."""

    image: str
    mask: str


@dataclass
class MaskSplit:
    """What one split holds.

    Args:
        pairs: Pictures with masks, by name.
        without_mask: Pictures that lack one.
        without_picture: Masks that lack one.
    """

    pairs: list[MaskPair] = field(default_factory=list)
    without_mask: list[str] = field(default_factory=list)
    without_picture: list[str] = field(default_factory=list)


def folder_layout(root: Path) -> dict[str, MaskSplit]:
    """Find the splits of a folder of pictures and masks.

    Raises:
        DataError: None of the layouts is there.
    """
    if not root.is_dir():
        raise DataError("Expected a folder of pictures and masks, but there is none.", path=root)
    found: dict[str, MaskSplit] = {}
    for split, names in _SPLITS.items():
        for name in names:
            for images, masks in (
                (root / name / "images", root / name / "masks"),
                (root / "images" / name, root / "masks" / name),
            ):
                if split not in found and images.is_dir() and masks.is_dir():
                    found[split] = _match(root, images, masks)
    if not found and (root / "images").is_dir() and (root / "masks").is_dir():
        found["train"] = _match(root, root / "images", root / "masks")
    if "train" not in found:
        has = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        raise DataError(
            "Expected train/images beside train/masks, images/train beside masks/train, or images beside "
            "masks, "
            f"but the folder holds {has}.",
            path=root,
            field="layout",
        )
    return found


def voc_layout(root: Path, *, extra: bool = False) -> dict[str, MaskSplit]:
    """Find the splits of a Pascal VOC folder by its lists.

    Args:
        root: The folder of a year.
        extra: Take `trainaug.txt` and `SegmentationClassAug`.

    Raises:
        DataError: A list is missing, or a name in it leaves the folder.
    """
    folder = "SegmentationClassAug" if extra else "SegmentationClass"
    found = {}
    for split, listed in (("train", "trainaug" if extra else "train"), ("val", "val")):
        file = inside(root, Path("ImageSets", "Segmentation", f"{listed}.txt"))
        if not file.is_file():
            raise DataError(
                "Expected the list of a Pascal VOC segmentation split, but there is none. Name the folder "
                "that "
                "holds JPEGImages, SegmentationClass and ImageSets.",
                path=file,
            )
        result = MaskSplit()
        for line in file.read_text(encoding="utf-8").split("\n"):
            # the lists of the extra masks name both files on a line; the last part of the first is the name
            words = line.split()
            if not words:
                continue
            name = Path(words[0]).stem
            image, mask = f"JPEGImages/{name}.jpg", f"{folder}/{name}.png"
            inside(root, image)
            if (root / mask).is_file():
                result.pairs.append(MaskPair(image, mask))
            else:
                result.without_mask.append(image)
        found[split] = result
    return found


def _match(root: Path, images: Path, masks: Path) -> MaskSplit:
    """Pair the files of two folders by the name before the ending."""
    by_stem: dict[str, Path] = {file.stem: file for file in _pictures(masks)}
    result = MaskSplit()
    taken = set()
    for image in _pictures(images):
        stem = next((image.stem + end for end in _ENDINGS if image.stem + end in by_stem), None)
        if stem is None:
            result.without_mask.append(image.relative_to(root).as_posix())
        else:
            taken.add(stem)
            mask = by_stem[stem]
            result.pairs.append(
                MaskPair(image.relative_to(root).as_posix(), mask.relative_to(root).as_posix())
            )
    result.without_picture = [
        file.relative_to(root).as_posix() for stem, file in by_stem.items() if stem not in taken
    ]
    return result


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".")
    )
