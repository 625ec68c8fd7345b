"""Files of a pack: settings, the description `pack.json`, and the index of its records."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.data.pack.record import Form
from visionkit.errors import DataError, InputError, expected
from visionkit.files import write_atomic

__all__ = [
    "PACK_FORMAT",
    "ROW",
    "PackSettings",
    "is_pack",
    "read_index",
    "read_pack",
    "shard_name",
    "write_index",
]

PACK_FORMAT = 2

ROW = np.dtype([
    ("shard", "<i4"), ("offset", "<i8"), ("length", "<i8"), ("check", "<u8"),
    ("height", "<i4"), ("width", "<i4"), ("label", "<i8"),
    ("bytes", "<i8"), ("mtime", "<i8"), ("digest", "S32"),
])  # fmt: skip
"""A record: position, check value; size and class (-1: none) of the image; size, time, digest of the file."""


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
    except (ValueError, KeyError, TypeError, OSError) as error:
        text = f"Expected the description of a pack, but it cannot be read ({error}). Pack again."
        raise DataError(text, path=file) from error
    if version != PACK_FORMAT:
        raise DataError(expected("the format", PACK_FORMAT, version, fix="Pack again."), path=file)
    return description


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.bin"


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
    except (OSError, ValueError, KeyError, EOFError) as error:
        text = " ".join(str(error).split())
        raise DataError(f"Expected the index of a pack, but {text}. Pack again.", path=file) from error
