"""Writer of packs: every sample of a data set is read and shrunk once, for random access at memory speed.

All arms, seeds and processes of a machine read one pack; its files are mapped, so they share the memory too.
Order and draws of augmentation are functions of (seed, epoch, index), so packing does not change them.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import ConcatDataset

from visionkit.data.pack.layout import (
    PACK_FORMAT,
    ROW,
    PackSettings,
    is_pack,
    read_index,
    read_pack,
    shard_name,
    write_index,
)
from visionkit.data.pack.record import check_value, encode_record
from visionkit.data.splits import Splits, fingerprint
from visionkit.data.transforms.geometry import crop_resize
from visionkit.errors import DataError, InputError
from visionkit.files import file_digest, remove_parts, write_atomic, write_text, writing
from visionkit.types import Reader, Sample

__all__ = ["PARTS", "pack", "pack_key"]

PARTS = ("train", "val", "test")
_SETTINGS = PackSettings()


@dataclass(frozen=True)
class _Job:
    """What a process needs to write a shard: all samples one after another, and their files where known."""

    folder: Path
    samples: Any
    files: Sequence[str | None]
    settings: PackSettings


def pack(
    splits: Splits,
    folder: str | Path,
    *,
    settings: PackSettings = _SETTINGS,
    workers: int = 0,
    log: Callable[[str], None] = lambda text: None,
) -> Path:
    """Pack every sample of a data set into `folder`; what an earlier call left unfinished is continued.

    Images are shrunk to the short side of the settings, antialiased; boxes, class maps and masks go with
    them, and `size` stays the original's. A file that needs no shrinking is copied byte by byte.

    Args:
        splits: The data set.
        folder: Where the pack is written.
        settings: How images are stored.
        workers: Processes; 0 packs in this one.
        log: Called with a line after each shard.

    Returns:
        The folder.

    Raises:
        DataError: A sample cannot be read; it is named, and the finished shards stay.
        InputError: The folder holds a pack of other data or settings: both digests are named.
        RunError: The folder cannot be written; the finished shards stay.
    """
    path, key, readers = Path(folder), pack_key(splits, settings), _readers(splits)
    with writing(path):
        _open_folder(path, key, splits.name)
    files = [file for reader in readers.values() for file in getattr(reader, "files", [None] * len(reader))]
    job = _Job(path, ConcatDataset(readers.values()), files, settings)  # type: ignore[arg-type]
    shards = -(-len(files) // settings.records)
    todo = [number for number in range(shards) if not _is_finished(path, number)]
    if len(todo) < shards:
        log(f"{shards - len(todo)} of {shards} shards are there already")
    with writing(path), ProcessPoolExecutor(workers) if workers else nullcontext() as pool:
        for number in (pool.map if pool else map)(partial(_write_shard, job), todo):
            log(f"shard {number + 1} of {shards}")
        _finish(job, splits, key, shards)
    return path


def pack_key(splits: Splits, settings: PackSettings) -> str:
    """Return the digest of what a pack is made from: settings, classes, names, labels and sizes of files."""
    digest = hashlib.blake2b(json.dumps([PACK_FORMAT, asdict(settings), splits.classes]).encode())
    for reader in _readers(splits).values():
        digest.update(fingerprint(reader).encode())
        for file in getattr(reader, "files", None) or ():
            digest.update(f"{Path(file).stat().st_size}|".encode())
    return digest.hexdigest()[:32]


def _readers(splits: Splits) -> dict[str, Reader]:
    return {name: reader for name in PARTS if (reader := getattr(splits, name)) is not None}


def _open_folder(path: Path, key: str, name: str) -> None:
    """Make the folder, or check that what it holds is of the same pack."""
    before = key
    if is_pack(path):
        before = str(read_pack(path).get("key"))
    elif (path / "key").is_file():
        before = (path / "key").read_text(encoding="utf-8").strip()
    elif path.exists() and any(path.iterdir()):
        raise InputError(
            f"Expected an empty folder or a pack in {path}, but it holds other files. Give another --out."
        )
    path.mkdir(parents=True, exist_ok=True)
    if before != key:
        raise InputError(
            f"The pack in {path} was made from other data or settings: its digest is {before}, that of "
            f"{name!r} is {key} now. Remove the folder, or give another --out."
        )
    write_text(path / "key", f"{key}\n")


def _is_finished(path: Path, number: int) -> bool:
    """Return whether a shard is there and as it was written."""
    shard = path / shard_name(number)
    try:
        digest = str(read_index(shard.with_suffix(".npz"))["digest"])
        return digest == file_digest(shard, algorithm="blake2b-128")
    except (DataError, OSError, KeyError):
        return False


def _write_shard(job: _Job, number: int) -> int:
    """Write one shard, and then its index, which holds the digest of the shard."""
    file = job.folder / shard_name(number)
    rows, ids, records, offset = [], [], [], 0
    first = number * job.settings.records
    for index in range(first, min(first + job.settings.records, len(job.files))):
        sample, record, stamp = _read(job, index)
        check = check_value(np.frombuffer(record, np.uint8), job.settings.form)
        rows.append((number, offset, len(record), check, *sample["size"], _label(sample), *stamp))
        ids.append(sample.get("id", str(index)))
        records.append(record)
        offset += len(record)

    def write(part: Path) -> None:
        with part.open("wb") as stream:
            stream.writelines(records)

    write_atomic(file, write)
    digest = np.array(file_digest(file, algorithm="blake2b-128"))
    write_index(file.with_suffix(".npz"), {"rows": np.array(rows, ROW), "ids": ids, "digest": digest})
    return number


def _read(job: _Job, index: int) -> tuple[Sample, bytes, tuple[int, int, str]]:
    """Return a sample as it is packed, its record, and size, time and digest of the file it came from."""
    settings, file = job.settings, job.files[index]
    sample = job.samples[index].copy()
    height, width = (int(side) for side in sample["image"].shape[1:])
    sample.setdefault("size", (height, width))
    scale = settings.short / min(height, width) if settings.short else 1.0
    if scale < 1:
        target = (max(1, round(height * scale)), max(1, round(width * scale)))
        sample = crop_resize(sample, (0, 0, height, width), target, min_visibility=0.0)
    pixels = sample["image"].permute(1, 2, 0).contiguous().numpy()  # (3, H, W) -> (H, W, 3)
    # The status is read before the content: a file that changes in between is found to be out of date.
    status = None if file is None else Path(file).stat()
    original = pixels.tobytes() if file is None else Path(file).read_bytes()
    digest = hashlib.blake2b(original, digest_size=16).hexdigest()
    stamp = (0, -1, digest) if status is None else (status.st_size, status.st_mtime_ns, digest)
    if settings.form == "raw":
        image = ("raw", pixels.tobytes())
    elif scale < 1:
        image = ("jpeg", _encoded(pixels, "JPEG", quality=settings.quality))
    else:
        image = ("file", original if file is not None else _encoded(pixels, "PNG", compress_level=1))
    return sample, encode_record(sample, image, compress=settings.form == "jpeg"), stamp


def _encoded(pixels: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def _label(sample: Sample) -> int:
    """Return the class of a sample; -1 where it has none, or is no single class."""
    label = sample.get("label")
    single = isinstance(label, torch.Tensor) and label.ndim == 0 and not label.is_floating_point()
    return int(label) if single and label is not None else -1


def _offered(readers: Sequence[Reader], name: str, kind: Any) -> NDArray[Any] | None:
    """Return an attribute of all readers, one row a sample; None where one lacks it."""
    values = [getattr(reader, name, None) for reader in readers]
    if any(part is None or len(part) != len(reader) for part, reader in zip(values, readers, strict=True)):
        return None
    try:
        return np.concatenate([np.array(part, kind) for part in values])
    except (TypeError, ValueError):  # not one row of numbers a sample
        return None


def _keypoint_counts(readers: Sequence[Reader]) -> list[list[int]] | None:
    """Return how many points of each object of each image are labelled; None where a reader does not know."""
    known: list[Any] = [getattr(reader, "keypoint_counts", None) for reader in readers]
    if any(counts is None for counts in known):
        return None
    return [[int(count) for count in of_image] for counts in known for of_image in counts]


def _finish(job: _Job, splits: Splits, key: str, shards: int) -> None:
    """Join the indices of the shards and write `pack.json`, which makes the folder a pack."""
    readers = _readers(splits)
    parts = [read_index((job.folder / shard_name(number)).with_suffix(".npz")) for number in range(shards)]
    rows = np.concatenate([part["rows"] for part in parts])
    columns = {"rows": rows, "ids": [name for part in parts for name in part["ids"]]}
    if None not in job.files:
        columns["files"] = [str(Path(str(file)).resolve()) for file in job.files]
    for name, kind in (("targets", np.float64), ("object_counts", np.int64)):
        column = _offered(list(readers.values()), name, kind)
        if column is not None:
            columns[name] = column
    counts = _keypoint_counts(list(readers.values()))
    columns |= {} if counts is None else {"keypoint_counts": counts}
    write_index(job.folder / "index.npz", columns)
    description = {
        "format": PACK_FORMAT,
        "key": key,
        "content": hashlib.blake2b(b"".join(rows["digest"].tolist()), digest_size=16).hexdigest(),
        "settings": asdict(job.settings),
        "name": splits.name,
        "classes": list(splits.classes),
        "splits": {name: len(reader) for name, reader in readers.items()},
        "fields": sorted({field for reader in readers.values() for field in reader[0]}),
        "facts": json.loads(json.dumps(dict(splits.facts), default=str)),
        "notices": [notice.as_dict() for notice in splits.notices],
        "shards": [
            {
                "name": shard_name(number),
                "bytes": int(part["rows"]["length"].sum()),
                "blake2b": str(part["digest"]),
            }
            for number, part in enumerate(parts)
        ],
    }
    write_text(job.folder / "pack.json", json.dumps(description, indent=1))
    remove_parts(job.folder)
