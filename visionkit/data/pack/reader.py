"""Read a pack: random access into mapped files, which all processes of a machine share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.data.pack.layout import (
    Arrays,
    PackSettings,
    is_pack,
    open_index,
    read_pack,
    unpack_texts,
)
from visionkit.data.pack.record import check_value, decode_record
from visionkit.data.pack.writer import PARTS, pack_key
from visionkit.data.splits import Splits
from visionkit.errors import DataError, InputError
from visionkit.files import file_digest
from visionkit.notices import Notice
from visionkit.types import Sample

__all__ = ["PackedReader", "check_pack", "is_pack", "open_pack"]


class PackedReader:
    """A reader of one split of a pack; made by `open_pack`.

    Every record is checked when it is read. It offers `labels` where each sample has one class, `ids`,
    `sizes`, the originals', and `targets` and `object_counts` where the source did when it was packed.

    Args:
        folder: The pack.
        described: What its `pack.json` holds.
        arrays: The index of this split.
    """

    labels: Sequence[int]

    def __init__(self, folder: Path, described: dict[str, Any], arrays: Arrays) -> None:
        self.folder = folder
        self.ids: Sequence[str] = arrays["ids"].tolist()
        self.sizes: Sequence[tuple[int, int]] = list(zip(arrays["height"].tolist(), arrays["width"].tolist()))
        if "labels" in arrays:
            self.labels = arrays["labels"].tolist()
        if "targets" in arrays:
            self.targets: Sequence[Any] = arrays["targets"].tolist()
        if "object_counts" in arrays:
            self.object_counts: Sequence[int] = arrays["object_counts"].tolist()
        self.recipe = f"{described['key']}|{described['content']}"
        self._form = described["settings"]["form"]
        self._shards = described["shards"]
        self._where = arrays["shard"], arrays["offset"], arrays["length"], arrays["check"]
        self._open: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Read sample `index`; raise `DataError` naming the shard when it is damaged."""
        shard, offset, length, check = (int(column[index]) for column in self._where)
        mapped = self._open.get(shard)
        if mapped is None:
            mapped = self._open[shard] = self._map(shard)
        record = mapped[offset : offset + length]
        if check_value(record, self._form) != check:
            raise DataError(
                f"Expected the bytes that were packed for {self.ids[index]!r}, but they changed: the "
                "shard is damaged. Run the same `visionkit pack` again; it mends what is damaged.",
                path=self.folder / self._shards[shard]["name"],
                record=f"at byte {offset}",
                field="check",
            )
        return decode_record(record, self.ids[index])

    def __getstate__(self) -> dict[str, Any]:
        # A process maps the files itself: sent along, their bytes would travel.
        return self.__dict__ | {"_open": {}}

    def _map(self, number: int) -> NDArray[np.uint8]:
        shard = self._shards[number]
        file = self.folder / shard["name"]
        try:
            size = file.stat().st_size
            if size != shard["bytes"]:
                raise OSError(f"it has {size:,} bytes and should have {shard['bytes']:,}")
            # A plain view: every slice of a memmap would cost more than its check.
            return np.memmap(file, np.uint8, mode="r").view(np.ndarray)
        except OSError as error:
            raise DataError(
                f"Expected a whole shard, but {error.strerror or error}. Run the same `visionkit pack` "
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
    place = Path(folder)
    described = read_pack(place)
    arrays = open_index(place / "index.npz")
    lacking = [field for field in fields if field not in described["fields"]]
    if lacking:
        raise InputError(
            f"Expected a pack whose samples have {', '.join(fields)}, but {place} has "
            f"{', '.join(described['fields'])}. Pack a data set that has them."
        )
    if source is not None:
        now = pack_key(source, PackSettings(**described["settings"]))
        if now != described["key"]:
            raise DataError(
                f"The pack is out of date: its digest is {described['key']}, that of {source.name!r} "
                f"is {now} now. Remove the folder and pack again.",
                path=place,
                field="key",
            )
    ids = np.array(unpack_texts(arrays.pop("ids")), dtype=object)
    files = unpack_texts(arrays.pop("files")) if "files" in arrays else []
    _compare_sources(place, files, arrays)
    readers: dict[str, PackedReader] = {}
    start = 0
    for name, size in described["splits"].items():
        part = {key: column[start : start + size] for key, column in arrays.items()}
        readers[name] = PackedReader(place, described, part | {"ids": ids[start : start + size]})
        start += size
    settings = described["settings"]
    kept = f"short side {settings['short']}" if settings["short"] else "full size"
    facts = described["facts"] | {"packed": f"{settings['form']}, {kept}", "pack": described["content"]}
    train, val, test = (readers.get(name) for name in PARTS)
    if train is None or val is None:
        raise DataError("Expected training and validation samples in the pack. Pack again.", path=place)
    notices = tuple(Notice(**plain) for plain in described.get("notices", ()))
    return Splits(train, val, test, tuple(described["classes"]), described["name"], facts, notices)


def check_pack(folder: str | os.PathLike[str]) -> list[DataError]:
    """Read a pack from end to end and return every fault: shards by their digests, records by their checks.

    Args:
        folder: The pack.
    """
    place = Path(folder)
    try:
        described, splits = read_pack(place), open_pack(place)
    except DataError as fault:
        return [fault]
    faults: list[DataError] = []
    for shard in described["shards"]:
        file = place / shard["name"]
        now = file_digest(file, algorithm="blake2b-128") if file.is_file() else "missing"
        if now != shard["blake2b"]:
            text = f"Expected the digest {shard['blake2b']}, but it is {now}. Pack again to mend it."
            faults.append(DataError(text, path=file, field="shard"))
    for reader in (splits.train, splits.val, splits.test):
        for index in range(0 if reader is None else len(reader)):
            try:
                reader[index]  # type: ignore[index]
            except DataError as fault:
                if fault.field != "shard":
                    faults.append(fault)
    return faults


def _compare_sources(place: Path, files: Sequence[str], arrays: Arrays) -> None:
    """Refuse a pack whose files have changed since; files that are not on this machine are not asked."""
    if not files or not Path(files[0]).parent.is_dir():
        return
    rows = zip(files, arrays["bytes"].tolist(), arrays["mtime"].tolist(), arrays["digest"].tolist())
    for file, size, time, digest in rows:
        try:
            found = os.stat(file)  # noqa: PTH116 (called for each image)
        except OSError:
            now = "missing"
        else:
            if (found.st_size, found.st_mtime_ns) == (size, time):
                continue
            now = file_digest(file, algorithm="blake2b-128")
        if now != digest.decode():
            raise DataError(
                f"The pack is out of date: {file} had the digest {digest.decode()}, now it is {now}. Remove "
                "the folder and pack again.",
                path=place,
                field="digest",
            )
