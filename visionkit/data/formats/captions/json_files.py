"""Captions in json files: Karpathy's splits, and COCO's captions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from visionkit.data.formats.captions.collector import CaptionCollector, CaptionImages
from visionkit.data.splits import split_of
from visionkit.errors import DataError, expected
from visionkit.text.read_text import read_json

__all__ = ["IMAGE_FOLDERS", "is_coco_captions", "is_karpathy", "read_coco_captions", "read_karpathy"]

IMAGE_FOLDERS = (
    "Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images", "flickr30k-images",
    "flickr30k_images/flickr30k_images",
)  # fmt: skip
"""Where the images of Flickr8k and Flickr30k lie, beside the captions."""

_MAX_BYTES = 2 * 2**30
_SNIFFED = 65_536


def is_karpathy(file: Path) -> bool:
    """Return whether a json file looks like Karpathy's: images with sentences; it never raises.

    Args:
        file: Any file.
    """
    ends = _ends_of(file)
    return b'"images"' in ends and b'"sentences"' in ends and b'"filename"' in ends


def is_coco_captions(file: Path) -> bool:
    """Return whether a json file looks like COCO's captions: annotations with a caption; it never raises.

    Args:
        file: Any file.
    """
    ends = _ends_of(file)
    return b'"caption"' in ends and b'"image_id"' in ends


def _ends_of(file: Path) -> bytes:
    """Return the first and the last bytes of a file, b"" where it cannot be read."""
    try:
        with file.open("rb") as handle:
            head = handle.read(_SNIFFED)
            size = handle.seek(0, 2)
            handle.seek(max(len(head), size - _SNIFFED))
            return head + handle.read(_SNIFFED)
    except OSError:
        return b""


def read_karpathy(file: Path, root: Path, collector: CaptionCollector) -> None:
    """Read Karpathy's json: images with their sentences and split.

    Source: https://cs.stanford.edu/people/karpathy/deepimagesent (dataset_coco.json, dataset_flickr8k.json).

    Args:
        file: The file.
        root: The folder of the images.
        collector: Where records and errors go.

    Raises:
        DataError: The file cannot be read.
    """
    default_folder = next((folder for folder in IMAGE_FOLDERS if (root / folder).is_dir()), "")
    folder = CaptionImages(root, ("", default_folder))
    for index, item in enumerate(_list_of(_json(file), "images", file)):
        name = _text(item, "filename", index, collector)
        if name is None:
            continue
        split = item.get("split")
        key = split.strip().lower() if isinstance(split, str) else ""
        known = "train" if key == "restval" else split_of(key)
        if known is None:
            choices = "one of train, restval, val, test"
            collector.error(expected("the split", choices, split), record=name, field="split")
            continue
        where = item.get("filepath")
        where = where if isinstance(where, str) else default_folder
        image = f"{where}/{name}" if where else name
        sentences = item.get("sentences")
        texts: list[Any] = sentences if isinstance(sentences, list) else []
        collector.add(image, image, [(_sentence(text), image) for text in texts], known, folder)


def _sentence(entry: Any) -> Any:
    """Return the text of one of Karpathy's sentences; where it is cut to tokens only, the tokens."""
    if not isinstance(entry, dict):
        return entry
    raw, tokens = entry.get("raw"), entry.get("tokens")
    if raw is None and isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        return " ".join(tokens)
    return raw


def read_coco_captions(files: list[Path], root: Path, collector: CaptionCollector) -> None:
    """Read COCO's captions: a file a split, or one for all.

    Source: https://cocodataset.org/#format-data (captions_train2017.json).

    Args:
        files: The files; the name of a split in a file name gives its split.
        root: The folder of the data set.
        collector: Where records and errors go.

    Raises:
        DataError: A file cannot be read.
    """
    for file in files:
        # captions_train2014.json, captions_val2017.json: the year is part of the folder's name
        name = file.stem.removeprefix("captions_")
        words = re.findall(r"[a-z]+", file.stem.lower())
        split = next((split for word in words if (split := split_of(word))), "")
        bases = (name, f"images/{name}", split, f"images/{split}" if split else "", "images", "Images", "")
        folder = CaptionImages(root, [base for base in bases if not base or (root / base).is_dir()])
        content = _json(file)
        images: dict[Any, str] = {}
        captions: dict[Any, list[Any]] = {}
        for number, item in enumerate(_list_of(content, "images", file)):
            image = _text(item, "file_name", number, collector, file=file)
            key = item.get("id")
            if image is None:
                continue
            if key is None or isinstance(key, list | dict) or key in images:
                text = expected("an image's id", "there, and used once", key)
                collector.error(text, record=image, field="id", file=file)
                continue
            images[key], captions[key] = image, []
        as_text = {str(key): key for key in images}
        seen: set[Any] = set()
        for number, item in enumerate(_list_of(content, "annotations", file)):
            owner, key = item.get("image_id"), item.get("id", f"number {number}")
            if isinstance(owner, list | dict) or owner not in images:
                owner = as_text.get(str(owner))
            if owner is None:
                text = f"Expected the id of an image in this file, but got {item.get('image_id')!r}."
                case = DataError(text, path=file, record=key, field="image_id")
                collector.seen["captions"] += 1
                collector.drop(collector.captions, "captions of no image left out", case)
            elif not isinstance(key, list | dict) and key in seen:
                text = "Expected each annotation id once, but it comes twice."
                collector.error(text, record=key, field="id", file=file)
            else:
                captions[owner].append(item.get("caption"))
                seen.add(key if not isinstance(key, list | dict) else number)
        for key, image in images.items():
            texts = [(text, str(key)) for text in captions[key]]
            collector.add(str(key), image, texts, split, folder, file=file)


def _json(file: Path) -> dict[str, Any]:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise DataError(f"Expected a json file: {error}.", path=file) from error
    if size > _MAX_BYTES:
        raise DataError(f"Expected at most {_MAX_BYTES} bytes, but got {size}.", path=file)
    content = read_json(file)
    if not isinstance(content, dict):
        raise DataError(expected("the json", "an object", type(content).__name__), path=file)
    return content


def _list_of(content: dict[str, Any], field: str, file: Path) -> list[dict[str, Any]]:
    values = content.get(field)
    if not isinstance(values, list) or not all(isinstance(item, dict) for item in values):
        raise DataError(f"Expected {field!r} to be a list of objects.", path=file, field=field)
    return values


def _text(
    item: dict[str, Any], field: str, index: int, collector: CaptionCollector, *, file: Path | None = None
) -> str | None:
    value = item.get(field)
    if isinstance(value, str) and value:
        return value
    collector.error(expected(field, "a file name", value), record=index, field=field, file=file)
    return None
