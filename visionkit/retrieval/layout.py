"""The files of an index: vectors in .npy shards, a .jsonl of names beside each, and `index.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.errors import DataError, InputError, expected
from visionkit.files import file_digest, local_path, write_atomic, write_text

__all__ = [
    "INDEX_FORMAT",
    "Row",
    "Shard",
    "is_index",
    "read_manifest",
    "read_shard",
    "shard_name",
    "write_shard",
]

INDEX_FORMAT = 1
MANIFEST = "index.json"
PENDING = "pending.json"
_FIELDS = ("format", "metric", "dim", "count", "encoder", "shards")
_AGAIN = "Run the same `visionkit index` again into an empty folder."


@dataclass(frozen=True)
class Row:
    """An image of an index.

    Args:
        name: Its name in the data set, or its path as given.
        path: Its file, absolute; empty where it is none.
        split: "train", "val" or "test"; empty for images that are no data set.
        label: Name of its class; empty where it has none or more than one.
        digest: SHA-256 of its file, or of its pixels where there is none.
    """

    name: str
    path: str
    split: str
    label: str
    digest: str

    @property
    def key(self) -> str:
        """Return what tells it from the others: its file, or its name in its split."""
        return self.path or f"{self.split}:{self.name}"


@dataclass(frozen=True)
class Shard:
    """Some rows of an index.

    Args:
        vectors: `(n, D)` float32, mapped from the disk.
        rows: The images, one a vector.
        unread: Images that could not be read, with the error.
    """

    vectors: NDArray[np.float32]
    rows: list[Row]
    unread: list[tuple[str, str]]


def is_index(folder: str | Path) -> bool:
    """Return whether a folder is a finished index."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return what `index.json` holds.

    Args:
        folder: The index.

    Raises:
        InputError: There is nothing.
        DataError: It is unfinished, damaged, or of another version.
    """
    path = local_path(folder, "an index")
    if not path.is_dir():
        what = "is a file" if path.exists() else "is not there"
        raise InputError(
            f"Expected an index, a folder that `visionkit index` wrote, but {path} {what}. Write one: "
            "visionkit index IMAGES --backbone NAME --out DIR."
        )
    if not is_index(path):
        unfinished = (path / PENDING).is_file()
        what = "an unfinished one. Run the same `visionkit index` again."
        if not unfinished:
            what = f"a folder without {MANIFEST}. Give the --out of a `visionkit index`."
        raise DataError(f"Expected a finished index, but this is {what}", path=path)
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        text = (
            f"Expected the description of an index, but it cannot be read ({type(error).__name__}: {error})."
        )
        raise DataError(f"{text} {_AGAIN}", path=path / MANIFEST) from error
    if version != INDEX_FORMAT:
        raise DataError(
            expected("the version of the index", INDEX_FORMAT, version, fix=_AGAIN),
            path=path / MANIFEST,
            field="format",
        )
    missing = [name for name in _FIELDS if name not in manifest]
    if missing:
        raise DataError(f"Expected a field {missing[0]!r}. {_AGAIN}", path=path / MANIFEST)
    return dict(manifest)


def shard_name(number: int) -> str:
    """Return the file name of a shard's vectors."""
    return f"vectors-{number:05d}.npy"


def write_shard(
    file: Path, vectors: NDArray[np.float32], rows: Sequence[Row], unread: Sequence[tuple[str, str]]
) -> None:
    """Write a shard: the vectors, and then the names, whose first line has the digest of the vectors.

    Args:
        file: The .npy file.
        vectors: `(n, D)`.
        rows: One a vector.
        unread: Images that could not be read, with the error.
    """

    def write(part: Path) -> None:
        with part.open("wb") as stream:  # numpy would append .npy to a path
            np.save(stream, vectors, allow_pickle=False)

    write_atomic(file, write)
    head = {"rows": len(rows), "sha256": file_digest(file), "unread": [list(each) for each in unread]}
    lines = [json.dumps(each, ensure_ascii=True) for each in (head, *map(asdict, rows))]
    write_text(file.with_suffix(".jsonl"), "\n".join(lines) + "\n")


def read_shard(file: Path, *, known: Mapping[str, Any] | None = None, check: bool = True) -> Shard:
    """Return a shard as it was written.

    Args:
        file: The .npy file.
        known: What `index.json` says of it: "rows" and the digests "sha256" and "rows_sha256".
        check: Compare the digests, for which every byte is read.

    Raises:
        DataError: A file is missing, damaged or not the one that was written.
    """
    names = file.with_suffix(".jsonl")
    try:
        head, *plain = [json.loads(line) for line in names.read_text(encoding="utf-8").splitlines()]
        rows = [Row(**each) for each in plain]
        unread = [(str(name), str(error)) for name, error in head["unread"]]
        vectors = np.load(file, mmap_mode="r", allow_pickle=False)
        counts = {len(rows), int(head["rows"]), len(vectors), len(rows) if known is None else known["rows"]}
        if vectors.ndim != 2 or vectors.dtype != np.float32 or len(counts) > 1:
            raise ValueError(f"it has {vectors.dtype} {vectors.shape}, and {len(rows)} names")
        digests = {names: known["rows_sha256"]} if known is not None else {}
        for path, digest in {file: head["sha256"], **digests}.items() if check else ():
            if (now := file_digest(path)) != digest:
                raise ValueError(f"{path.name} has the SHA-256 {now[:16]}... in place of {digest[:16]}...")
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        text = f"Expected a shard of an index as it was written, but {type(error).__name__}: {error}."
        raise DataError(f"{text} {_AGAIN}", path=file) from error
    return Shard(vectors.view(np.ndarray), rows, unread)
