"""A folder of bounded size that shards are fetched into, shared by all processes of a machine.

A shard lies there under its MD5, complete or not at all. What was used longest ago goes first. Processes
agree by locks on files, which the system releases when one is killed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock

from visionkit.data.pack.layout import Shard, md5
from visionkit.errors import DataError, InputError, RunError, expected
from visionkit.files import PART, remove_parts, write_atomic, writing

__all__ = ["FetchAhead", "ShardCache", "fetch_file"]

_ATTEMPTS = 4
_PATIENCE = 600.0  # seconds that a process waits for room which others fetch into
_ROOM = ".room."
_WAIT = 0.5  # seconds before the second attempt, twice as many before each after it


class ShardCache:
    """The shards of a folder at an address, fetched when they are asked for, within a bound on the disk.

    Args:
        address: The folder of the pack, in any form that fsspec opens.
        folder: Where shards lie on this machine.
        max_bytes: Bound on the bytes of all shards in the folder, those being fetched included.

    Raises:
        InputError: The bound is not positive.
    """

    def __init__(self, address: str, folder: Path, max_bytes: int) -> None:
        if max_bytes < 1:
            raise InputError(expected("max_bytes", "at least 1", max_bytes))
        self.address, self.folder, self.max_bytes = address.rstrip("/"), folder, max_bytes

    def local(self, shard: Shard) -> Path:
        """Return the file of a shard on this machine.

        Args:
            shard: The shard, with MD5 and size.
        """
        return self.folder / f"{shard.md5sum}.tar"

    def get(self, shard: Shard) -> Path:
        """Return the file of a shard, which is fetched where it is not there.

        Raises:
            DataError: What came is not what the list says.
            RunError: It cannot be fetched, or written.
        """
        file = self.local(shard)
        if not self._touch(file, shard):
            with self._lock(shard.md5sum):
                if not self._touch(file, shard):
                    self._fetch(shard, file)
        return file

    def discard(self, shard: Shard) -> None:
        """Remove a shard whose bytes are damaged; the next `get` fetches it again."""
        with contextlib.suppress(FileNotFoundError):
            self.local(shard).unlink()

    def _touch(self, file: Path, shard: Shard) -> bool:
        """Return whether a shard is there, and note that it was used."""
        try:
            if file.stat().st_size != shard.filesize:
                return False
            os.utime(file)
        except FileNotFoundError:
            return False
        return True

    def _lock(self, name: str) -> FileLock:
        return FileLock(self.folder / f"{name}.lock")

    def _fetch(self, shard: Shard, file: Path) -> None:
        address = f"{self.address}/{shard.url}"
        # As large as the shard and empty: what is being fetched is counted before it is there.
        room = self.folder / f"{shard.md5sum}{_ROOM}{os.getpid()}{PART}"

        def write(part: Path) -> None:
            self._take_room(shard, room)
            fetch_file(address, part)
            now = md5(part)
            if now != shard.md5sum:
                text = f"Expected the MD5 {shard.md5sum}, but {now} came: the shard is damaged, or another."
                raise DataError(
                    f"{text} Look at the pack there, or pack again.", path=address, field="md5sum"
                )

        try:
            with writing(self.folder):
                write_atomic(file, write, durable=False)
        finally:
            room.unlink(missing_ok=True)

    def _take_room(self, shard: Shard, room: Path) -> None:
        """Reserve the bytes of a shard, once others that were used longer ago are gone."""
        end = time.monotonic() + _PATIENCE
        while True:
            with self._lock("room"):
                if self._make_room(shard.filesize):
                    with room.open("wb") as stream:
                        stream.truncate(shard.filesize)
                    return
            if time.monotonic() > end:
                raise RunError(
                    f"Expected room for {shard.filesize:,} bytes in {self.folder}, but other processes fetch "
                    f"into all of its {self.max_bytes:,}. Give a larger max_bytes."
                )
            time.sleep(0.05)

    def _make_room(self, size: int) -> bool:
        """Remove shards, the longest unused first, until another fits; return whether it does."""
        remove_parts(self.folder, own=False)
        counted: dict[Path, os.stat_result] = {}
        for each in self.folder.iterdir():
            if each.suffix == ".tar" or _ROOM in each.name:
                with contextlib.suppress(FileNotFoundError):
                    counted[each] = each.stat()
        total = size + sum(status.st_size for status in counted.values())
        shards = [each for each in counted if each.suffix == ".tar"]
        for each in sorted(shards, key=lambda file: counted[file].st_mtime_ns):
            if total <= self.max_bytes:
                break
            each.unlink(missing_ok=True)
            total -= counted[each].st_size
        return total <= self.max_bytes


class FetchAhead:
    """Fetches shards in a thread before they are asked for; one that fails is left to whoever asks for it.

    Args:
        cache: Where they go.
        shards: All shards, by number.
    """

    def __init__(self, cache: ShardCache, shards: Sequence[Shard]) -> None:
        self.cache, self.shards = cache, list(shards)
        self._wanted: list[int] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, numbers: Sequence[int]) -> None:
        """Fetch these shards, in order; those of an earlier call that are not there yet are given up."""
        with self._lock:
            self._wanted = list(numbers)
            if self._thread is None and self._wanted:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def __getstate__(self) -> dict[str, Any]:
        return {"cache": self.cache, "shards": self.shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["cache"], state["shards"])  # type: ignore[misc]

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                number = self._wanted.pop(0)
            with contextlib.suppress(DataError, RunError, OSError):
                self.cache.get(self.shards[number])


def fetch_file(address: str, file: Path) -> None:
    """Copy a file from an address of fsspec, in a few attempts.

    Args:
        address: The file, such as "s3://bucket/pack/train-00000.tar".
        file: Where it goes.

    Raises:
        DataError: There is no such file.
        RunError: It cannot be read.
    """
    for attempt in range(_ATTEMPTS):
        try:
            system, path = fsspec.core.url_to_fs(address)
            system.get_file(path, str(file))
            return
        except FileNotFoundError as error:
            raise DataError("Expected a file at this address, but there is none.", path=address) from error
        except (ImportError, ValueError) as error:
            raise InputError(f"Expected an address that fsspec opens, but {address}: {error}.") from error
        except Exception as error:  # each file system has its own
            if attempt == _ATTEMPTS - 1:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise RunError(
                    f"Expected to read {address}, but in {_ATTEMPTS} attempts: {reason}. Look whether it can "
                    "be reached; the same command goes on where it stopped."
                ) from error
            time.sleep(_WAIT * 2**attempt)
