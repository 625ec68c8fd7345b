"""WebDataset shards of others: tar files whose members of one name and several endings are a sample.

Members that are read: an image (jpg, png, webp ..., also as image.jpg, img.jpg, input.jpg, or npy), cls (the
number of the class), mask.png or seg.png (the class map), txt (a caption), and of json the fields label,
captions, caption, boxes, labels, iscrowd, area and masks, as packs have them. Nothing is extracted; pickles
are never opened. To train often on a set, pack it: its samples are then at hand without a scan, and checked.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from visionkit.data.boxes import box_error
from visionkit.data.formats.box_splits import validation_split
from visionkit.data.formats.masks.label_map import LABEL_FILES, read_label_map
from visionkit.data.formats.source import Source, check_reader
from visionkit.data.formats.split_notices import MAX_HEADERS, evenly, frame_notices
from visionkit.data.formats.webdataset.scan import (
    MASKS,
    NEEDS,
    ShardRow,
    ShardScan,
    ShardTask,
    find_shards,
    read_lists,
    scan_shards,
)
from visionkit.data.pack.layout import Shard, md5
from visionkit.data.pack.record import IMAGE_EXTENSIONS, UNREADABLE, decode_sample, read_json, unreadable
from visionkit.data.pack.tar import map_shard, members
from visionkit.data.splits import HOLDOUT, Splits, holdout
from visionkit.errors import DataError
from visionkit.notices import MAX_DROPPED, Notice, NoticeCounter, check_notices
from visionkit.types import Reader, Sample

__all__ = ["ShardReader", "is_webdataset", "read_webdataset", "webdataset"]

_PICKLES = ("pyd", "pkl", "pickle", "pth", "pt")
Bytes = NDArray[np.uint8]
_MAX_CLASSES = 1 << 20
_FIELDS: dict[str, tuple[str, ...]] = {
    "classification": (),
    "detection": ("boxes", "labels", "iscrowd", "area"),
    "segmentation": (),
    "captioning": (),
}


class ShardReader:
    """A reader of one split of WebDataset shards; made by `webdataset`.

    It offers `ids`; for classification `labels`, for detection `object_counts`, for captioning `captions`.

    Args:
        files: The shards.
        rows: Where each sample lies, and its class, the labels of its objects or its captions.
        task: What it is read for.
        masks: Detection: give the masks of the objects, too.
        values: Segmentation: the class of each value of a mask, -1 for a value that means none.
    """

    labels: Sequence[int]
    captions: Sequence[Sequence[str]]
    object_counts: list[int]

    def __init__(
        self,
        files: Sequence[Path],
        rows: Sequence[ShardRow],
        task: ShardTask,
        *,
        masks: bool = False,
        values: NDArray[np.int16] | None = None,
    ) -> None:
        self.shards, self.rows, self.task, self.values = list(files), list(rows), task, values
        self.fields = (*_FIELDS[task], "masks") if masks else _FIELDS[task]
        self.ids: Sequence[str] = [row.key for row in rows]
        if len(set(self.ids)) < len(rows):  # the same names in several shards
            stems = [file.stem for file in self.shards]
            if len(set(stems)) < len(stems):  # and shards of one name in several folders
                stems = [f"{file.parent.name}/{file.stem}" for file in self.shards]
            self.ids = [f"{stems[row.file]}/{row.key}" for row in rows]
        if task == "classification":
            self.labels = [row.labels[0] for row in rows]
        elif task == "captioning":
            self.captions = [row.captions for row in rows]
        elif task == "detection":
            self.object_counts = [len(row.labels) for row in rows]
        known = repr([row[1:] for row in rows]).encode(errors="surrogatepass")
        self.recipe = f"webdataset {self.fields} {hashlib.blake2b(known, digest_size=16).hexdigest()}"
        self._open: dict[int, Bytes] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Read sample `index`; raise `DataError` naming shard and sample when it cannot be read."""
        row, name = self.rows[index], self.ids[index]
        file = self.shards[row.file]
        try:
            parts = self._members(row)
            plain = {each: value for each, value in read_json(parts).items() if each in self.fields}
            sample = decode_sample(_decoded_members(parts, self.task), plain, f"{file}, {name}")
            sample |= {"id": name, "size": (sample["image"].shape[1], sample["image"].shape[2])}
            self._annotate(sample, row)
        except UNREADABLE as error:
            raise unreadable(error, file, name) from error
        return sample

    def image_member(self, index: int) -> str:
        """Return the extension of a sample's image file; "" where there is none that can be read."""
        try:
            return next((each for each in self._members(self.rows[index]) if each in IMAGE_EXTENSIONS), "")
        except UNREADABLE:  # whoever reads the sample names it
            return ""

    def image_file(self, index: int) -> BinaryIO:
        """Return the content of a sample's image file.

        Raises:
            KeyError: It has none, or another of `UNREADABLE`.
        """
        return io.BytesIO(self._members(self.rows[index])[self.image_member(index)].tobytes())

    def __getstate__(self) -> dict[str, Any]:
        # A process maps the files itself: pickled, their bytes would travel.
        return self.__dict__ | {"_open": {}}

    def _members(self, row: ShardRow) -> dict[str, Bytes]:
        """Return the members of a sample, copied; a shard is mapped once."""
        if row.file not in self._open:
            self._open[row.file] = map_shard(self.shards[row.file])
        return members(self._open[row.file][row.offset : row.offset + row.length].copy())

    def _annotate(self, sample: Sample, row: ShardRow) -> None:
        """Add what the scan knows, and check what only the image tells."""
        if self.task == "classification":
            sample["label"] = torch.tensor(row.labels[0])
        elif self.task == "captioning":
            sample["captions"] = list(row.captions)
        elif self.task == "detection":
            for name, value in ((each, sample.get(each)) for each in self.fields):
                if value is None and name in ("boxes", "labels", "masks"):
                    raise ValueError(f"it has no {name}")
                if isinstance(value, torch.Tensor) and len(value) != len(row.labels):
                    raise ValueError(f"{name} are not {len(row.labels)}, one an object")
            for box in sample["boxes"].tolist():
                if text := box_error(box, sample["size"]):
                    raise ValueError(text)
        elif self.values is not None:
            classes = self.values[np.clip(sample["mask"].numpy(), 0, 65535)]
            if (classes < 0).any():
                value = int(sample["mask"][torch.from_numpy(classes < 0)][0])
                raise ValueError(f"the value {value} of the class map is in no line of the list of classes")
            sample["mask"] = torch.from_numpy(classes.astype(np.int64))


def webdataset(
    root: str | os.PathLike[str],
    task: ShardTask,
    *,
    masks: bool = False,
    classes: str = "",
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return the splits of WebDataset shards: `train-000.tar`, `val-000.tar` ..., or in `train/`, `val/`.

    A shard whose name and folder mean no split is of the training split. Without shards of validation a
    fifth of the training samples is held out. The headers of all members are read at once, images later.
    Names of classes are those of `classes.txt` beside the shards, otherwise the numbers themselves. Lists of
    `wids` that lie beside the shards are compared with them.

    Args:
        root: A folder of shards, or one shard; they must not be compressed.
        task: What they are read for.
        masks: Detection: give the masks of the objects, too.
        classes: A file with the names of the classes.
        seed: Seed of the hold-out.
        max_dropped: Largest fraction of samples without an image or annotation, which are left out.

    Raises:
        DataError: A shard is damaged or has members that no data set needs, an annotation cannot be read,
            or too many samples lack one.
    """
    source = read_webdataset(Path(root), task, masks=masks, classes=classes, seed=seed)
    return source.splits(max_dropped)


def is_webdataset(root: str | os.PathLike[str]) -> bool:
    """Return whether a path is a tar file or a folder of some; it never raises.

    Args:
        root: Any path.
    """
    try:
        return any(find_shards(Path(root)).values())
    except OSError:
        return False


def read_webdataset(
    root: Path, task: ShardTask, *, masks: bool = False, classes: str = "", seed: int = 0
) -> Source:
    """Scan shards; the arguments are those of `webdataset`.

    Raises:
        DataError: A shard is damaged or has members that no data set needs.
    """
    top = root if root.is_dir() else root.parent
    scans = {split: scan_shards(files, task) for split, files in find_shards(root).items() if files}
    lists = read_lists(scans)

    def errors(left_out: bool) -> list[DataError]:
        faults = [error for scan in scans.values() for error in scan.errors if left_out or not scan.rows]
        faults += [error for file, shard in lists.items() if (error := _md5_error(file, shard))]
        values = _classes(top, classes, scans, task)[1]
        readers = [ShardReader(s.files, s.rows, task, masks=masks, values=values) for s in scans.values()]
        return faults + [error for reader in readers for error in check_reader(reader)]

    def splits(max_dropped: float) -> Splits:
        names, values = _classes(top, classes, scans, task)
        counter = NoticeCounter(max_fraction=max_dropped)
        readers = {}
        for split, scan in scans.items():
            for error in scan.errors:
                counter.add(f"samples without an image or {NEEDS[task].split(' (')[0]} left out", error)
            for extension, count in scan.others.items():
                what = "pickles, never opened" if extension in _PICKLES else "members of other kinds not read"
                counter.add(what, scan.first[extension], count=count, harmless=True)
            readers[split] = ShardReader(scan.files, scan.rows, task, masks=masks, values=values)
        notices = counter.notices(sum(len(s.rows) + len(s.errors) for s in scans.values()))
        check_notices(notices, path=str(root))
        notices += _frames(list(readers.values()))
        if "train" not in readers:
            raise DataError("Expected a shard to train on, such as train-000.tar. Rename one.", path=root)
        train, val, held = _validation(readers, root, seed)
        facts = {"root": str(root), **held}
        return Splits(train, val, readers.get("test"), names, root.resolve().stem, facts, notices)

    return Source(splits, errors)


def _frames(readers: Sequence[ShardReader]) -> tuple[Notice, ...]:
    """Return the notice of images of several frames, as of files."""
    count = sum(map(len, readers))
    sources: dict[str, tuple[ShardReader, int]] = {}
    for chosen in evenly(range(count), MAX_HEADERS):
        index, reader = chosen, readers[0]
        for reader in readers:
            if index < len(reader):
                break
            index -= len(reader)
        row = reader.rows[index]
        name = f"{reader.shards[row.file]}, {row.key}.{reader.image_member(index)}"
        sources[name] = (reader, index)

    def read(name: str) -> BinaryIO:
        reader, index = sources[name]
        return reader.image_file(index)

    return frame_notices(sources, read=read, total=count if count > MAX_HEADERS else 0)


def _validation(
    readers: Mapping[str, ShardReader], root: Path, seed: int
) -> tuple[Reader, Reader, dict[str, Any]]:
    train, val = readers["train"], readers.get("val")
    if train.task == "detection":
        return validation_split(train, val, root, seed=seed, what="shards")
    if val is not None:
        if not len(val):
            raise DataError("Expected samples in the shards of validation, but there are none.", path=root)
        return train, val, {}
    remaining, held = holdout(train, HOLDOUT, seed=seed, path=root)
    return (
        remaining,
        held,
        {"held_out": f"there are no shards of validation: {len(held)} samples are held out"},
    )


def _decoded_members(parts: Mapping[str, Bytes], task: ShardTask) -> dict[str, Bytes]:
    """Return the members that a sample is made of: the image, and the class map where it is wanted."""
    content = {each: data for each, data in parts.items() if each in IMAGE_EXTENSIONS or each == "npy"}
    if task == "segmentation":
        content["mask.png"] = next(parts[each] for each in MASKS if each in parts)
    return content


def _classes(
    top: Path, classes: str, scans: Mapping[str, ShardScan], task: ShardTask
) -> tuple[tuple[str, ...], NDArray[np.int16] | None]:
    """Return the names of the classes, and for class maps the class of each value."""
    file = next((top / name for name in LABEL_FILES if (top / name).is_file()), None)
    file = Path(classes) if classes else file
    if task == "captioning":
        return (), None
    if task == "segmentation":
        if file is None:
            text = f"Expected {' or '.join(LABEL_FILES[:2])} with the names of the classes beside the shards."
            raise DataError(text, path=top)
        labels = read_label_map(file)
        return labels.classes, labels.table
    labels_of = [label for scan in scans.values() for row in scan.rows for label in row.labels]
    count = max(labels_of, default=-1) + 1
    if min(labels_of, default=0) < 0 or count > _MAX_CLASSES:
        text = f"Expected classes from 0 to {_MAX_CLASSES}, but got {min(labels_of)} to {count - 1}."
        raise DataError(text, path=top, field="cls")
    names = read_label_map(file).classes if file is not None else tuple(map(str, range(count)))
    if count > len(names):
        text = f"Expected classes below {len(names)}, as the list names them, but a sample has {count - 1}."
        raise DataError(text, path=file, field="cls")
    return names, None


def _md5_error(file: Path, shard: Shard) -> DataError | None:
    if not shard.md5sum or (now := md5(file)) == shard.md5sum:
        return None
    text = f"Expected the MD5 {shard.md5sum} as its list says, but it is {now}. Fetch the shard again."
    return DataError(text, path=file, field="md5sum")
