"""Pascal VOC: one XML file an image."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from visionkit.predict.kinds.kind import class_name
from visionkit.predict.writers.output_files import write_small
from visionkit.predict.writers.writer import Entry, Target

__all__ = ["Voc"]


class Voc:
    """Writes `voc/annotations/NAME.xml`: the detections with the minimum score.

    Corners are whole pixels, counted from 0, as the tools that write VOC's format today have them (VOC's own
    files count from 1); a box is one pixel wide at least. `<score>` is added to each object.

    Args:
        target: Where it is written.
    """

    def __init__(self, target: Target) -> None:
        self._folder = target.folder / "voc" / "annotations"
        self._names = target.class_names

    def add(self, entry: Entry) -> None:
        """Write the file of an image."""
        height, width = entry.result.size
        root = Element("annotation")
        _text(root, "folder", "images")
        _text(root, "filename", _xml_text(PurePath(entry.values["id"]).name))
        size = SubElement(root, "size")
        for key, value in (("width", width), ("height", height), ("depth", 3)):
            _text(size, key, value)
        _text(root, "segmented", 0)
        for box, label, score in entry.detections:
            item = SubElement(root, "object")
            _text(item, "name", _xml_text(class_name(label, self._names)))
            _text(item, "pose", "Unspecified")
            _text(item, "truncated", 0)
            _text(item, "difficult", 0)
            _text(item, "score", f"{score:.4f}")
            corners = SubElement(item, "bndbox")
            for key, corner in zip(("xmin", "ymin", "xmax", "ymax"), _whole(box, width, height), strict=True):
                _text(corners, key, corner)
        indent(root)
        content = tostring(root, encoding="utf-8", xml_declaration=True)
        write_small(self._folder / f"{entry.name}.xml", content)

    def close(self) -> list[str]:
        """Do nothing: each file is complete."""
        return []

    def abort(self) -> None:
        """Do nothing: each file is complete."""


def _text(parent: Element, tag: str, value: Any) -> None:
    SubElement(parent, tag).text = str(value)


def _xml_text(text: str) -> str:
    """Return a text without the control characters that XML cannot have."""
    return "".join(char if char.isprintable() else "_" for char in text)


def _whole(box: list[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Return a box in whole pixels, with an area, inside the image."""
    x1, x2 = _side(box[0], box[2], width)
    y1, y2 = _side(box[1], box[3], height)
    return x1, y1, x2, y2


def _side(start: float, end: float, limit: int) -> tuple[int, int]:
    low = min(max(round(start), 0), limit - 1)
    return low, min(max(round(end), low + 1), limit)
