"""Pictures and their captions as the usual files have them: Karpathy's json, COCO's, Flickr's lists.

Files that are read here are not trusted: every fault is collected with its file and record, and no file name
leads out of the folder of the pictures.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from visionkit.data.read_image import inside
from visionkit.errors import DataError, expected

__all__ = ["CaptionFormat", "CaptionRecord", "CaptionRecords", "caption_format", "read_caption_records"]

CaptionFormat = Literal["karpathy", "coco", "flickr"]
_LARGEST = 2 * 2**30
_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_FOLDERS = ("Images", "images", "Flicker8k_Dataset", "flickr30k_images", "flickr30k-images")
_LISTS = {"train": ("train",), "val": ("val", "dev"), "test": ("test",)}
_LIST_FILES = "*train*.txt", "*dev*.txt", "*val*.txt", "*test*.txt"


@dataclass(frozen=True)
class CaptionRecord:
    """One picture.

    Args:
        id: Its name in errors and predictions.
        image: Its file, from the root.
        captions: Every sentence.
        split: "train", "val", "test", or "" where the files say nothing of it.
    """

    id: str
    image: str
    captions: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class CaptionRecords:
    """What a set of caption files says.

    Args:
        root: The folder of the pictures.
        file: The file, or the folder of the files.
        format: What it was taken for.
        records: Every picture that can be used.
        faults: Everything that cannot.
    """

    root: Path
    file: Path
    format: CaptionFormat
    records: tuple[CaptionRecord, ...]
    faults: tuple[DataError, ...]


def caption_format(path: str | Path) -> tuple[CaptionFormat, Path] | None:
    """Return what captions a path holds, and the file or folder that holds them; None if it holds none.

    Args:
        path: A json file (Karpathy's, or COCO's captions), a `captions.txt` or token file, or a folder with
            one of these, or with `annotations/captions_*.json`.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() == ".json":
            if path.name.startswith("captions_"):
                return "coco", path
            return None if _of_objects(path) else ("karpathy", path)
        if path.name == "captions.txt" or ".token" in path.name:
            return "flickr", path
        return None
    if not path.is_dir():
        return None
    if any((path / "annotations").glob("captions_*.json")):
        return "coco", path
    for pattern, kind in (("dataset*.json", "karpathy"), ("captions.txt", "flickr"), ("*.token*", "flickr")):
        found = sorted(file for file in path.glob(pattern) if file.is_file())
        if found:
            return ("karpathy" if kind == "karpathy" else "flickr"), found[0]
    return None


def _of_objects(file: Path) -> bool:
    """Return whether a json file begins like COCO's files of objects, which name pictures by `file_name`."""
    with file.open("rb") as handle:
        head = handle.read(65_536)
    return any(key in head for key in (b'"file_name"', b'"annotations"', b'"categories"'))


def read_caption_records(path: str | Path, *, images: str | Path | None = None) -> CaptionRecords:
    """Read the captions of every picture, and collect every fault of the files.

    Pictures are looked for, but not decoded.

    Args:
        path: As `caption_format` takes it.
        images: The folder of the pictures, if it is not where the format has it.

    Raises:
        DataError: There are no captions here, or a file cannot be read at all.
    """
    found = caption_format(path)
    if found is None:
        raise DataError(
            "Expected Karpathy's json, annotations/captions_*.json, captions.txt or a token file, but there "
            "is none.",
            path=path,
        )
    kind, place = found
    reader = {"karpathy": _karpathy, "coco": _coco, "flickr": _flickr}[kind]
    top = Path(images) if images is not None else _root(kind, place)
    faults: list[DataError] = []
    records = tuple(_sound(list(reader(place, top, faults)), top, place, faults))
    return CaptionRecords(top, place, kind, records, tuple(faults))


def _root(kind: CaptionFormat, place: Path) -> Path:
    if kind == "coco":
        return place if place.is_dir() else place.parent.parent
    top = place.parent
    for name in _FOLDERS:
        if kind == "flickr" and (top / name).is_dir():
            return top / name
    return top


def _karpathy(file: Path, root: Path, faults: list[DataError]) -> Iterator[CaptionRecord]:
    own = next((folder for folder in _FOLDERS if (root / folder).is_dir()), "")
    for place, item in enumerate(_list_of(_json(file), "images", file)):
        name = _text(item, "filename", file, place, faults)
        if name is None:
            continue
        folder = item.get("filepath")
        split = item.get("split")
        if split not in _SPLITS:
            wanted = "one of train, restval, val, test"
            faults.append(
                DataError(expected("the split", wanted, split), path=file, record=name, field="split")
            )
            continue
        sentences = item.get("sentences")
        texts: list[Any] = sentences if isinstance(sentences, list) else []
        captions = [entry.get("raw") if isinstance(entry, dict) else entry for entry in texts]
        folder = folder if isinstance(folder, str) else own
        image = f"{folder}/{name}" if folder else name
        yield _record(image, image, captions, _SPLITS[split], file, faults)


def _coco(place: Path, root: Path, faults: list[DataError]) -> Iterator[CaptionRecord]:
    files = sorted((place / "annotations").glob("captions_*.json")) if place.is_dir() else [place]
    for file in files:
        # captions_train2014.json, captions_val2017.json: the year is part of the folder's name
        name = file.stem.removeprefix("captions_")
        split = next((split for split in ("train", "val", "test") if name.startswith(split)), "")
        content = _json(file)
        pictures: dict[Any, str] = {}
        captions: dict[Any, list[Any]] = {}
        for number, item in enumerate(_list_of(content, "images", file)):
            image = _text(item, "file_name", file, number, faults)
            key = item.get("id")
            if image is None:
                continue
            if key is None or isinstance(key, list | dict) or key in pictures:
                text = expected("a picture's id", "there, and used once", key)
                faults.append(DataError(text, path=file, record=image, field="id"))
                continue
            pictures[key], captions[key] = image, []
        seen: set[Any] = set()
        for number, item in enumerate(_list_of(content, "annotations", file)):
            owner, key = item.get("image_id"), item.get("id", f"number {number}")
            if isinstance(owner, list | dict) or owner not in pictures:
                text = f"Expected the id of a picture in this file, but got {owner!r}."
                faults.append(DataError(text, path=file, record=key, field="image_id"))
            elif not isinstance(key, list | dict) and key in seen:
                faults.append(
                    DataError(
                        "Expected each annotation id once, but it comes twice.",
                        path=file,
                        record=key,
                        field="id",
                    )
                )
            else:
                captions[owner].append(item.get("caption"))
                seen.add(key if not isinstance(key, list | dict) else number)
        folder = next((f for f in (name, f"images/{name}", "images") if (root / f).is_dir()), "")
        for key, image in pictures.items():
            where = f"{folder}/{image}" if folder else image
            yield _record(f"{key}", where, captions[key], split, file, faults)


def _flickr(file: Path, root: Path, faults: list[DataError]) -> Iterator[CaptionRecord]:
    captions: dict[str, list[Any]] = {}
    numbers: set[str] = set()
    for number, line in enumerate(_lines(file), 1):
        if not line.strip() or (number == 1 and line.replace(" ", "").lower() == "image,caption"):
            continue
        # Tokens: "name.jpg#0<tab>caption". Lists: "name.jpg,caption", the caption may hold commas.
        name, *rest = line.split("\t", 1) if "\t" in line else next(csv.reader([line]))
        name, text = name.strip(), ",".join(rest)
        if not rest or not name:
            wrong = f"Expected 'picture,caption' or 'picture#number<tab>caption', but got {line[:80]!r}."
            faults.append(DataError(wrong, path=file, record=f"line {number}"))
            continue
        picture, _, order = name.partition("#")
        if order and name in numbers:
            wrong = f"Expected each caption number once, but {name!r} comes twice."
            faults.append(DataError(wrong, path=file, record=f"line {number}", field="id"))
            continue
        numbers.add(name)
        captions.setdefault(picture, []).append(text)
    splits = _flickr_splits(file.parent, captions, faults)
    for picture, several in captions.items():
        yield _record(picture, picture, several, splits.get(picture, ""), file, faults)


def _flickr_splits(folder: Path, captions: dict[str, list[Any]], faults: list[DataError]) -> dict[str, str]:
    """Return the split of each picture that a list beside the captions names (Flickr_8k.trainImages.txt)."""
    splits: dict[str, str] = {}
    lists = sorted({file for pattern in _LIST_FILES for file in folder.glob(pattern)})
    for file in lists:
        name = file.name.lower()
        split = next((s for s, words in _LISTS.items() if any(w in name for w in words)), "")
        for number, line in enumerate(_lines(file), 1):
            picture = line.strip()
            if not picture:
                continue
            picture = picture if picture in captions else f"{picture}.jpg"
            if picture not in captions:
                text = f"Expected a picture that has captions, but got {line.strip()!r}."
                faults.append(DataError(text, path=file, record=f"line {number}", field="split"))
            elif splits.setdefault(picture, split) != split:
                text = f"Expected {picture!r} in one split, but {splits[picture]} has it too."
                faults.append(DataError(text, path=file, record=f"line {number}", field="split"))
    return splits


def _record(
    name: str, image: str, captions: Sequence[Any], split: str, file: Path, faults: list[DataError]
) -> CaptionRecord:
    """Return the record with the captions that are text; name those that are not."""
    good = []
    for place, text in enumerate(captions):
        if isinstance(text, str) and text.strip():
            good.append(" ".join(text.split()))
        else:
            wrong = expected(f"caption {place}", "text that is not empty", text)
            faults.append(DataError(wrong, path=file, record=name, field="caption"))
    if not captions:
        faults.append(
            DataError("Expected at least one caption, but got none.", path=file, record=name, field="caption")
        )
    return CaptionRecord(name, image, tuple(good), split)


def _sound(
    records: list[CaptionRecord], root: Path, file: Path, faults: list[DataError]
) -> Iterator[CaptionRecord]:
    """Give the records that have captions and a file of their own inside the root; name the others."""
    seen: set[str] = set()
    for record in records:
        if not record.captions:
            continue  # named already
        if record.image in seen or record.id in seen:
            text = f"Expected each picture once, but {record.image!r} comes twice."
            faults.append(DataError(text, path=file, record=record.id, field="id"))
            continue
        seen |= {record.image, record.id}
        try:
            there = inside(root, record.image)
        except DataError as fault:
            faults.append(DataError(fault.message, path=file, record=record.id, field="image"))
            continue
        if not there.is_file():
            text = f"Expected the picture {record.image!r} below {root}, but there is none."
            faults.append(DataError(text, path=file, record=record.id, field="image"))
            continue
        yield record


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LARGEST:
            raise DataError(f"Expected at most {_LARGEST} bytes, but got {file.stat().st_size}.", path=file)
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"Expected a json file: {error or type(error).__name__}.", path=file) from error
    if not isinstance(content, dict):
        raise DataError(expected("the json", "an object", type(content).__name__), path=file)
    return content


def _list_of(content: dict[str, Any], field: str, file: Path) -> list[dict[str, Any]]:
    values = content.get(field)
    if not isinstance(values, list) or not all(isinstance(item, dict) for item in values):
        raise DataError(f"Expected {field!r} to be a list of objects.", path=file, field=field)
    return values


def _text(item: dict[str, Any], field: str, file: Path, place: int, faults: list[DataError]) -> str | None:
    value = item.get(field)
    if isinstance(value, str) and value:
        return value
    faults.append(DataError(expected(field, "a file name", value), path=file, record=place, field=field))
    return None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"Expected UTF-8 text: {error}.", path=file) from error
