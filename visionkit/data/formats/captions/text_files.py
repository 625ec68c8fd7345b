"""Captions in text files, a line each: Flickr's token files, and tables (captions.txt, results.csv)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visionkit.data.formats.captions.collector import CaptionCollector, CaptionImages
from visionkit.data.read_image import IMAGE_SUFFIXES
from visionkit.data.splits import split_of
from visionkit.errors import DataError
from visionkit.notices import NoticeCounter
from visionkit.text.read_text import read_lines

__all__ = ["has_caption_columns", "read_caption_lists"]

_IMAGE = (
    "image",
    "image_name",
    "file_name",
    "filename",
    "img",
    "image_id",
    "image_path",
    "file",
    "path",
    "name",
)
_CAPTION = ("caption", "captions", "comment", "comments", "text", "sentence", "description")
_LABEL = ("label", "labels", "class", "classes", "category", "target")
_NUMBER = ("comment_number", "caption_number", "number", "sentid")
_SPLIT = ("split", "set", "subset")
_SUFFIX = "|".join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES))
_IMAGE_END = re.compile(rf"(?:{_SUFFIX})\"?\s*(?:#\d+)?\s*$", re.IGNORECASE)
_NUMBERED = re.compile(r"#\d+$")
_MAX_LINE = 100_000
_MAX_JOINED = 50  # lines of one quoted caption


@dataclass(frozen=True)
class _Line:
    """One caption: the line it begins in, its image, the number behind it, its text, and its split."""

    number: int
    image: str
    order: str
    text: str
    split: str = ""


def has_caption_columns(columns: list[str]) -> bool:
    """Return whether a table's header names images and captions, and no classes.

    Args:
        columns: The header.
    """
    names = [_plain(name) for name in columns]
    if any(name in _LABEL for name in names):
        return False  # a table for classification that also describes its images
    return any(name in _IMAGE for name in names) and any(name in _CAPTION for name in names)


def _plain(name: str) -> str:
    return name.strip().strip('"').strip().lower().replace(" ", "_")


def read_caption_lists(file: Path, folder: CaptionImages, collector: CaptionCollector) -> None:
    """Read a file of lines, and the lists of images of each split that lie beside it.

    "name.jpg#0<tab>caption", "name.jpg,caption" or "name.jpg| 0| caption", with or without a header. A quoted
    caption may go over several lines, and an unquoted one hold commas.

    Args:
        file: The file.
        folder: Where the images are looked for.
        collector: Where records and errors go.

    Raises:
        DataError: The file cannot be read.
    """
    captions: dict[str, list[tuple[str, str]]] = {}
    splits: dict[str, str] = {}
    numbers: set[str] = set()
    for line in _lines(file, collector):
        if line.order and line.order in numbers:
            text = f"Expected each caption number once, but {line.order!r} comes twice."
            collector.error(text, record=f"line {line.number}", field="id")
            continue
        numbers.add(line.order)
        captions.setdefault(line.image, []).append((line.text, f"line {line.number}"))
        if line.split:
            known = split_of(line.split)
            if known is None or splits.setdefault(line.image, known) != known:
                text = f"Expected one split (train, val, test) for {line.image!r}, but got {line.split!r}."
                collector.error(text, record=f"line {line.number}", field="split")
    if not captions and not collector.errors:
        raise DataError("Expected lines of an image and a caption, but there is none.", path=file)
    listed = splits or _listed(file, captions, collector)
    for image, lines in captions.items():
        split = listed.get(image, "none" if listed else "")
        collector.add(image, image, lines, split, folder)


def _lines(file: Path, collector: CaptionCollector) -> Iterator[_Line]:
    lines = read_lines(file)
    first = next((index for index, line in enumerate(lines) if line.strip()), 0)
    delimiter, columns = _layout(lines[first:])
    index = first + (columns is not None)
    while index < len(lines):
        number, line = index + 1, lines[index]
        index += 1
        if not line.strip():
            continue
        if len(line) > _MAX_LINE:
            text = (
                f"Expected a line of at most {_MAX_LINE:,} characters, but got {len(line):,}: {line[:60]!r}."
            )
            _drop(
                collector,
                DataError(text, path=file, record=f"line {number}"),
                "captions that are far too long left out",
            )
            continue
        if delimiter == "\t" and columns is None:
            name, tab, text = line.partition("\t")
            cells = [name, text] if tab else [name]
        elif delimiter == "|":  # Flickr30k's results.csv: no quotes
            cells = line.split(delimiter)
        else:
            line, index = _joined(lines, index, delimiter)
            cells = next(csv.reader([line], delimiter=delimiter))
        got = _take(cells, columns, delimiter, number)
        if got is None:
            text = f"Expected 'image,caption' or 'image#number<tab>caption', but got {line[:80]!r}."
            case = DataError(text, path=file, record=f"line {number}")
            _drop(collector, case, "lines that are no image and caption left out")
            continue
        yield got


def _drop(collector: CaptionCollector, case: DataError, what: str) -> None:
    collector.seen["captions"] += 1
    collector.drop(collector.captions, what, case)


def _layout(lines: list[str]) -> tuple[str, dict[str, int] | None]:
    """Return what stands between the columns, and where each column is (None without a header)."""
    for delimiter in ("\t", ",", "|", ";") if lines else ():
        names = [_plain(name) for name in lines[0].split(delimiter)]
        columns = {
            kind: next((index for index, name in enumerate(names) if name in known), -1)
            for kind, known in (
                ("image", _IMAGE),
                ("caption", _CAPTION),
                ("number", _NUMBER),
                ("split", _SPLIT),
            )
        }
        if columns["image"] >= 0 and columns["caption"] >= 0:
            columns["count"] = len(names)
            return delimiter, columns
    sample = [line for line in lines[:200] if line.strip()]
    by_delimiter = {
        delimiter: sum(_names_image(line, delimiter) for line in sample)
        for delimiter in ("\t", ",", "|", ";")
    }
    delimiter = max(by_delimiter, key=lambda each: by_delimiter[each])
    if not by_delimiter[delimiter]:
        delimiter = "\t" if sample and all("\t" in line for line in sample) else ","
    numbered = (
        delimiter != "\t" and len(sample) > 0 and all(_middle_number(line, delimiter) for line in sample)
    )
    return delimiter, {
        "image": 0,
        "number": 1,
        "caption": 2,
        "split": -1,
        "count": 3,
    } if numbered else None


def _names_image(line: str, delimiter: str) -> bool:
    """Return whether an image's name stands before the first mark of a line (a quoted one may hold it)."""
    first = (
        next(csv.reader([line[:_MAX_LINE]], delimiter=delimiter))
        if line.startswith('"')
        else [line.partition(delimiter)[0]]
    )
    return delimiter in line and bool(first) and bool(_IMAGE_END.search(first[0]))


def _middle_number(line: str, delimiter: str) -> bool:
    cells = line[:_MAX_LINE].split(delimiter)
    return len(cells) > 2 and re.fullmatch(r"\s*\"?\d{1,2}\"?\s*", cells[1]) is not None


def _take(cells: list[str], columns: dict[str, int] | None, delimiter: str, number: int) -> _Line | None:
    if columns is None:
        if len(cells) < 2 or not cells[0].strip():
            return None
        name, text = cells[0].strip(), delimiter.join(cells[1:])
    else:
        if len(cells) <= max(columns["image"], columns["caption"]) or not cells[columns["image"]].strip():
            return None
        name = cells[columns["image"]].strip()
        last = columns["caption"] == columns["count"] - 1
        # An unquoted caption in the last column may hold the mark.
        text = delimiter.join(cells[columns["caption"] :]) if last else cells[columns["caption"]]
    # "name.jpg#0": only in token files, and as an addition to an image's name
    order = name if delimiter == "\t" and _NUMBERED.search(name) else ""
    split = columns["split"] if columns is not None else -1
    image = _NUMBERED.sub("", name) if order else name
    return _Line(number, image, order, text, cells[split].strip() if 0 <= split < len(cells) else "")


def _joined(lines: list[str], index: int, delimiter: str) -> tuple[str, int]:
    """Return the line before `index`, with those that a quoted caption goes on in, and the next index."""
    line = lines[index - 1]
    if not _open(line, delimiter):
        return line, index
    joined = line
    for end in range(index, min(len(lines), index + _MAX_JOINED)):
        if _names_image(lines[end], delimiter) or len(joined) + len(lines[end]) > _MAX_LINE:
            break
        joined += " " + lines[end]
        if not _open(joined, delimiter):
            return joined, end + 1
    return line, index  # a lone quotation mark


def _open(line: str, delimiter: str) -> bool:
    """Return whether a quoted cell has no end."""
    if '"' not in line:
        return False
    try:
        list(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _listed(
    file: Path, captions: dict[str, list[tuple[str, str]]], collector: CaptionCollector
) -> dict[str, str]:
    """Return the split of each image that a list beside the captions names (Flickr_8k.trainImages.txt)."""
    splits: dict[str, str] = {}
    known = {name.replace("\\", "/"): name for name in captions}
    stems: dict[str, list[str]] = {}
    for name in captions:
        base = name.replace("\\", "/").rpartition("/")[2]
        for key in (base, base.rpartition(".")[0]):
            stems.setdefault(key, []).append(name)
    lines_of_lists = 0
    counter = NoticeCounter(max_fraction=collector.max_dropped)
    for path in sorted(file.parent.glob("*.txt")):
        split = _split_in(path.stem)
        if not split or path == file:
            continue
        try:
            lines = [
                (number, line.strip()) for number, line in enumerate(read_lines(path), 1) if line.strip()
            ]
        except DataError as error:
            collector.errors.append(error)
            continue
        named = [(number, line, _image_of(line, known, stems)) for number, line in lines]
        if not any(image for _, _, image in named):
            all_images = bool(lines) and all(_IMAGE_END.search(line) for _, line in lines)
            text = (
                f"Expected a list of images that have captions, but got {lines[0][1][:80]!r}."
                if lines
                else "It is empty."
            )
            case = DataError(text, path=path, record="line 1", field="split")
            if all_images:
                collector.errors.append(case)
            else:
                collector.images.add(
                    "text files beside the captions not taken for lists of a split", case, harmless=True
                )
            continue
        lines_of_lists += len(named)
        for number, line, image in named:
            if image is None:
                text = f"Expected an image that has captions, but got {line[:80]!r}."
                case = DataError(text, path=path, record=f"line {number}", field="split")
                collector.drop(counter, "lines of split lists that name no image with captions", case)
            elif splits.setdefault(image, split) != split:
                text = f"Expected {image!r} in one split, but {splits[image]} has it too."
                collector.error(text, record=f"line {number}", field="split", file=path)
    collector.more += counter.notices(lines_of_lists)
    return splits


def _split_in(stem: str) -> str:
    """Return the split that a whole word of a file's name means; "latest" has none, "trainImages" has."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", stem)
    return next((split for word in words if (split := split_of(word))), "")


def _image_of(line: str, known: dict[str, str], stems: dict[str, list[str]]) -> str | None:
    """Return the image that a line of a list names: by its name, its name without folder, or its stem."""
    name = _NUMBERED.sub("", line.strip('"').replace("\\", "/"))
    if name in known:
        return known[name]
    matches = stems.get(name.rpartition("/")[2], [])
    return matches[0] if len(set(matches)) == 1 else None
