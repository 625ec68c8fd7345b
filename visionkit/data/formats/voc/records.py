"""Parse one VOC annotation: its image, its boxes, and their errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element

from visionkit.data.boxes import CUT, box_error
from visionkit.data.formats.voc.layout import VocPart
from visionkit.data.formats.voc.xml import read_voc_xml
from visionkit.data.read_image import inside
from visionkit.errors import DataError

__all__ = ["BY_NAME", "MULTIPLE", "OTHER", "VocAnnotation", "VocEntry", "parse_annotation"]

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
OTHER = "annotations whose <filename> is another image; the one of their own name is taken"
BY_NAME = "annotations without an image of their own name, for which that of <filename> is taken"
MULTIPLE = "annotations with several images of their name, of which the first is taken"


@dataclass
class VocEntry:
    """What is known of one image: boxes as they are trained on, and as the file has them."""

    id: str
    path: Path
    image: Path
    size: tuple[int, int]
    boxes: list[list[float]] = field(default_factory=list)
    full: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    difficult: list[int] = field(default_factory=list)
    objects: int = 0


@dataclass
class VocAnnotation:
    """An annotation, None when it cannot be used; its errors, and the cases to be counted."""

    entry: VocEntry | None
    errors: list[DataError]
    counted: list[tuple[str, DataError]] = field(default_factory=list)


def parse_annotation(part: VocPart, name: str, *, one_based: bool) -> VocAnnotation:
    """Read one annotation of a part.

    Args:
        part: The split it is of.
        name: Its name, without suffix.
        one_based: Coordinates begin at 1.
    """
    try:
        path = inside(part.root, part.annotation(name))
        tree = read_voc_xml(path)
        size = (_number(tree, "size/height", path), _number(tree, "size/width", path))
        if min(size) < 1:
            raise DataError(f"Expected an image with pixels, but got {size}.", path=path, field="size")
        if not all(side.is_integer() for side in size):
            text = f"Expected a whole number of pixels, but got {size} (height, width)."
            raise DataError(text, path=path, field="size")
        image, counted = _image(part, name, (tree.findtext("filename") or "").strip(), path)
    except DataError as error:
        return VocAnnotation(None, [error])
    entry = VocEntry(name, path, image, (int(size[0]), int(size[1])))
    errors = []
    for index, item in enumerate(tree.findall("object")):
        entry.objects += 1
        try:
            label = (item.findtext("name") or "").strip()
            if not label:
                raise DataError("Expected a class name, but got none.", path=path, record=index, field="name")
            box = [_number(item, f"bndbox/{corner}", path, record=index) for corner in _CORNERS]
            if one_based:
                box[:2] = [value - 1 for value in box[:2]]
            height, width = entry.size
            inner = [max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])]
            wrong = box_error(box, entry.size)
            cut = wrong and box_error(box) is None and box_error(inner) is None
            if wrong and not cut:
                raise DataError(wrong, path=path, record=index, field="bndbox")
            if wrong:
                counted.append((CUT, DataError(wrong, path=path, record=index, field="bndbox")))
        except DataError as error:
            errors.append(error)
            continue
        entry.boxes.append(inner)
        entry.full.append(box)
        entry.labels.append(label)
        entry.difficult.append(int((item.findtext("difficult") or "0").strip() == "1"))
    return VocAnnotation(entry, errors, counted)


def _image(part: VocPart, name: str, file_name: str, path: Path) -> tuple[Path, list[tuple[str, DataError]]]:
    """Return the image of an annotation: the one of its own name, else the one that `<filename>` names."""
    of_name = part.images_of(name)
    other = part.image_named(file_name)
    if of_name:
        counted = []
        if other is not None and other not in of_name:
            text = f"Expected <filename> to be {of_name[0].name!r}, as the annotation is called, but got "
            text += f"{file_name!r}."
            counted.append((OTHER, DataError(text, path=path, field="filename")))
        if len(of_name) > 1 and other not in of_name:
            text = (
                f"Expected one image of this name, but there are {', '.join(each.name for each in of_name)}."
            )
            counted.append((MULTIPLE, DataError(text, path=path, field="image")))
        return (other if other in of_name else of_name[0]), counted
    if file_name:
        inside(part.root, part.images / file_name)
    if other is None:
        text = f"Expected an image called {name}.jpg, .png or alike in {part.images}, but there is none."
        raise DataError(text, path=path, field="image")
    text = f"Expected an image called {name!r}, but there is none; <filename> names {file_name!r}."
    return other, [(BY_NAME, DataError(text, path=path, field="filename"))]


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
