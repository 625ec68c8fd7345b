"""What a data set is made of: class counts, sizes of images and boxes, files that are in two splits."""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from visionkit.data.class_balance import pixel_counts
from visionkit.data.read_image import read_size
from visionkit.data.splits import Splits, Subset, fingerprint
from visionkit.errors import DataError
from visionkit.files import file_digest
from visionkit.printable import printable_values
from visionkit.types import Reader, Sample

__all__ = ["data_card", "data_key"]

_QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
_SMALL, _LARGE = 32.0**2, 96.0**2  # square pixels: COCO's limits of small and large objects
_EXAMPLES = 5  # files in two splits that are named


def data_card(splits: Splits, *, max_samples: int = 100, max_digests: int = 20_000) -> dict[str, Any]:
    """Return what a data set is made of, as plain values.

    Annotations are counted completely where the reader gives them without opening an image. Sizes of images
    are read from headers; class maps, and samples that are not files, have to be decoded.

    Args:
        splits: The data set.
        max_samples: Samples of a split that are opened at most, evenly spread; 0 opens all.
        max_digests: Files that are read at most to find those that are in two splits; 0 reads all.

    Returns:
        "name", "classes", "splits" (a table for each: images, classes, image and box sizes, captions, each
        with how many samples it is of, or an "error" where a sample cannot be read) and "duplicates".

    Raises:
        DataError: A file is not there.
    """
    readers = _readers(splits)
    parts = {name: _readable(reader, splits, max_samples) for name, reader in readers.items()}
    card = {
        "name": splits.name,
        "key": data_key(splits),
        "classes": list(splits.classes),
        "splits": parts,
        "duplicates": _duplicates(readers, max_digests),
    }
    plain: dict[str, Any] = printable_values(card)
    return plain


def data_key(splits: Splits) -> str:
    """Return a text that changes when the data set does, from the fingerprints of its splits."""
    return "-".join(fingerprint(reader)[:16] for reader in _readers(splits).values())


def _readers(splits: Splits) -> dict[str, Reader]:
    named = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {name: reader for name, reader in named.items() if reader is not None}


def _readable(reader: Reader, splits: Splits, max_samples: int) -> dict[str, Any]:
    try:
        return _split_card(reader, splits, max_samples)
    except DataError as error:
        return {"images": len(reader), "error": str(error)}


def _split_card(reader: Reader, splits: Splits, max_samples: int) -> dict[str, Any]:
    card: dict[str, Any] = {"images": len(reader)}
    if not len(reader):
        return card
    chosen = _spread(len(reader), max_samples)
    first = reader[0]
    samples: list[Sample] = []
    if "boxes" in first and _truth_source(reader, 0) is None:
        samples = [reader[index] for index in chosen]
    card |= {"sizes": _image_sizes(reader, chosen, samples)}
    if "boxes" in first:
        card |= _objects(reader, splits.classes, samples)
    elif "mask" in first:
        counts = pixel_counts(reader, len(splits.classes), max_samples=max_samples or len(reader)).tolist()
        card["classes"] = {"of": "pixels", "read": len(chosen), "counts": _named(counts, splits.classes)}
    elif "label" in first:
        card |= _labels(reader, splits.classes, chosen)
    if "captions" in first:
        texts = getattr(reader, "captions", None) or [reader[index]["captions"] for index in chosen]
        card["captions"] = _captions(texts)
    return card


def _spread(size: int, limit: int) -> list[int]:
    count = min(size, limit) if limit else size
    return [index * size // count for index in range(count)]


def _named(counts: Sequence[int], classes: Sequence[str]) -> dict[str, int]:
    return dict(zip(classes, map(int, counts), strict=True))


def _quantiles(values: Sequence[float] | np.ndarray[Any, Any]) -> list[float]:
    return [round(float(value), 3) for value in np.quantile(np.asarray(values, dtype=float), _QUANTILES)]


def _image_sizes(reader: Reader, chosen: Sequence[int], samples: Sequence[Sample]) -> dict[str, Any]:
    """Return widths and heights: known ones of all images, else those of some, from header or sample."""
    known = getattr(reader, "sizes", None)
    files = getattr(reader, "files", None)
    if known is not None:
        sizes = [(int(height), int(width)) for height, width in known]
    elif files is not None:
        sizes = [read_size(os.path.abspath(files[index])) for index in chosen]  # noqa: PTH100
    else:
        images = [each["image"] for each in samples or [reader[index] for index in chosen]]
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
    common = Counter(sizes).most_common(3)
    return {
        "read": len(sizes),
        "width": _quantiles([width for _, width in sizes]),
        "height": _quantiles([height for height, _ in sizes]),
        "common": [{"width": size[1], "height": size[0], "images": count} for size, count in common],
    }


def _truth_source(reader: Reader, index: int) -> tuple[Any, int] | None:
    """Return the reader below subsets that gives objects without an image, and the index in it."""
    below: Any = reader
    while isinstance(below, Subset):
        below, index = below.reader, below.indices[index]
    return (below, index) if hasattr(below, "truth") else None


def _objects(reader: Reader, classes: Sequence[str], samples: Sequence[Sample]) -> dict[str, Any]:
    counts, per_image, sides, areas = np.zeros(len(classes), dtype=np.int64), [], [], []
    read = 0
    for boxes, labels in _true_boxes(reader, samples):
        read += 1
        counts += np.bincount(labels, minlength=len(classes))
        per_image.append(len(labels))
        area = (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)
        areas.append(area)
        sides.append(np.sqrt(area))
    every, side = np.concatenate(areas), np.concatenate(sides)
    parts = {
        "small": int((every < _SMALL).sum()),
        "medium": int(((every >= _SMALL) & (every < _LARGE)).sum()),
        "large": int((every >= _LARGE).sum()),
    }
    boxes_card: dict[str, Any] = {"read": read, "objects": len(every), "per_image": _quantiles(per_image)}
    if len(every):
        boxes_card |= {"side": _quantiles(side), **parts}
    return {
        "classes": {"of": "objects", "read": read, "counts": _named(counts.tolist(), classes)},
        "boxes": boxes_card,
    }


def _true_boxes(
    reader: Reader, samples: Sequence[Sample]
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Yield boxes `(N, 4)` and labels `(N,)` of each image, crowds left out."""
    if samples:
        for sample in samples:
            alone = sample.get("iscrowd", torch.zeros_like(sample["labels"])) == 0
            yield sample["boxes"][alone].double().numpy(), sample["labels"][alone].numpy()
        return
    for index in range(len(reader)):
        source = _truth_source(reader, index)
        if source is not None:
            truth = source[0].truth(source[1])
            alone = truth["iscrowd"] == 0
            yield truth["boxes"][alone], truth["labels"][alone]


def _captions(texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {
        "read": len(texts),
        "sentences": sum(len(each) for each in texts),
        "per_image": _quantiles([len(each) for each in texts]),
        "words": _quantiles([len(text.split()) for each in texts for text in each] or [0]),
    }


def _labels(reader: Reader, classes: Sequence[str], chosen: Sequence[int]) -> dict[str, Any]:
    """Return the images of each class, of several classes an image, or the range of numbers."""
    labels = getattr(reader, "labels", None)
    if labels is not None:
        counts = np.bincount(np.asarray(list(labels), dtype=np.int64), minlength=len(classes)).tolist()
        return {"classes": {"of": "images", "read": len(labels), "counts": _named(counts, classes)}}
    targets = getattr(reader, "targets", None)
    if targets is None:
        targets = [reader[index]["label"].tolist() for index in chosen]
    table = np.asarray(list(targets), dtype=float).reshape(len(targets), -1)
    if table.shape[1] == len(classes) and ((table == 0) | (table == 1)).all():
        counts = table.sum(axis=0).astype(int).tolist()
        return {"classes": {"of": "images", "read": len(table), "counts": _named(counts, classes)}}
    names = (
        list(classes) if len(classes) == table.shape[1] else [f"target {i}" for i in range(table.shape[1])]
    )
    return {"targets": {name: _quantiles(table[:, column]) for column, name in enumerate(names)}}


def _duplicates(readers: Mapping[str, Reader], max_digests: int) -> dict[str, Any]:
    """Return the files of equal content in two splits.

    Only files of the same length can be equal: others are not read.
    """
    known = {
        name: list(files) for name, reader in readers.items() if (files := getattr(reader, "files", None))
    }
    if len(known) < 2:
        return {"looked": "no: the images are not files", "pairs": []}
    lengths = {name: _lengths(files) for name, files in known.items()}
    candidates: list[tuple[str, int]] = []
    for name, of_split in lengths.items():
        others = set().union(*(set(values) for other, values in lengths.items() if other != name))
        candidates += [
            (name, index) for index, length in enumerate(of_split) if length is not None and length in others
        ]
    # Small splits first: a limit then leaves out training files alone, as far as it can.
    candidates.sort(key=lambda item: (len(known[item[0]]), item))
    read = candidates[:max_digests] if max_digests else candidates
    content: dict[str, dict[str, list[int]]] = {name: defaultdict(list) for name in known}
    for name, index in read:
        content[name][file_digest(known[name][index], algorithm="blake2b-128")].append(index)
    total = sum(length is not None for of_split in lengths.values() for length in of_split)
    looked = (
        f"all {total:,} files"
        if len(read) == len(candidates)
        else (f"{len(read):,} of the {len(candidates):,} files that have the length of one in another split")
    )
    pairs = [_shared(readers, content, *pair) for pair in combinations(known, 2)]
    return {"looked": looked, "pairs": [each for each in pairs if each["images"]]}


def _shared(
    readers: Mapping[str, Reader], content: Mapping[str, Mapping[str, list[int]]], first: str, second: str
) -> dict[str, Any]:
    def ids(name: str, digest: str) -> str:
        index = content[name][digest][0]
        return str(getattr(readers[name], "ids", range(index + 1))[index])

    digests = [digest for digest in content[second] if digest in content[first]]
    return {
        "splits": [first, second],
        "images": sum(len(content[second][digest]) for digest in digests),
        "of": len(readers[second]),
        "examples": [[ids(first, digest), ids(second, digest)] for digest in digests[:_EXAMPLES]],
    }


def _lengths(files: Sequence[str]) -> list[int | None]:
    """Return the bytes of regular files; None for anything else, which is not read."""
    lengths: list[int | None] = []
    for file in files:
        try:
            status = os.stat(file)  # noqa: PTH116 (called for each image)
        except OSError as error:
            raise DataError(f"The file cannot be looked at: {error.strerror}.", path=file) from error
        lengths.append(status.st_size if stat.S_ISREG(status.st_mode) else None)
    return lengths
