"""Write a pack: every sample of a data set, read once, shrunk once, for random access at the speed of memory.

Two arms, all seeds and all processes of a machine read one pack; its files are mapped, so they share the
memory too. Order and draws of augmentation are functions of (seed, epoch, index), which a pack keeps.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from visionkit.data.pack.layout import (
    COLUMNS,
    PACK_FORMAT,
    Arrays,
    PackSettings,
    is_pack,
    open_index,
    pack_texts,
    read_pack,
    save_arrays,
    shard_name,
    unpack_texts,
    write_bytes,
)
from visionkit.data.pack.record import check_value, encode_record
from visionkit.data.splits import Splits, fingerprint
from visionkit.data.transforms.geometry import crop_resize
from visionkit.errors import DataError, InputError
from visionkit.files import file_digest, remove_parts
from visionkit.types import Reader, Sample

__all__ = ["image_files", "pack", "pack_key"]

PARTS = ("train", "val", "test")
_SETTINGS = PackSettings()


@dataclass(frozen=True)
class _Job:
    """Everything a process needs to write one shard."""

    folder: Path
    readers: tuple[Reader, ...]
    settings: PackSettings


def pack(
    splits: Splits,
    folder: str | Path,
    *,
    settings: PackSettings = _SETTINGS,
    workers: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Pack every sample of a data set into `folder`; what an earlier call left unfinished is continued.

    Images are shrunk to the short side of the settings, antialiased; boxes, class maps and masks go with
    them, and `size` stays the original's. A file that needs no shrinking is kept byte by byte.

    Args:
        splits: The data set.
        folder: Where the pack goes.
        settings: How images are kept.
        workers: Processes; 0 packs in this one.
        say: Told how far it is, shard by shard.

    Returns:
        The folder.

    Raises:
        DataError: A sample cannot be read; it is named, and the finished shards stay.
        InputError: The folder holds a pack of other data or settings: both digests are named.
    """
    place, key = Path(folder), pack_key(splits, settings)
    _open_folder(place, key, splits)
    readers = tuple(reader for reader in (splits.train, splits.val, splits.test) if reader is not None)
    job = _Job(place, readers, settings)
    total = sum(len(reader) for reader in readers)
    shards = range(-(-total // settings.records))
    todo = [number for number in shards if not _finished(place, number)]
    if len(todo) < len(shards):
        say(f"{len(shards) - len(todo)} of {len(shards)} shards are there already")
    if workers:
        with ProcessPoolExecutor(workers) as pool:
            for number in pool.map(partial(_write_shard, job), todo):
                say(f"shard {number + 1} of {len(shards)}")
    else:
        for number in todo:
            say(f"shard {_write_shard(job, number) + 1} of {len(shards)}")
    _finish(place, splits, settings, key, len(shards))
    return place


def pack_key(splits: Splits, settings: PackSettings) -> str:
    """Return the digest of what a pack is made from: settings, classes, names, labels and sizes of files."""
    digest = hashlib.blake2b(json.dumps([PACK_FORMAT, settings.as_dict(), splits.classes]).encode())
    for reader in (splits.train, splits.val, splits.test):
        if reader is None:
            continue
        digest.update(fingerprint(reader).encode())
        for file in image_files(reader) or ():
            digest.update(f"{Path(file).stat().st_size}|".encode())
    return digest.hexdigest()[:32]


def image_files(reader: Reader) -> Sequence[str] | None:
    """Return the image file of each sample, where the reader says them."""
    found: Sequence[str] | None = getattr(reader, "files", None)
    return found


def _open_folder(place: Path, key: str, splits: Splits) -> None:
    """Make the folder, or see that what is in it belongs to the same pack."""
    try:
        if is_pack(place):
            before = str(read_pack(place).get("key"))
        elif (place / "key").is_file():
            before = (place / "key").read_text(encoding="utf-8").strip()
        elif place.exists() and any(place.iterdir()):
            raise InputError(
                f"Expected an empty folder or a pack in {place}, but it holds other files. "
                "Give another --out."
            )
        else:
            before = key
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Expected to be able to write into {place}, but {error}.") from error
    if before != key:
        raise InputError(
            f"The pack in {place} was made from other data or settings: its digest is {before}, that of "
            f"{splits.name!r} is {key} now. Remove the folder, or give another --out."
        )
    write_bytes(place / "key", [f"{key}\n".encode()])


def _finished(place: Path, number: int) -> bool:
    """Whether a shard is there and as it was written."""
    shard, index = place / shard_name(number), place / f"{shard_name(number)}.npz"
    if not (shard.is_file() and index.is_file()):
        return False
    try:
        return str(open_index(index)["whole"]) == file_digest(shard, algorithm="blake2b-128")
    except (DataError, KeyError):
        return False


def _write_shard(job: _Job, number: int) -> int:
    """Write one shard and its index."""
    first = number * job.settings.records
    rows: list[tuple[Any, ...]] = []
    labels, ids, records, offset = [], [], [], 0
    for reader, index in _members(job.readers, first, first + job.settings.records):
        sample, data, stamp = _read(reader, index, job.settings)
        array = np.frombuffer(data, np.uint8)
        check = check_value(array, job.settings.form)
        rows.append((number, offset, len(data), check, *sample["size"], *stamp))
        labels.append(_label(sample))
        ids.append(sample.get("id", str(index)))
        records.append(data)
        offset += len(data)
    kinds = ("int32", "int64", "int64", "uint64", "int32", "int32", "int64", "int64", "S32")
    arrays: Arrays = {name: np.array(column, kind) for name, kind, column in zip(COLUMNS, kinds, zip(*rows))}
    arrays["ids"] = pack_texts(ids)
    if all(label is not None for label in labels):
        arrays["labels"] = np.array(labels, np.int64)
    write_bytes(job.folder / shard_name(number), records)
    arrays["whole"] = np.array(file_digest(job.folder / shard_name(number), algorithm="blake2b-128"))
    save_arrays(job.folder / f"{shard_name(number)}.npz", arrays)
    return number


def _members(readers: Sequence[Reader], start: int, stop: int) -> list[tuple[Reader, int]]:
    """Return the samples from `start` to `stop` of all readers, one after another."""
    members, base = [], 0
    for reader in readers:
        for index in range(max(0, start - base), min(len(reader), stop - base)):
            members.append((reader, index))
        base += len(reader)
    return members


def _read(reader: Reader, index: int, settings: PackSettings) -> tuple[Sample, bytes, tuple[int, int, str]]:
    """Return a sample as it is packed, its record, and size, time and digest of the file it came from."""
    files = image_files(reader)
    sample = reader[index].copy()
    height, width = (int(side) for side in sample["image"].shape[1:])
    sample.setdefault("size", (height, width))
    scale = settings.short / min(height, width) if settings.short else 1.0
    if scale < 1:
        target = (max(1, round(height * scale)), max(1, round(width * scale)))
        sample = crop_resize(sample, (0, 0, height, width), target, keep=0.0)
    if files is None:
        original, stamp = None, (0, -1, hashlib.blake2b(_pixels(sample), digest_size=16).hexdigest())
    else:
        before = Path(files[index]).stat()
        original = Path(files[index]).read_bytes()
        digest = hashlib.blake2b(original, digest_size=16).hexdigest()
        stamp = (before.st_size, before.st_mtime_ns, digest)
    if settings.form == "raw":
        image = ("raw", _pixels(sample))
    elif scale < 1:
        image = ("jpeg", _encoded(sample, "JPEG", quality=settings.quality))
    else:
        image = ("file", original or _encoded(sample, "PNG", compress_level=1))
    return sample, encode_record(sample, image, compress=settings.form == "jpeg"), stamp


def _pixels(sample: Sample) -> bytes:
    return sample["image"].permute(1, 2, 0).contiguous().numpy().tobytes()  # (3, H, W) -> (H, W, 3)


def _encoded(sample: Sample, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(sample["image"].permute(1, 2, 0).contiguous().numpy()).save(stream, kind, **options)
    return stream.getvalue()


def _label(sample: Sample) -> int | None:
    label = sample.get("label")
    one = isinstance(label, torch.Tensor) and label.ndim == 0 and not label.is_floating_point()
    return int(label) if one and label is not None else None


def _offered(readers: Sequence[Reader], name: str, kind: Any) -> NDArray[Any] | None:
    """Return what the readers offer of each sample, one after another; None where one does not."""
    values = [getattr(reader, name, None) for reader in readers]
    if any(part is None or len(part) != len(reader) for part, reader in zip(values, readers, strict=True)):
        return None
    try:
        return np.concatenate([np.array(part, kind) for part in values])
    except (TypeError, ValueError):  # not one row of numbers a sample
        return None


def _finish(place: Path, splits: Splits, settings: PackSettings, key: str, shards: int) -> None:
    """Join the indices of the shards and write `pack.json`, which makes the pack a pack."""
    parts = [open_index(place / f"{shard_name(number)}.npz") for number in range(shards)]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    if all("labels" in part for part in parts):
        arrays["labels"] = np.concatenate([part["labels"] for part in parts])
    arrays["ids"] = pack_texts([name for part in parts for name in unpack_texts(part["ids"])])
    readers = {name: reader for name in PARTS if (reader := getattr(splits, name)) is not None}
    files = [file for reader in readers.values() for file in image_files(reader) or ()]
    if len(files) == len(arrays["offset"]):
        arrays["files"] = pack_texts([str(Path(file).resolve()) for file in files])
    for name, kind in (("targets", np.float64), ("object_counts", np.int64)):
        column = _offered(list(readers.values()), name, kind)
        if column is not None:
            arrays[name] = column
    save_arrays(place / "index.npz", arrays)
    described = {
        "format": PACK_FORMAT,
        "key": key,
        "content": hashlib.blake2b(b"".join(arrays["digest"].tolist()), digest_size=16).hexdigest(),
        "settings": settings.as_dict(),
        "name": splits.name,
        "classes": list(splits.classes),
        "splits": {name: len(reader) for name, reader in readers.items()},
        "fields": sorted({field for reader in readers.values() for field in reader[0]}),
        "facts": json.loads(json.dumps(dict(splits.facts), default=str)),
        "notices": [notice.as_dict() for notice in splits.notices],
        "shards": [
            {"name": shard_name(number), "bytes": int(part["length"].sum()), "blake2b": str(part["whole"])}
            for number, part in enumerate(parts)
        ],
    }
    write_bytes(place / "pack.json", [json.dumps(described, indent=1, ensure_ascii=False).encode()])
    remove_parts(place)
