"""The table of formats in which predictions are written. No torch here: the help of the verb shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from visionkit.errors import InputError, unknown_name

__all__ = ["EVERY_KIND", "FORMATS", "Format", "check_formats", "formats_of"]

EVERY_KIND = ("classification", "detection", "segmentation", "captioning", "embedding", "keypoints")


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        kinds: The kinds of predictions that it can hold.
        home: Module in this package and class in it that writes it.
        files: What is written, below the folder: names of files, and `FOLDER/*ENDING` for one file an image.
        text: What it is, in a few words.
    """

    kinds: tuple[str, ...]
    home: tuple[str, str]
    files: tuple[str, ...]
    text: str


FORMATS: dict[str, Format] = {
    "jsonl": Format(
        EVERY_KIND, ("jsonl", "JsonLines"), ("predictions.jsonl",), "every value, a line an image"
    ),
    "csv": Format(EVERY_KIND, ("csv", "Csv"), ("predictions.csv",), "a table: a row an image, box or class"),
    "coco": Format(
        ("detection", "segmentation", "captioning", "keypoints"),
        ("coco", "Coco"),
        ("coco/predictions.json", "coco/images.json"),
        "COCO's results json, and what its ids mean",
    ),
    "voc": Format(
        ("detection",), ("voc", "Voc"), ("voc/annotations/*.xml",), "Pascal VOC: an XML file an image"
    ),
    "yolo": Format(
        ("detection",),
        ("yolo", "Yolo"),
        ("yolo/data.yaml", "yolo/labels/*.txt"),
        "YOLO: a text file an image",
    ),
    "masks": Format(
        ("segmentation",),
        ("masks", "Masks"),
        ("masks/classes.txt", "masks/masks/*.png"),
        "palette PNGs: the number of the class in each pixel",
    ),
    "drawings": Format(
        EVERY_KIND,
        ("drawings", "Drawings"),
        ("drawings/*.jpg",),
        "each image with its prediction drawn on it",
    ),
    "sheet": Format(
        EVERY_KIND,
        ("sheet", "Sheet"),
        ("index.html", "sheet/*.html"),
        "all images, to look through in a browser",
    ),
}
"""Every format by its name."""


def check_formats(formats: Sequence[str], kind: str | None = None) -> tuple[str, ...]:
    """Return the names of formats, each once, in the order of the table.

    Args:
        formats: Names of formats; "all" stands for all that the kind can have.
        kind: The kind of predictions; None where it is not known yet.

    Raises:
        InputError: There is no such format, or predictions of the kind cannot be written in it.
    """
    names = [part for each in formats for part in each.replace(",", " ").split()]
    for name in names:
        if name != "all" and name not in FORMATS:
            raise unknown_name("format", name, [*FORMATS, "all"])
        if kind is not None and name != "all" and kind not in FORMATS[name].kinds:
            only = " or ".join(FORMATS[name].kinds)
            raise InputError(
                f"Expected a format for {kind} ({', '.join(formats_of(kind))}), but got {name!r}, which is "
                f"for {only}."
            )
    if not names:
        raise InputError(f"Expected one format or more of {', '.join(FORMATS)}, but got none.")
    chosen = formats_of(kind) if "all" in names else names
    return tuple(name for name in FORMATS if name in chosen)


def formats_of(kind: str | None) -> tuple[str, ...]:
    """Return the names of the formats that a kind can have; all of them where it is None.

    Args:
        kind: "classification", "detection", "segmentation", "captioning", "embedding" or "keypoints".
    """
    return tuple(name for name, each in FORMATS.items() if kind is None or kind in each.kinds)
