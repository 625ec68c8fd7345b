"""The scan of WebDataset shards: where each sample lies, its annotation, and what is not read."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from visionkit.data.pack.layout import Shard, read_list
from visionkit.data.pack.record import IMAGE_EXTENSIONS, UNREADABLE, read_json, unreadable
from visionkit.data.pack.tar import map_shard, members, scan_shard
from visionkit.data.splits import split_of
from visionkit.errors import DataError, printable

__all__ = [
    "MASKS",
    "NEEDS",
    "ShardRow",
    "ShardScan",
    "ShardTask",
    "find_shards",
    "first_task",
    "read_lists",
    "scan_shards",
]

Bytes = NDArray[np.uint8]
ShardTask = Literal["classification", "detection", "segmentation", "captioning"]

MASKS = ("mask.png", "seg.png")
"""Of members that are class maps, the first that is there."""

NEEDS: dict[str, str] = {
    "classification": "a class (cls, or label in json)",
    "detection": "boxes and labels (json)",
    "segmentation": "a class map (mask.png or seg.png)",
    "captioning": "a caption (txt, or captions in json)",
}
"""What a sample must have for a task."""

_KNOWN = {*IMAGE_EXTENSIONS, "npy", "json", "cls", "txt", *MASKS}
_MAX_LIST = 1 << 26  # bytes of a list of shards


class ShardRow(NamedTuple):
    """Where a sample lies, and what is known of it without its image.

    Args:
        file: Number of its shard.
        offset: Of its first member.
        length: Of all its members.
        key: Its name.
        labels: Its class, or those of its objects.
        captions: Its captions.
    """

    file: int
    offset: int
    length: int
    key: str
    labels: tuple[int, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass
class ShardScan:
    """The samples of a split, and what was not read of it.

    Args:
        files: Its shards.
        rows: Its samples.
        errors: Of the samples that lack an image or an annotation.
        others: How many members of other endings there are, by ending.
        first: The first of each ending.
        sizes: Samples of each shard.
    """

    files: list[Path]
    rows: list[ShardRow] = field(default_factory=list)
    errors: list[DataError] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)


def find_shards(root: Path) -> dict[str, list[Path]]:
    """Return the shards of each split, in the order of their names.

    Args:
        root: A folder of shards, or one shard.

    Raises:
        OSError: The folder cannot be listed.
    """
    if root.is_file():
        return {"train": [root] if root.suffix.lower() == ".tar" else []}
    shards: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for file in sorted(root.glob("*.tar")):
        splits = {split for word in re.split("[^A-Za-z]+", file.stem) if (split := split_of(word))}
        shards[splits.pop() if len(splits) == 1 else "train"].append(file)
    for folder in sorted(each for each in root.iterdir() if each.is_dir() and split_of(each.name)):
        shards[str(split_of(folder.name))] += sorted(folder.glob("*.tar"))
    return shards


def scan_shards(files: Sequence[Path], task: ShardTask) -> ShardScan:
    """Return the samples of some shards, and those that lack an image or the annotation of the task.

    Args:
        files: The shards.
        task: What they are read for.

    Raises:
        DataError: A shard is damaged, or has a member that no data set needs.
    """
    scan = ShardScan(list(files))
    for number, file in enumerate(files):
        spans, others = scan_shard(file)
        content, scan.sizes[number] = map_shard(file), len(spans)
        for span in spans:
            unknown = [each for each in span.extensions if each not in _KNOWN]
            _count(scan, unknown, f"{file}, record {printable(span.key)}")
            try:
                parts = members(content[span.offset : span.offset + span.length])
                labels, captions = _annotation(parts, task)
                row = ShardRow(number, span.offset, span.length, printable(span.key), labels, captions)
                scan.rows.append(row)
            except UNREADABLE as error:
                scan.errors.append(unreadable(error, file, span.key))
        _count(scan, [each.rpartition(".")[2].lower() for each in others], str(file))
    return scan


def _count(scan: ShardScan, extensions: Iterable[str], where: str) -> None:
    for extension in extensions:
        last = extension.rpartition(".")[2]
        scan.others[last] += 1
        scan.first.setdefault(last, f"{extension} in {where}")


def _annotation(parts: Mapping[str, Bytes], task: ShardTask) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the labels or the captions of a sample.

    Raises:
        ValueError: It lacks an image or what the task needs, or another of `UNREADABLE`.
    """
    if not any(each in IMAGE_EXTENSIONS or each == "npy" for each in parts):
        raise ValueError(f"it has no image, only {', '.join(parts)}")
    labels: tuple[int, ...] = ()
    captions: tuple[str, ...] = ()
    plain = read_json(parts)
    if task == "classification":
        label = int(parts["cls"].tobytes()) if "cls" in parts else plain.get("label")
        labels = (label,) if isinstance(label, int) else ()
    elif task == "detection" and "boxes" in plain:
        labels = tuple(plain["labels"])
        if all(isinstance(each, int) for each in labels) and len(labels) == len(plain["boxes"]):
            return labels, ()
        raise ValueError("its labels are not whole numbers, one a box")
    elif task == "captioning":
        text = parts["txt"].tobytes().decode().strip() if "txt" in parts else plain.get("caption")
        given = plain.get("captions", [text])
        captions = tuple(each for each in given if isinstance(each, str) and each.strip())
    elif task == "segmentation" and any(each in parts for each in MASKS):
        return (), ()
    if not labels and not captions:
        raise ValueError(f"it has no {NEEDS[task].removeprefix('a ')}, only {', '.join(parts)}")
    if labels and not 0 <= labels[0] < 2**31:
        raise ValueError(f"its class is {labels[0]}")
    return labels, captions


def first_task(files: Sequence[Path]) -> ShardTask:
    """Return the first task whose annotation the first sample has that has any; else classification.

    Args:
        files: The shards.

    Raises:
        DataError: A shard is damaged, or has a member that no data set needs.
    """
    tasks: tuple[ShardTask, ...] = get_args(ShardTask)
    for file in files:
        content = map_shard(file)
        for span in scan_shard(file)[0]:
            for task in tasks:
                with contextlib.suppress(*UNREADABLE):
                    _annotation(members(content[span.offset : span.offset + span.length]), task)
                    return task
    return tasks[0]


def read_lists(scans: Mapping[str, ShardScan]) -> dict[Path, Shard]:
    """Return what lists of `wids` beside the shards say of each, after comparing what they count.

    Args:
        scans: The scan of each split.

    Raises:
        DataError: A list cannot be read, a shard that it names is missing, or is another one.
    """
    listed: dict[Path, Shard] = {}
    for folder in {file.parent for scan in scans.values() for file in scan.files}:
        for each in sorted(folder.glob("*.json")):
            if each.stat().st_size < _MAX_LIST and "wids_version" in each.read_text("utf-8", "replace"):
                listed |= {folder / shard.url: shard for shard in read_list(each)}
    sizes = {scan.files[number]: count for scan in scans.values() for number, count in scan.sizes.items()}
    for file, shard in listed.items():
        if not file.is_file():
            raise DataError("Expected a shard that a list of wids names, but there is none.", path=file)
        size = file.stat().st_size
        if shard.filesize not in (-1, size) or shard.nsamples != sizes.get(file, shard.nsamples):
            text = (
                f"Expected {shard.nsamples:,} samples as its list says, but the shard is another one: it has "
            )
            text += f"{sizes.get(file, 0):,} in {size:,} bytes. Fetch it again, or write the list anew."
            raise DataError(text, path=file, field="nsamples")
    return listed
