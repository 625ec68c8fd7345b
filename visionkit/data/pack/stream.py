"""Packs read from elsewhere: sets larger than the disk, fetched shard by shard while a run goes on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.data.pack.cache import FetchAhead, ShardCache, fetch_file
from visionkit.data.pack.index import INDEX, open_index
from visionkit.data.pack.layout import PARTS, Shard, list_name, read_pack
from visionkit.data.pack.reader import PackedReader, check_fields, packed_splits, split_columns
from visionkit.data.pack.tar import map_shard
from visionkit.data.splits import Splits
from visionkit.errors import DataError, InputError, RunError, expected
from visionkit.files import local_path, write_atomic, writing
from visionkit.types import Sample

__all__ = ["StreamedReader", "check_stream", "open_stream"]

_ATTEMPTS = 5
_MAX_DESCRIPTION = 1 << 32  # bytes of a file that describes a pack: a server may send without end


class StreamedReader(PackedReader):
    """A reader of one split of a pack that lies elsewhere; made by `open_stream`.

    Args:
        folder: Where its description lies on this machine.
        description: The content of its `pack.json`.
        shards: The shards of this split.
        columns: The index of this split.
        cache: Where shards are fetched to.
        window: Shards whose samples a training order mixes.
        in_order: It is read from the first sample to the last, so the next shard is fetched ahead.
    """

    def __init__(
        self,
        folder: Path,
        description: dict[str, Any],
        shards: Sequence[Shard],
        columns: dict[str, Any],
        *,
        cache: ShardCache,
        window: int,
        in_order: bool = False,
    ) -> None:
        super().__init__(folder, description, shards, columns)
        self.cache, self.window, self.in_order = cache, window, in_order
        self.shard_numbers: list[int] = columns["rows"]["shard"].tolist()
        self.recipe += f"|window {window}"
        self.fetch = FetchAhead(cache, shards)

    def __getitem__(self, index: int) -> Sample:
        """Read sample `index`; a shard whose bytes changed on this machine is fetched again, once."""
        try:
            return super().__getitem__(index)
        except DataError as error:
            if error.field != "check":
                raise
        number = self.shard_numbers[index]
        self._open.pop(number, None)
        self.cache.discard(self._shards[number])
        return super().__getitem__(index)

    def is_open(self, number: int) -> bool:
        """Return whether a shard is at hand: fetched, and mapped by this process.

        Args:
            number: Its number within the split.
        """
        return number in self._open

    def _map(self, number: int) -> NDArray[np.uint8]:
        # A map keeps the space of a file that was removed: such maps go, and no more are held than an order
        # needs. Those in use are noted as used now, so that other shards are removed first.
        held = [each for each in list(self._open) if self.cache.touch(self._shards[each])]
        for each in self._open.keys() - held[max(0, len(held) - self.window + 1) :]:
            self._open.pop(each, None)
        if self.in_order and number + 1 < len(self._shards):
            self.fetch([number + 1])
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):  # removed between the two by another process
                return map_shard(self.cache.get(self._shards[number]))
        raise RunError(
            f"Expected {self._shards[number].url} to stay in {self.cache.folder} until it is read, but other "
            "processes remove it. Give a larger max_bytes."
        )


def open_stream(
    address: str,
    cache: str | Path,
    *,
    max_bytes: int,
    window: int = 8,
    fields: Sequence[str] = (),
) -> Splits:
    """Return the splits of a pack at an address, whose shards are fetched while they are read.

    The training order mixes the samples of `window` shards at a time (`ShardBatchSampler`); it is a function
    of (seed, epoch), the same for any number of processes, and a run resumes with the batch that came next.
    Shards are fetched ahead of it, checked by their MD5, and shared by all processes of the machine.

    Args:
        address: The folder of the pack, in any form that fsspec opens: "s3://bucket/photos.pack", "https://…".
        cache: A folder on this machine; shards that lie there already are used.
        max_bytes: Bound on the bytes of the shards there. Processes hold up to `window` shards each that
            were removed meanwhile.
        window: Shards whose samples are mixed. It is part of the order: keep it to repeat a run.
        fields: What its samples must have ("boxes", "mask").

    Raises:
        DataError: There is no pack, or a file of it is damaged.
        InputError: An address that fsspec cannot open, samples that lack a field, or too small a bound.
        RunError: It cannot be reached.
    """
    if window < 1:
        raise InputError(expected("window", "at least 1 shard", window))
    top = local_path(cache, "a folder for fetched shards")
    digest = hashlib.blake2b(address.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    folder, shards_folder = top / f"pack-{digest}", top / "shards"
    with writing(top):
        folder.mkdir(parents=True, exist_ok=True)
        (shards_folder / "locks").mkdir(parents=True, exist_ok=True)
    description = _fetch_description(address.rstrip("/"), folder)
    check_fields(address, description, fields)
    columns, shards, _ = open_index(folder, description)
    _check_bound(max_bytes, window, shards)
    store = ShardCache(address, shards_folder, max_bytes)
    readers = {
        name: StreamedReader(
            folder, description, shards[name], part, cache=store, window=window, in_order=name != "train"
        )
        for name, part in split_columns(columns, shards).items()
    }
    return packed_splits(folder, description, readers)


def check_stream(address: str, cache: str | Path, *, max_bytes: int, window: int = 8) -> list[DataError]:
    """Read a pack at an address from end to end and return every error; of a shard that cannot be had one.

    Args:
        address: The folder of the pack.
        cache: A folder on this machine.
        max_bytes: Bound on the bytes of the shards there.
        window: Shards that a process holds open.

    Raises:
        RunError: It cannot be reached.
    """
    try:
        splits = open_stream(address, cache, max_bytes=max_bytes, window=window)
    except DataError as error:
        return [error]
    errors = []
    for reader in (splits.train, splits.val, splits.test):
        if isinstance(reader, StreamedReader):
            reader.in_order = True
            errors += _check_shards(reader)
    return errors


def _check_shards(reader: StreamedReader) -> list[DataError]:
    """Read every sample in order; of a shard that cannot be fetched one is asked for, and one error kept."""
    errors: list[DataError] = []
    gone = -1
    for index, number in enumerate(reader.shard_numbers):
        if number == gone:
            continue
        try:
            reader[index]
        except DataError as error:
            errors.append(error)
            gone = gone if reader.is_open(number) else number
    return errors


def _fetch_description(address: str, folder: Path) -> dict[str, Any]:
    """Fetch what describes a pack; return the content of its `pack.json`."""

    def fetch(name: str) -> None:
        with writing(folder):
            write_atomic(
                folder / name, lambda part: fetch_file(f"{address}/{name}", part, max_bytes=_MAX_DESCRIPTION)
            )

    fetch("pack.json")
    description = read_pack(folder)
    for name in (*(list_name(split) for split in PARTS if split in description["splits"]), INDEX):
        fetch(name)
    return description


def _check_bound(max_bytes: int, window: int, shards: Mapping[str, Sequence[Shard]]) -> None:
    """Refuse a bound that cannot hold two windows: shards would go before they are read."""
    sizes = sorted((shard.filesize for listed in shards.values() for shard in listed), reverse=True)
    needed = sum(sizes[: 2 * window + 1])
    if max_bytes < needed:
        raise InputError(
            f"Expected max_bytes to be at least {needed:,}, which two windows of {window} shards and one "
            f"more take, but got {max_bytes:,}. Give more, or take a smaller window."
        )
