"""What a pack is on disk: shards of records, an index of arrays, and `pack.json`, which is written last."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionkit.data.pack.record import Form
from visionkit.errors import DataError, InputError, expected
from visionkit.files import write_atomic

__all__ = [
    "COLUMNS",
    "PACK_FORMAT",
    "Arrays",
    "PackSettings",
    "is_pack",
    "open_index",
    "pack_texts",
    "read_pack",
    "save_arrays",
    "shard_name",
    "unpack_texts",
    "write_bytes",
]

PACK_FORMAT = 1
COLUMNS: tuple[str, ...] = (
    *("shard", "offset", "length", "check", "height", "width"),
    *("bytes", "mtime", "digest"),
)
"""What the index holds of each sample: where it is, its check value, its original's size; and of the file
that it came from: bytes, time, digest."""

Arrays: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class PackSettings:
    """How images are kept.

    Args:
        short: Largest short side in pixels; larger images are shrunk, 0 shrinks none.
        form: "jpeg" keeps files that need no shrinking as they are and writes the others as JPEG; "raw"
            keeps pixels.
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

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


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
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        form = int(found["format"])
    except FileNotFoundError as error:
        text = "Expected a finished pack, but there is no pack.json. Run `visionkit pack` to the end."
        raise DataError(text, path=folder) from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        text = f"Expected the description of a pack, but it cannot be read ({error}). Pack again."
        raise DataError(text, path=file) from error
    if form != PACK_FORMAT:
        raise DataError(expected("the format", PACK_FORMAT, form, fix="Pack again."), path=file)
    return found


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.bin"


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays as an index file, atomically."""

    def write(part: Path) -> None:
        with part.open("wb") as stream:  # numpy would append .npz to a path
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    write_atomic(path, write)


def write_bytes(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file part by part, atomically."""

    def write(part: Path) -> None:
        with part.open("wb") as stream:
            stream.writelines(parts)

    write_atomic(path, write)


def pack_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Return texts as an array of bytes."""
    return np.frombuffer(json.dumps(list(texts), ensure_ascii=False).encode(), np.uint8)


def unpack_texts(array: NDArray[np.uint8]) -> list[str]:
    """Return the texts of such an array."""
    texts: list[str] = json.loads(array.tobytes())
    return texts


def open_index(file: Path) -> Arrays:
    """Return the arrays of an index file; nothing in it can run.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"Expected the index of a pack, but {said}. Pack again.", path=file) from error
