"""Shards: WebDataset's tar files, written member by member, scanned once, and read in place.

A sample is a run of members whose names differ only after the first dot of the last part of the path. Shards
are not trusted: nothing is ever extracted, and what no data set needs (links, devices, names that lead out of
the folder, a sample that comes twice, an end that is missing) is an error with its member.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from visionkit.errors import DataError, printable

__all__ = ["END", "Span", "map_shard", "members", "scan_shard", "tar_member"]

BLOCK = 512
END = b"\0" * (2 * BLOCK)
"""What a tar file ends with."""

Bytes = NDArray[np.uint8]

# Key and extension: the directory may have dots, the key none, as WebDataset splits names.
_NAME = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")
_SIZE = slice(124, 135)  # octal digits; a byte ends them
_KIND = 156
_PLAIN = (0, ord("0"))  # of a member that is a file, in old and new headers


class Span(NamedTuple):
    """Where a sample lies in its shard.

    Args:
        key: Its name, the same for all of its members.
        offset: Of the header of its first member.
        length: To the end of its last member, a multiple of 512.
        extensions: Of its members, in lower case.
    """

    key: str
    offset: int
    length: int
    extensions: tuple[str, ...]


def tar_member(name: str, data: bytes) -> bytes:
    """Return a file as a member of a tar: the same bytes at any time, for any user.

    Args:
        name: At most 100 characters of ASCII, which every reader of WebDataset understands.
        data: Its content.
    """
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o444
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % BLOCK)


def map_shard(file: Path) -> Bytes:
    """Return the bytes of a file `(N,)`, mapped: they are read when they are used, and shared by processes.

    Raises:
        OSError: It cannot be opened.
    """
    size = file.stat().st_size
    if not size:
        return np.zeros(0, np.uint8)
    try:  # Python's own maps keep a descriptor each, of which a process may have 1,024, or 256
        content: Bytes = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).numpy()
        content.flags.writeable = False
    except (RuntimeError, UnicodeEncodeError):  # whose maps count as memory, where that is strict
        # A plain view: every slice of a memmap would cost more than its check.
        return np.memmap(file, np.uint8, mode="r").view(np.ndarray)
    return content


def members(record: Bytes) -> dict[str, Bytes]:
    """Return the content of each member of a sample by its extension, without copying.

    Args:
        record: The bytes of the sample in its shard, whole.

    Raises:
        ValueError: They are no members of a tar.
    """
    content: dict[str, Bytes] = {}
    position, size, view = 0, len(record), record.data
    while position < size:
        header = bytes(view[position : position + _KIND + 1])
        if header[_KIND] not in _PLAIN:  # long names: rare, and left to the library
            return _parsed(record)
        length = int(header[_SIZE], 8)
        position += BLOCK
        if not 0 <= length <= size - position:
            raise ValueError("a member is longer than its sample")
        name = header[:100].partition(b"\0")[0].rpartition(b"/")[2]
        extension = name.partition(b".")[2].lower().decode("utf-8", "replace")
        content[extension] = record[position : position + length]
        position += length + -length % BLOCK
    return content


def _parsed(record: Bytes) -> dict[str, Bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(record.data), mode="r:") as archive:
            infos = [info for info in archive if info.isreg()]
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error
    content = {}
    for info in infos:
        parts = _NAME.fullmatch(info.name)
        if parts:
            content[parts[2].lower()] = record[info.offset_data : info.offset_data + info.size]
    return content


def scan_shard(file: Path) -> tuple[list[Span], list[str]]:
    """Return where each sample of a shard lies, and the members that belong to none.

    Headers alone are read.

    Args:
        file: A tar file that is not compressed.

    Raises:
        DataError: It is no tar file, ends too early, or has a member that no data set needs.
    """
    try:
        with file.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            spans, others = _grouped(file, archive)
            _check_end(file, archive.offset)
    except DataError:
        raise
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        text = f"Expected a whole tar file that is not compressed, but {reason}. Fetch or write it again."
        raise DataError(text, path=file, field="shard") from error
    return spans, others


def _grouped(file: Path, archive: tarfile.TarFile) -> tuple[list[Span], list[str]]:
    spans: list[Span] = []
    others: list[str] = []
    seen: set[str] = set()
    key, start, end, extensions = "", 0, 0, list[str]()
    for info in _each(archive):
        parts = _checked(file, info)
        if parts is None:
            others.append(info.name)
            continue
        if parts[0] != key or not extensions:
            _close(spans, key, start, end, extensions)
            if parts[0] in seen:
                raise _twice(file, info.name, "another sample stands in between")
            seen.add(parts[0])
            key, start, extensions = parts[0], info.offset, []
        if parts[1] in extensions:
            raise _twice(file, info.name, "it has two members of one name")
        extensions.append(parts[1])
        end = info.offset_data + info.size + -info.size % BLOCK
    _close(spans, key, start, end, extensions)
    return spans, others


def _each(archive: tarfile.TarFile) -> Iterable[tarfile.TarInfo]:
    while (info := archive.next()) is not None:
        yield info
        archive.members = []  # type: ignore[attr-defined]  # or a large shard's are all kept


def _close(spans: list[Span], key: str, start: int, end: int, extensions: list[str]) -> None:
    if extensions:
        spans.append(Span(key, start, end - start, tuple(extensions)))


def _checked(file: Path, info: tarfile.TarInfo) -> tuple[str, str] | None:
    """Return key and extension of a member, None for one that belongs to no sample."""
    name = info.name
    if info.isdir() or (info.isreg() and _META.match(name)):
        return None
    if not info.isreg() or info.issparse():
        kind = "a link" if info.islnk() or info.issym() else "no plain file"
        text = f"Expected the members of a shard to be files, but this is {kind}. Write the shard without it."
        raise DataError(text, path=file, record=printable(name), field="member")
    if name.startswith("/") or "\0" in name or ".." in name.split("/"):
        text = "Expected a name inside the shard, but it leads out of it. Write the shard without it."
        raise DataError(text, path=file, record=printable(name), field="member")
    parts = _NAME.fullmatch(name)
    return None if parts is None else (parts[1], parts[2].lower())


def _twice(file: Path, name: str, how: str) -> DataError:
    text = f"Expected each sample once, its members one after another, but {how}. Write the shard again."
    return DataError(text, path=file, record=printable(name), field="key")


def _check_end(file: Path, offset: int) -> None:
    """Refuse a file that ends without the two empty blocks: what came after may be missing."""
    with file.open("rb") as stream:
        stream.seek(offset)
        if stream.read(2 * BLOCK) != END:
            raise ValueError("it ends without the two empty blocks that end a tar: it is cut short")
