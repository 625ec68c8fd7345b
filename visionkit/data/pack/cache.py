"""A folder of bounded size that shards are fetched into, shared by all processes of a machine.

A shard lies there under its MD5, complete or not at all. What was used longest ago goes first; files of other
names are neither counted nor removed. Processes agree by locks on files, which the system releases when one
is killed: what a killed process left is known by a lock that nobody holds, in containers too.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock, Timeout

from visionkit.data.pack.layout import Shard, md5
from visionkit.errors import DataError, InputError, RunError, expected
from visionkit.files import FULL, PART, write_atomic, writing

__all__ = ["FetchAhead", "ShardCache", "fetch_file"]

_ATTEMPTS = 4
_PATIENCE = 600.0  # seconds that a process waits for room which others fetch into
_SILENCE = 60.0  # seconds without a byte after which an attempt over http ends
_ROOM = f".room{PART}"
_SHARD = re.compile(r"[0-9a-f]{32}\.tar")
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
        if not self.touch(shard):
            with writing(self.folder), self._lock(shard.md5sum[:3]):  # not a file for each of a million
                if not self.touch(shard):
                    self._fetch(shard, file)
        return file

    def discard(self, shard: Shard) -> None:
        """Remove a shard whose bytes are damaged; the next `get` fetches it again."""
        with writing(self.folder):
            self.local(shard).unlink(missing_ok=True)

    def touch(self, shard: Shard) -> bool:
        """Return whether a shard is there, and note that it is used: others go before it."""
        file = self.local(shard)
        try:
            if file.stat().st_size != shard.filesize:
                return False
            os.utime(file)
        except FileNotFoundError:
            return False
        except OSError:  # a folder that may only be read
            return True
        return True

    def _lock(self, name: str) -> FileLock:
        return FileLock(self.folder / "locks" / f"{name}.lock")

    def _fetch(self, shard: Shard, file: Path) -> None:
        """Fetch a shard; the lock of its name is held, so what lies there in part was left by a kill."""
        address = f"{self.address}/{shard.url}"
        self._remove_left(shard.md5sum)
        # As large as the shard and empty: what is being fetched is counted before it is there.
        room = self.folder / f"{shard.md5sum}{_ROOM}"

        def write(part: Path) -> None:
            self._take_room(shard, room)
            now = ""
            for _ in range(2):  # a transfer may be cut or changed on the way
                fetch_file(address, part, max_bytes=shard.filesize)
                now = md5(part)
                if now == shard.md5sum:
                    return
            text = f"Expected the MD5 {shard.md5sum}, but {now} came: the shard is damaged, or another."
            raise DataError(f"{text} Look at the pack there, or pack again.", path=address, field="md5sum")

        try:
            write_atomic(file, write, durable=False)
        finally:
            with self._lock("room"):  # whoever counts sees the room or the shard
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
        for name in {part.name.partition(".")[0] for part in self.folder.glob(f"*.*{PART}")}:
            with contextlib.suppress(Timeout), self._lock(name[:3]).acquire(blocking=False):
                self._remove_left(name)
        counted: dict[Path, os.stat_result] = {}
        for each in self.folder.iterdir():
            if _SHARD.fullmatch(each.name) or each.name.endswith(_ROOM):
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

    def _remove_left(self, name: str) -> None:
        """Remove what a killed process left of a shard; the lock of its name is held."""
        for left in self.folder.glob(f"{glob.escape(name)}.*{PART}"):
            left.unlink(missing_ok=True)


class FetchAhead:
    """Fetches shards in a thread before they are asked for; one that fails is left to whoever asks for it.

    Args:
        cache: Where they go.
        shards: All shards, by number.
    """

    def __init__(self, cache: ShardCache, shards: Sequence[Shard]) -> None:
        self.cache, self.shards = cache, list(shards)
        self._begin()

    def _begin(self) -> None:
        self._queue: list[int] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def __call__(self, numbers: Sequence[int]) -> None:
        """Fetch these shards, in order; those of an earlier call that are not there yet are given up."""
        if self._process != os.getpid():  # forked: the thread is not here, its lock may be held for ever
            self._begin()
        with self._lock:
            self._queue = list(numbers)
            if self._thread is None and self._queue:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def __getstate__(self) -> dict[str, Any]:
        return {"cache": self.cache, "shards": self.shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["cache"], state["shards"])  # type: ignore[misc]

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._thread = None
                    return
                number = self._queue.pop(0)
            with contextlib.suppress(Exception):  # whoever asks for the shard meets it again, and names it
                self.cache.get(self.shards[number])


def fetch_file(address: str, file: Path, *, max_bytes: int) -> None:
    """Copy a file from an address of fsspec, in a few attempts.

    Args:
        address: The file, such as "s3://bucket/pack/train-00000.tar".
        file: Where it goes.
        max_bytes: The most that is taken; a longer file is refused before the disk holds it.

    Raises:
        DataError: There is no such file, or it is longer.
        RunError: It cannot be read.
        OSError: The disk is full, or the folder of the file is gone.
    """
    for attempt in range(_ATTEMPTS):
        try:
            # aiohttp would end every transfer after five minutes, however well it goes on.
            system, path = fsspec.core.url_to_fs(address, **_options(address))
            system.get_file(path, str(file), callback=_Limit(address, max_bytes))
            return
        except (DataError, RunError):
            raise
        except FileNotFoundError as error:
            if not file.parent.is_dir():
                raise
            raise DataError("Expected a file at this address, but there is none.", path=address) from error
        except (ImportError, ValueError) as error:
            raise InputError(f"Expected an address that fsspec opens, but {address}: {error}.") from error
        except Exception as error:  # each file system has its own
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            if attempt == _ATTEMPTS - 1:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise RunError(
                    f"Expected to read {address}, but in {_ATTEMPTS} attempts: {reason}. Look whether it can "
                    "be reached; the same command goes on where it stopped."
                ) from error
            time.sleep(_WAIT * 2**attempt)


class _Limit(fsspec.callbacks.Callback):
    """Ends a transfer of more bytes than were announced: a server may send without end."""

    def __init__(self, address: str, max_bytes: int) -> None:
        super().__init__()
        self.address, self.max_bytes = address, max_bytes

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        """Look at how many bytes came so far; fsspec calls it after each part."""
        if self.value > self.max_bytes:
            text = f"Expected {self.max_bytes:,} bytes at most, but more come: the file is another one. "
            raise DataError(f"{text}Look at the pack there, or pack again.", path=self.address, field="size")


def _options(address: str) -> dict[str, Any]:
    """Return what a file system is opened with, by the protocol of the address."""
    if not address.startswith(("http://", "https://")):
        return {}
    from fsspec.implementations.http import aiohttp  # fsspec[http] brings it

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
    return {"client_kwargs": {"timeout": timeout}}
