"""Files of a pack: settings, the description `pack.json`, the lists of its shards, and their index.

pack.json          what the pack was made from: settings, classes, digests, facts
train.wids.json    the shards of a split, as `wids` (the index of WebDataset) lists them
train-00000.tar    a shard (see `record` for its members)
index.npz          where each sample lies; made again from the shards where it is missing
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.data.pack.record import Form
from visionkit.errors import DataError, InputError, expected
from visionkit.files import write_atomic, write_text
from visionkit.notices import Notice

__all__ = [
    "PACK_FORMAT",
    "PARTS",
    "ROW",
    "PackSettings",
    "Shard",
    "is_pack",
    "list_name",
    "md5",
    "read_index",
    "read_list",
    "read_pack",
    "shard_name",
    "write_index",
    "write_list",
]

PACK_FORMAT = 3
PARTS = ("train", "val", "test")

_DESCRIBED: dict[str, type] = {
    **dict.fromkeys(("key", "content", "name"), str), **dict.fromkeys(("settings", "splits", "facts"), dict),
    **dict.fromkeys(("classes", "fields", "notices"), list),
}  # fmt: skip
"""The fields of `pack.json` and their kinds."""

ROW = np.dtype([
    ("shard", "<i4"), ("offset", "<i8"), ("length", "<i8"), ("check", "<u8"),
    ("height", "<i4"), ("width", "<i4"), ("label", "<i8"),
    ("bytes", "<i8"), ("mtime", "<i8"), ("digest", "S32"),
])  # fmt: skip
"""A sample: place, check value; size and class (-1: none) of the image; size, time, digest of its file."""


@dataclass(frozen=True)
class PackSettings:
    """How images are stored.

    Args:
        short: Largest short side in pixels; larger images are shrunk, 0 shrinks none.
        form: "jpeg" copies files that need no shrinking and writes the others as JPEG; "raw" stores pixels.
        quality: Of the JPEGs that are written.
        records: Samples a shard.
    """

    short: int = 256
    form: Form = "jpeg"
    quality: int = 92
    records: int = 512

    def __post_init__(self) -> None:
        if self.short < 0:
            raise InputError(expected("short", "at least 1 pixel, or 0 for no shrinking", self.short))
        if self.form not in ("jpeg", "raw"):
            raise InputError(expected("form", "'jpeg' or 'raw'", self.form))
        if not 1 <= self.quality <= 100:
            raise InputError(expected("quality", "1 to 100", self.quality))
        if self.records < 1:
            raise InputError(expected("records", "at least 1 a shard", self.records))


@dataclass(frozen=True)
class Shard:
    """A shard as `wids` lists it.

    Args:
        url: Its file, from the folder of the list.
        nsamples: How many samples it holds.
        md5sum: The MD5 of its bytes in hexadecimal; "" where the list has none.
        filesize: Its bytes; -1 where the list does not say.
    """

    url: str
    nsamples: int
    md5sum: str = ""
    filesize: int = -1


def is_pack(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a finished pack."""
    return (Path(path) / "pack.json").is_file()


def read_pack(folder: Path) -> dict[str, Any]:
    """Return what `pack.json` holds.

    Raises:
        DataError: There is none, it is damaged, or of another format.
    """
    file = folder / "pack.json"
    try:
        description: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = int(description["format"])
    except FileNotFoundError as error:
        text = "Expected a finished pack, but there is no pack.json. Run `visionkit pack` to the end."
        raise DataError(text, path=folder) from error
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        text = f"Expected the description of a pack, but it cannot be read ({error}). Pack again."
        raise DataError(text, path=file) from error
    if version != PACK_FORMAT:
        fix = "Remove the folder and pack again."
        raise DataError(expected("the format of the pack", PACK_FORMAT, version, fix=fix), path=file)
    try:
        _check_description(description)
    except (ValueError, TypeError) as error:
        text = f"Expected the description of a pack, but {error}. Pack again."
        raise DataError(text, path=file) from error
    return description


def _check_description(description: Mapping[str, Any]) -> None:
    """Raise a ValueError or a TypeError where a field is missing or of another kind."""
    for name, kind in _DESCRIBED.items():
        if not isinstance(description.get(name), kind):
            raise ValueError(f"its field {name!r} is {description.get(name)!r}, no {kind.__name__}")
    sizes = description["splits"]
    if not sizes.keys() <= set(PARTS) or not all(isinstance(n, int) and n >= 0 for n in sizes.values()):
        raise ValueError(f"its splits are {sizes!r}, not numbers of samples of {', '.join(PARTS)}")
    PackSettings(**description["settings"])
    for notice in description["notices"]:
        Notice(**notice)


def shard_name(split: str, number: int) -> str:
    """Return the file name of a shard."""
    return f"{split}-{number:05d}.tar"


def list_name(split: str) -> str:
    """Return the file name of the list of a split's shards."""
    return f"{split}.wids.json"


def write_list(file: Path, name: str, shards: Sequence[Shard]) -> None:
    """Write the list of a split's shards as `wids` reads it, atomically."""
    listed = [asdict(shard) for shard in shards]
    spec = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": name, "shardlist": listed}
    write_text(file, json.dumps(spec, indent=1))


def read_list(file: Path) -> list[Shard]:
    """Return the shards that a list of `wids` names; each must be a file of the list's own folder.

    Raises:
        DataError: It cannot be read, or is no such list.
    """
    try:
        spec = json.loads(file.read_text(encoding="utf-8"))
        if spec["wids_version"] != 1:
            raise ValueError(f"its wids_version is {spec['wids_version']!r}, not 1")
        return [_listed(entry, file) for entry in spec["shardlist"]]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join((f"it lacks {error}" if isinstance(error, KeyError) else str(error)).split())
        text = f"Expected a list of shards as `wids` writes it, but {reason}. Write it again."
        raise DataError(text, path=file, field="shardlist") from error


def _listed(entry: Any, file: Path) -> Shard:
    url, count = entry["url"], entry["nsamples"]
    if not isinstance(url, str) or not url or Path(url).name != url or "\0" in url:
        text = f"Expected the name of a shard beside its list, but got {url!r}. Put both in one folder."
        raise DataError(text, path=file, field="url")
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"the shard {url} has {count!r} samples")
    return Shard(url, count, str(entry.get("md5sum", "")), int(entry.get("filesize", -1)))


def md5(file: Path) -> str:
    """Return the MD5 of a file in hexadecimal, which `wids` lists: it finds damage, no forgery."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def write_index(file: Path, columns: Mapping[str, Any]) -> None:
    """Write arrays and lists of texts as a .npz file, atomically."""
    arrays = {
        name: np.frombuffer(json.dumps(column).encode(), np.uint8) if isinstance(column, list) else column
        for name, column in columns.items()
    }

    def write(part: Path) -> None:
        with part.open("wb") as stream:  # numpy would append .npz to a path
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    write_atomic(file, write)


def read_index(file: Path) -> dict[str, Any]:
    """Return the arrays and lists of texts that `write_index` wrote; nothing in the file can run.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
        return {name: json.loads(a.tobytes()) if a.dtype == np.uint8 else a for name, a in columns.items()}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        text = " ".join(str(error).split())
        raise DataError(
            f"Expected the index of a pack, but {text}. Remove the file: it is made again.", path=file
        ) from error
