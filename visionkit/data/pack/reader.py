"""Reader of packs: random access into memory-mapped shards, which all processes of a machine share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.data.formats.source import check_reader
from visionkit.data.pack.index import OFFERED, open_index
from visionkit.data.pack.layout import PARTS, PackSettings, Shard, is_pack, md5, read_pack
from visionkit.data.pack.record import UNREADABLE, check_value, decode_sample, read_json, unreadable
from visionkit.data.pack.tar import map_shard, members
from visionkit.data.pack.writer import pack_key
from visionkit.data.splits import Splits
from visionkit.errors import DataError, InputError
from visionkit.files import file_digest
from visionkit.notices import Notice
from visionkit.types import Reader, Sample

__all__ = [
    "PackedReader",
    "check_fields",
    "check_pack",
    "is_pack",
    "open_pack",
    "packed_splits",
    "split_columns",
]

_OF_ALL = ("shards", "files")  # columns that are not one entry a sample of a split


class PackedReader:
    """A reader of one split of a pack; made by `open_pack`.

    Every record is checked when it is read. It offers `ids`, the `sizes` of the originals, `labels` where
    each sample has one class, and `targets`, `object_counts` and `keypoint_counts` where the packed reader
    did.

    Args:
        folder: The pack.
        description: The content of its `pack.json`.
        shards: The shards of this split.
        columns: The index of this split.
    """

    labels: Sequence[int]
    targets: Sequence[Any]
    object_counts: Sequence[int]
    keypoint_counts: Sequence[Sequence[int]]

    def __init__(
        self, folder: Path, description: dict[str, Any], shards: Sequence[Shard], columns: dict[str, Any]
    ) -> None:
        self.folder = folder
        rows = columns["rows"]
        self.ids: Sequence[str] = columns["ids"]
        self.sizes: Sequence[tuple[int, int]] = list(zip(rows["height"].tolist(), rows["width"].tolist()))
        if (rows["label"] >= 0).all():
            self.labels = rows["label"].tolist()
        for name in OFFERED:
            if name in columns:
                setattr(self, name, columns[name] if OFFERED[name] is None else columns[name].tolist())
        self.recipe = f"{description['key']}|{description['content']}"
        self._form = description["settings"]["form"]
        self._shards = shards
        fields = ("shard", "offset", "length", "check")
        self._records = np.stack([rows[name].astype(np.uint64) for name in fields], axis=1)  # (N, 4)
        self._open: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Read sample `index`; raise `DataError` naming the shard when it is damaged."""
        shard, offset, length, check = self._records[index].tolist()
        mapped = self._open.get(shard)
        if mapped is None:
            mapped = self._open[shard] = self._map(shard)
        # Copied before it is looked at: the map is read once, and the sample's pixels are the copy's.
        record = mapped[offset : offset + length].copy()
        if check_value(record, self._form) != check:
            raise DataError(
                f"Expected the bytes that were packed for {self.ids[index]!r}, but they changed: the "
                "shard is damaged. Run the same `visionkit pack` again; it mends what is damaged.",
                path=self.folder / self._shards[shard].url,
                record=f"at byte {offset}",
                field="check",
            )
        try:
            parts = members(record)
            return decode_sample(parts, read_json(parts), self.ids[index])
        except UNREADABLE as error:
            raise unreadable(error, self.folder / self._shards[shard].url, self.ids[index]) from error

    def __getstate__(self) -> dict[str, Any]:
        # A process maps the files itself: pickled, their bytes would travel.
        return self.__dict__ | {"_open": {}}

    def _map(self, number: int) -> NDArray[np.uint8]:
        shard = self._shards[number]
        file = self.folder / shard.url
        try:
            size = file.stat().st_size
            if size != shard.filesize:
                raise OSError(f"it has {size:,} bytes and should have {shard.filesize:,}")
            return map_shard(file)
        except OSError as error:
            raise DataError(
                f"Expected a complete shard, but {error.strerror or error}. Run the same `visionkit pack` "
                "again; it mends what is damaged.",
                path=file,
                field="shard",
            ) from error


def open_pack(
    folder: str | os.PathLike[str], *, source: Splits | None = None, fields: Sequence[str] = ()
) -> Splits:
    """Return the splits of a pack.

    Where the files that it was made from are on this machine, they are compared with it: first their size
    and time, then, where the time differs, their content.

    Args:
        folder: The pack.
        source: The data set as it is now; names, labels and classes must be those of the pack too.
        fields: What its samples must have ("boxes", "mask").

    Raises:
        DataError: The pack is unfinished, damaged, or out of date: the file and both digests are named.
        InputError: Its samples lack a field.
    """
    path = Path(folder)
    description = read_pack(path)
    columns, shards, made = open_index(path, description)
    check_fields(path, description, fields)
    settings = description["settings"]
    now = description["key"] if source is None else pack_key(source, PackSettings(**settings))
    if source is not None and now != description["key"]:
        raise DataError(
            f"The pack is out of date: its digest is {description['key']}, that of {source.name!r} "
            f"is {now} now. Remove the folder and pack again.",
            path=path,
            field="key",
        )
    _compare_sources(path, columns.pop("files", ()), columns["rows"])
    readers = {
        name: PackedReader(path, description, shards[name], part)
        for name, part in split_columns(columns, shards).items()
    }
    splits = packed_splits(path, description, readers)
    if not made:
        return splits
    what = "index of the pack made again from its shards"
    notice = Notice(what, 1, 0, f"{path}: the files that it was made from are not compared with it")
    return replace(splits, notices=(*splits.notices, notice))


def split_columns(
    columns: Mapping[str, Any], shards: Mapping[str, Sequence[Shard]]
) -> dict[str, dict[str, Any]]:
    """Return the columns of each split of an index.

    Args:
        columns: Those of all samples.
        shards: The shards of each split, in the order of the columns.
    """
    parts: dict[str, dict[str, Any]] = {}
    start = 0
    for name, listed in shards.items():
        end = start + sum(shard.nsamples for shard in listed)
        parts[name] = {key: column[start:end] for key, column in columns.items() if key not in _OF_ALL}
        start = end
    return parts


def packed_splits(path: Path, description: Mapping[str, Any], readers: Mapping[str, Reader]) -> Splits:
    """Return the splits of a pack.

    Args:
        path: What errors name.
        description: The content of its `pack.json`.
        readers: The reader of each split.

    Raises:
        DataError: There are no training or no validation samples.
    """
    train, val, test = (readers.get(name) for name in PARTS)
    if train is None or val is None:
        raise DataError("Expected training and validation samples in the pack. Pack again.", path=path)
    settings = description["settings"]
    size_text = f"short side {settings['short']}" if settings["short"] else "full size"
    facts = {"packed": f"{settings['form']}, {size_text}", "pack": description["content"]}
    notices = tuple(Notice(**plain) for plain in description["notices"])
    classes = tuple(description["classes"])
    return Splits(train, val, test, classes, description["name"], description["facts"] | facts, notices)


def check_fields(path: str | Path, description: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Refuse a pack whose samples lack a field.

    Args:
        path: What the error names.
        description: The content of its `pack.json`.
        fields: What its samples must have.

    Raises:
        InputError: They lack one.
    """
    if not set(fields) <= set(description["fields"]):
        raise InputError(
            f"Expected a pack whose samples have {', '.join(fields)}, but {path} has "
            f"{', '.join(description['fields'])}. Pack a data set that has them."
        )


def check_pack(folder: str | os.PathLike[str]) -> list[DataError]:
    """Read a pack from end to end and return every error: shards by their digests, records by their checks.

    Args:
        folder: The pack.
    """
    path = Path(folder)
    try:
        splits = open_pack(path)
        _, lists, _ = open_index(path, read_pack(path))
    except DataError as error:
        return [error]
    errors: list[DataError] = []
    for shard in (shard for shards in lists.values() for shard in shards):
        file = path / shard.url
        now = md5(file) if file.is_file() else "missing"
        if now != shard.md5sum:
            text = f"Expected the MD5 {shard.md5sum}, but it is {now}. Pack again to mend it."
            errors.append(DataError(text, path=file, field="shard"))
    readers = [reader for reader in (splits.train, splits.val, splits.test) if reader is not None]
    return errors + [e for reader in readers for e in check_reader(reader) if e.field != "shard"]


def _compare_sources(pack: Path, files: Sequence[str], rows: NDArray[Any]) -> None:
    """Refuse a pack whose files have changed since; files that are not on this machine are not compared."""
    if not files or not Path(files[0]).parent.is_dir():
        return
    for file, size, time, digest in zip(
        files, *(rows[name].tolist() for name in ("bytes", "mtime", "digest"))
    ):
        try:
            status = os.stat(file)  # noqa: PTH116 (called for each image)
        except OSError:
            now = "missing"
        else:
            if (status.st_size, status.st_mtime_ns) == (size, time):
                continue
            now = file_digest(file, algorithm="blake2b-128")
        if now != digest.decode():
            raise DataError(
                f"The pack is out of date: {file} had the digest {digest.decode()}, now it is {now}. Remove "
                "the folder and pack again.",
                path=pack,
                field="digest",
            )
