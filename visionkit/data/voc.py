"""Pascal VOC: one XML file a picture, lists of pictures for each split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element, ParseError

import torch
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from visionkit.data.boxes import box_fault
from visionkit.data.read_image import inside, read_image
from visionkit.data.splits import Splits, holdout
from visionkit.errors import DataError
from visionkit.types import Reader, Sample

__all__ = ["VocReader", "check_voc", "voc"]

BadBoxes = Literal["drop", "raise"]
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LARGEST = 4_000_000  # bytes of an XML file


class VocReader:
    """A reader of the pictures a list names, with their boxes.

    Args:
        root: The folder that holds `JPEGImages` and `Annotations`.
        names: The pictures, without suffix, as in `ImageSets/Main/*.txt`.
        classes: Names of the classes by label; all names that occur, sorted, if not given.
        bad_boxes: A box without area or outside its picture is left out and kept in `dropped` ("drop"), or
            is an error ("raise"). Every other fault is an error always.
        keep_empty: Keep pictures without objects.
        one_based: Coordinates begin at 1 and include the last pixel, as in the original VOC files.

    Attributes:
        dropped: The boxes left out, as faults.

    Raises:
        DataError: A file that is missing or cannot be read as an annotation; the first of all its faults.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        names: Sequence[str],
        *,
        classes: Sequence[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
        one_based: bool = False,
    ) -> None:
        self.root = Path(root)
        self.dropped: list[DataError] = []
        parsed = []
        for name in names:
            entry, faults = _parse(self.root, name, one_based=one_based)
            for fault in faults:
                if bad_boxes == "raise" or entry is None or fault.field != "bndbox":
                    raise fault
            self.dropped += faults
            if entry is not None and (keep_empty or entry["boxes"]):
                parsed.append(entry)
        found = sorted({label for entry in parsed for label in entry["labels"]})
        self.classes = tuple(found if classes is None else classes)
        number = {label: index for index, label in enumerate(self.classes)}
        for entry in parsed:
            strange = [label for label in entry["labels"] if label not in number]
            if strange:
                raise DataError(
                    f"Expected one of the classes {', '.join(self.classes)}, but got {strange[0]!r}.",
                    path=entry["path"],
                    field="name",
                )
        self._entries = parsed
        self._number = number
        self.ids: Sequence[str] = [entry["id"] for entry in parsed]
        self.sizes: Sequence[tuple[int, int]] = [entry["size"] for entry in parsed]

    @property
    def recipe(self) -> str:
        """Everything annotated, for the fingerprint."""
        return repr([(e["id"], e["labels"], e["boxes"]) for e in self._entries])

    @property
    def files(self) -> list[str]:
        """The picture of each annotation."""
        return [str(inside(self.root, entry["image"])) for entry in self._entries]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        """Read picture `index`; raise `DataError` when it cannot be read or has another size."""
        entry = self._entries[index]
        image = read_image(entry["image"], root=self.root)
        size = (int(image.shape[1]), int(image.shape[2]))
        if size != entry["size"]:
            raise DataError(
                f"Expected the picture to be {entry['size'][1]} x {entry['size'][0]} pixels, as the "
                f"annotation says, but it is {size[1]} x {size[0]}: its boxes would be off. Correct <size>.",
                path=entry["path"],
                field="size",
            )
        return {
            "image": image,
            "id": entry["id"],
            "boxes": torch.tensor(entry["boxes"], dtype=torch.float32).view(-1, 4),
            "labels": torch.tensor([self._number[label] for label in entry["labels"]], dtype=torch.int64),
            "iscrowd": torch.tensor(entry["difficult"], dtype=torch.int64),
            "size": size,
        }


def voc(
    root: str | os.PathLike[str], *, bad_boxes: BadBoxes = "drop", one_based: bool = False, seed: int = 0
) -> Splits:
    """Return the splits of a VOC folder, by its own lists in `ImageSets/Main`.

    Without a validation list a fifth of the training pictures is held out. Objects marked difficult count
    neither for nor against a detection, like crowds.

    Args:
        root: The folder that holds `JPEGImages`, `Annotations` and `ImageSets`.
        bad_boxes: See `VocReader`.
        one_based: See `VocReader`.
        seed: Seed of the hold-out.

    Raises:
        DataError: The folder is laid out otherwise, or an annotation is at fault.
    """
    top = Path(root)
    lists = _lists(top)
    if "train" not in lists:
        text = "Expected the list of training pictures, ImageSets/Main/train.txt, but there is none."
        raise DataError(text, path=top)
    every = [name for names in lists.values() for name in names]
    classes = VocReader(top, every, bad_boxes=bad_boxes, one_based=one_based).classes
    readers = {
        split: VocReader(top, names, classes=classes, bad_boxes=bad_boxes, one_based=one_based)
        for split, names in lists.items()
    }
    train: Reader = readers["train"]
    val: Reader | None = readers.get("val")
    facts: dict[str, Any] = {"root": str(top)}
    dropped = [str(fault) for reader in readers.values() for fault in reader.dropped]
    if dropped:
        facts["dropped_boxes"] = dropped
    if val is None:
        train, val = holdout(train, 0.2, seed=seed)
        facts["held_out"] = f"there is no validation list: {len(val)} training pictures are held out"
    return Splits(train, val, readers.get("test"), classes, top.resolve().name, facts)


def check_voc(root: str | os.PathLike[str], *, one_based: bool = False) -> list[DataError]:
    """Return every fault of a VOC folder: lists, annotations, boxes, pictures.

    Args:
        root: The folder.
        one_based: See `VocReader`.
    """
    top = Path(root)
    try:
        lists = _lists(top)
    except DataError as fault:
        return [fault]
    faults: list[DataError] = []
    for name in sorted({name for names in lists.values() for name in names}):
        entry, found = _parse(top, name, one_based=one_based)
        faults += found
        if entry is None:
            continue
        try:
            height, width = (int(side) for side in read_image(entry["image"], root=top).shape[-2:])
        except DataError as fault:
            faults.append(fault)
            continue
        if (height, width) != entry["size"]:
            text = f"Expected the size of the picture, {width} x {height}, but got {entry['size'][::-1]}."
            faults.append(DataError(text, path=entry["path"], field="size"))
    return faults


def _lists(root: Path) -> dict[str, list[str]]:
    folder = root / "ImageSets" / "Main"
    for part in (root / "JPEGImages", root / "Annotations", folder):
        if not part.is_dir():
            raise DataError(
                f"Expected JPEGImages, Annotations and ImageSets/Main, but {part.name} is missing.", path=root
            )
    lists = {}
    for split in ("train", "val", "test"):
        file = inside(root, Path("ImageSets", "Main", f"{split}.txt"))
        if file.is_file():
            lines = file.read_text(encoding="utf-8").splitlines()
            names = [line.split()[0] for line in lines if line.strip()]
            repeated = sorted({name for name in names if names.count(name) > 1}) if len(names) < 5000 else []
            if repeated:
                raise DataError(
                    f"Expected each picture once, but {repeated[0]!r} comes twice.", path=file, field="name"
                )
            lists[split] = names
    if not lists:
        raise DataError("Expected train.txt, val.txt or test.txt, but there is none.", path=folder)
    return lists


def _parse(root: Path, name: str, *, one_based: bool) -> tuple[dict[str, Any] | None, list[DataError]]:
    """Return what an annotation holds and its faults; nothing when it cannot be used at all."""
    try:
        path = inside(root, Path("Annotations") / f"{name}.xml")
        tree = _read(path)
        size = (_number(tree, "size/height", path), _number(tree, "size/width", path))
        if min(size) < 1:
            raise DataError(f"Expected a picture with pixels, but got {size}.", path=path, field="size")
        picture = tree.findtext("filename") or f"{name}.jpg"
        if not (root / "JPEGImages" / picture).suffix:
            picture += ".jpg"
        inside(root, Path("JPEGImages") / picture)
    except DataError as fault:
        return None, [fault]
    entry: dict[str, Any] = {
        "id": name,
        "path": path,
        "image": Path("JPEGImages") / picture,
        "size": (int(size[0]), int(size[1])),
        "boxes": [],
        "labels": [],
        "difficult": [],
    }
    faults = []
    for index, item in enumerate(tree.findall("object")):
        try:
            label = (item.findtext("name") or "").strip()
            if not label:
                raise DataError("Expected a class name, but got none.", path=path, record=index, field="name")
            box = [_number(item, f"bndbox/{corner}", path, record=index) for corner in _CORNERS]
            if one_based:
                box[:2] = [value - 1 for value in box[:2]]
            wrong = box_fault(box, entry["size"])
            if wrong:
                raise DataError(wrong, path=path, record=index, field="bndbox")
        except DataError as fault:
            faults.append(fault)
            continue
        height, width = entry["size"]
        entry["boxes"].append([max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])])
        entry["labels"].append(label)
        entry["difficult"].append(int((item.findtext("difficult") or "0").strip() == "1"))
    return entry, faults


def _read(path: Path) -> Element:
    try:
        if path.stat().st_size > _LARGEST:
            text = f"Expected an annotation of at most {_LARGEST} bytes, but it has {path.stat().st_size}."
            raise DataError(text, path=path)
        tree = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise DataError("Expected an annotation, but there is no such file.", path=path) from error
    except (ParseError, DefusedXmlException, UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"Expected XML without entities, but {error or type(error).__name__}.", path=path
        ) from error
    if tree is None or tree.tag != "annotation":
        got = "nothing" if tree is None else f"<{tree.tag}>"
        raise DataError(f"Expected <annotation>, but got {got}.", path=path)
    return tree


def _number(tree: Element, where: str, path: Path, *, record: int | None = None) -> float:
    text = tree.findtext(where)
    field = where.split("/")[0]
    if text is None:
        raise DataError(f"Expected <{where}>, but it is missing.", path=path, record=record, field=field)
    try:
        return float(text)
    except ValueError:
        raise DataError(
            f"Expected a number in <{where}>, but got {text!r}.", path=path, record=record, field=field
        ) from None
