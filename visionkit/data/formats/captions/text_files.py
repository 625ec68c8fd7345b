"""Captions in text files, a line each: Flickr's token files, and tables (captions.txt, results.csv)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visionkit.data.formats.captions.collector import SPLIT_OF, CaptionCollector, ImageFolder
from visionkit.data.read_image import IMAGE_SUFFIXES
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


def read_caption_lists(file: Path, folder: ImageFolder, found: CaptionCollector) -> None:
    """Read a file of lines, and the lists of images of each split that lie beside it.

    "name.jpg#0<tab>caption", "name.jpg,caption" or "name.jpg| 0| caption", with or without a header. A quoted
    caption may go over several lines, and an unquoted one hold commas.

    Args:
        file: The file.
        folder: Where the images are looked for.
        found: Where records and faults go.

    Raises:
        DataError: The file cannot be read as a whole.
    """
    captions: dict[str, list[tuple[str, str]]] = {}
    splits: dict[str, str] = {}
    numbers: set[str] = set()
    for line in _lines(file, found):
        if line.order and line.order in numbers:
            text = f"Expected each caption number once, but {line.order!r} comes twice."
            found.fault(text, record=f"line {line.number}", field="id")
            continue
        numbers.add(line.order)
        captions.setdefault(line.image, []).append((line.text, f"line {line.number}"))
        if line.split:
            known = SPLIT_OF.get(line.split.lower())
            if known is None or splits.setdefault(line.image, known) != known:
                text = f"Expected one split (train, val, test) for {line.image!r}, but got {line.split!r}."
                found.fault(text, record=f"line {line.number}", field="split")
    if not captions and not found.faults:
        raise DataError("Expected lines of an image and a caption, but there is none.", path=file)
    listed = splits or _listed(file, captions, found)
    for image, several in captions.items():
        split = listed.get(image, "none" if listed else "")
        found.add(image, image, several, split, folder)


def _lines(file: Path, found: CaptionCollector) -> Iterator[_Line]:
    lines = read_lines(file)
    first = next((place for place, line in enumerate(lines) if line.strip()), 0)
    mark, columns = _layout(lines[first:])
    place = first + (columns is not None)
    while place < len(lines):
        number, line = place + 1, lines[place]
        place += 1
        if not line.strip():
            continue
        if len(line) > _MAX_LINE:
            text = (
                f"Expected a line of at most {_MAX_LINE:,} characters, but got {len(line):,}: {line[:60]!r}."
            )
            _drop(
                found,
                DataError(text, path=file, record=f"line {number}"),
                "captions that are far too long left out",
            )
            continue
        if mark == "\t" and columns is None:
            name, tab, text = line.partition("\t")
            cells = [name, text] if tab else [name]
        elif mark == "|":  # Flickr30k's results.csv: no quotes
            cells = line.split(mark)
        else:
            line, place = _joined(lines, place, mark)
            cells = next(csv.reader([line], delimiter=mark))
        got = _take(cells, columns, mark, number)
        if got is None:
            text = f"Expected 'image,caption' or 'image#number<tab>caption', but got {line[:80]!r}."
            case = DataError(text, path=file, record=f"line {number}")
            _drop(found, case, "lines that are no image and caption left out")
            continue
        yield got


def _drop(found: CaptionCollector, case: DataError, what: str) -> None:
    found.seen["captions"] += 1
    found.drop(found.captions, what, case)


def _layout(lines: list[str]) -> tuple[str, dict[str, int] | None]:
    """Return what stands between the columns, and where each column is (None without a header)."""
    for mark in ("\t", ",", "|", ";") if lines else ():
        names = [_plain(name) for name in lines[0].split(mark)]
        columns = {
            kind: next((place for place, name in enumerate(names) if name in known), -1)
            for kind, known in (
                ("image", _IMAGE),
                ("caption", _CAPTION),
                ("number", _NUMBER),
                ("split", _SPLIT),
            )
        }
        if columns["image"] >= 0 and columns["caption"] >= 0:
            columns["count"] = len(names)
            return mark, columns
    sample = [line for line in lines[:200] if line.strip()]
    by_mark = {mark: sum(_names_image(line, mark) for line in sample) for mark in ("\t", ",", "|", ";")}
    mark = max(by_mark, key=lambda each: by_mark[each])
    if not by_mark[mark]:
        mark = "\t" if sample and all("\t" in line for line in sample) else ","
    numbered = mark != "\t" and len(sample) > 0 and all(_middle_number(line, mark) for line in sample)
    return mark, {
        "image": 0,
        "number": 1,
        "caption": 2,
        "split": -1,
        "count": 3,
    } if numbered else None


def _names_image(line: str, mark: str) -> bool:
    """Return whether an image's name stands before the first mark of a line (a quoted one may hold it)."""
    first = (
        next(csv.reader([line[:_MAX_LINE]], delimiter=mark))
        if line.startswith('"')
        else [line.partition(mark)[0]]
    )
    return mark in line and bool(first) and bool(_IMAGE_END.search(first[0]))


def _middle_number(line: str, mark: str) -> bool:
    cells = line[:_MAX_LINE].split(mark)
    return len(cells) > 2 and re.fullmatch(r"\s*\"?\d{1,2}\"?\s*", cells[1]) is not None


def _take(cells: list[str], columns: dict[str, int] | None, mark: str, number: int) -> _Line | None:
    if columns is None:
        if len(cells) < 2 or not cells[0].strip():
            return None
        name, text = cells[0].strip(), mark.join(cells[1:])
    else:
        if len(cells) <= max(columns["image"], columns["caption"]) or not cells[columns["image"]].strip():
            return None
        name = cells[columns["image"]].strip()
        last = columns["caption"] == columns["count"] - 1
        # An unquoted caption in the last column may hold the mark.
        text = mark.join(cells[columns["caption"] :]) if last else cells[columns["caption"]]
    # "name.jpg#0": only in token files, and as an addition to an image's name
    order = name if mark == "\t" and _NUMBERED.search(name) else ""
    split = columns["split"] if columns is not None else -1
    image = _NUMBERED.sub("", name) if order else name
    return _Line(number, image, order, text, cells[split].strip() if 0 <= split < len(cells) else "")


def _joined(lines: list[str], place: int, mark: str) -> tuple[str, int]:
    """Return the line before `place`, with those that a quoted caption goes on in, and the next place."""
    line = lines[place - 1]
    if not _open(line, mark):
        return line, place
    whole = line
    for end in range(place, min(len(lines), place + _MAX_JOINED)):
        if _names_image(lines[end], mark) or len(whole) + len(lines[end]) > _MAX_LINE:
            break
        whole += " " + lines[end]
        if not _open(whole, mark):
            return whole, end + 1
    return line, place  # a lone quotation mark


def _open(line: str, mark: str) -> bool:
    """Return whether a quoted cell has no end."""
    if '"' not in line:
        return False
    try:
        list(csv.reader([line], delimiter=mark, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _listed(
    file: Path, captions: dict[str, list[tuple[str, str]]], found: CaptionCollector
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
    counter = NoticeCounter(max_fraction=found.images.max_fraction)
    for path in sorted(file.parent.glob("*.txt")):
        split = _split_of(path.stem)
        if not split or path == file:
            continue
        try:
            lines = [
                (number, line.strip()) for number, line in enumerate(read_lines(path), 1) if line.strip()
            ]
        except DataError as fault:
            found.faults.append(fault)
            continue
        named = [(number, line, _image_of(line, known, stems)) for number, line in lines]
        if not any(image for _, _, image in named):
            looks = bool(lines) and all(_IMAGE_END.search(line) for _, line in lines)
            text = (
                f"Expected a list of images that have captions, but got {lines[0][1][:80]!r}."
                if lines
                else "It is empty."
            )
            case = DataError(text, path=path, record="line 1", field="split")
            if looks:
                found.faults.append(case)
            else:
                found.images.add(
                    "text files beside the captions not taken for lists of a split", case, harmless=True
                )
            continue
        lines_of_lists += len(named)
        for number, line, image in named:
            if image is None:
                text = f"Expected an image that has captions, but got {line[:80]!r}."
                case = DataError(text, path=path, record=f"line {number}", field="split")
                found.drop(counter, "lines of split lists that name no image with captions", case)
            elif splits.setdefault(image, split) != split:
                text = f"Expected {image!r} in one split, but {splits[image]} has it too."
                found.fault(text, record=f"line {number}", field="split", file=path)
    found.more += counter.notices(lines_of_lists)
    return splits


def _split_of(stem: str) -> str:
    """Return the split that a whole word of a file's name means; "latest" has none, "trainImages" has."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", stem)
    return next((SPLIT_OF[word.lower()] for word in words if word.lower() in SPLIT_OF), "")


def _image_of(line: str, known: dict[str, str], stems: dict[str, list[str]]) -> str | None:
    """Return the image that a line of a list names: by its name, its name without folder, or its stem."""
    name = _NUMBERED.sub("", line.strip('"').replace("\\", "/"))
    if name in known:
        return known[name]
    found = stems.get(name.rpartition("/")[2], [])
    return found[0] if len(set(found)) == 1 else None
