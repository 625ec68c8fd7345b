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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from visionkit.data.pack.index import INDEX, OFFERED, join_columns, shards_column
from visionkit.data.pack.layout import (
    PACK_FORMAT,
    PARTS,
    ROW,
    PackSettings,
    Shard,
    is_pack,
    list_name,
    md5,
    read_index,
    read_pack,
    shard_name,
    write_index,
    write_list,
)
from visionkit.data.pack.record import check_value, encode_sample, npy_bytes
from visionkit.data.pack.tar import END, tar_member
from visionkit.data.splits import Splits, fingerprint
from visionkit.data.transforms.geometry import crop_resize
from visionkit.errors import DataError, InputError
from visionkit.files import remove_parts, write_atomic, write_text, writing
from visionkit.forking import worker_context
from visionkit.types import Reader, Sample

__all__ = ["pack", "pack_key"]

_SETTINGS = PackSettings()
_ENDINGS = {"JPEG": "jpg", "TIFF": "tif"}  # others are called as their format


@dataclass(frozen=True)
class _Job:
    """What a process needs to write a shard: the samples of each split, their files and what is offered."""

    folder: Path
    readers: dict[str, Reader]
    files: dict[str, Sequence[str | None]]
    offered: dict[str, dict[str, list[Any]]]
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

    A pack is a folder of WebDataset shards with their lists for `wids`, so that other tools read it too.
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
    files = {name: getattr(reader, "files", [None] * len(reader)) for name, reader in readers.items()}
    job = _Job(path, readers, files, _offered(readers), settings)
    shards = [
        (name, number)
        for name, reader in readers.items()
        for number in range(-(-len(reader) // settings.records))
    ]
    todo = [each for each in shards if not _is_finished(path, each)]
    if len(todo) < len(shards):
        log(f"{len(shards) - len(todo)} of {len(shards)} shards are there already")
    with writing(path), _pool(workers) as pool:
        for each in (pool.map if pool else map)(partial(_write_shard, job), todo):
            log(f"shard {shards.index(each) + 1} of {len(shards)}")
        _finish(job, splits, key, shards)
    return path


def _pool(workers: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    # Of a data set at an address this process has threads, beside which a fork may hang.
    return ProcessPoolExecutor(workers, mp_context=worker_context()) if workers else nullcontext()


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


def _is_finished(path: Path, shard: tuple[str, int]) -> bool:
    """Return whether a shard is there and as it was written."""
    file = path / shard_name(*shard)
    try:
        return str(read_index(file.with_suffix(".npz"))["md5"]) == md5(file)
    except (DataError, OSError, KeyError):
        return False


def _write_shard(job: _Job, shard: tuple[str, int]) -> tuple[str, int]:
    """Write one shard, and then its index, which holds the digest of the shard."""
    split, number = shard
    file = job.folder / shard_name(*shard)
    rows, ids = [], []
    first = number * job.settings.records
    indices = range(first, min(first + job.settings.records, len(job.readers[split])))

    def write(part: Path) -> None:
        with part.open("wb") as stream:  # sample by sample: a shard of large pixels is larger than the memory
            for index in indices:
                sample, parts, stamp = _read(job, split, index)
                key = f"{index:09d}"
                record = b"".join(tar_member(f"{key}.{extension}", data) for extension, data in parts.items())
                check = check_value(np.frombuffer(record, np.uint8), job.settings.form)
                position = (number, stream.tell(), len(record), check)
                rows.append((*position, *sample["size"], _label(sample), *stamp))
                ids.append(sample["id"])
                stream.write(record)
            stream.write(END)

    write_atomic(file, write)
    columns = {"rows": np.array(rows, ROW), "ids": ids, "md5": np.array(md5(file))}
    for name, values in job.offered[split].items():
        chosen, kind = [values[index] for index in indices], OFFERED[name]
        columns[name] = chosen if kind is None else np.array(chosen, kind)
    write_index(file.with_suffix(".npz"), columns)
    return shard


def _read(job: _Job, split: str, index: int) -> tuple[Sample, dict[str, bytes], tuple[int, int, str]]:
    """Return a sample as it is packed, its members, and size, time and digest of the file it came from."""
    settings, file = job.settings, job.files[split][index]
    sample = job.readers[split][index].copy()
    sample.setdefault("id", str(index))
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
    own = {name: values[index] for name, values in job.offered[split].items()}
    if settings.form == "raw":
        image = ("npy", npy_bytes(pixels))
    elif scale < 1:
        image = ("jpg", _encoded(pixels, "JPEG", quality=settings.quality))
        own["upright"] = True
    elif file is not None:
        image = (_ending(original), original)
    else:
        image = ("png", _encoded(pixels, "PNG", compress_level=1))
    return sample, encode_sample(sample, image, compress=settings.form == "jpeg", own=own), stamp


def _ending(data: bytes) -> str:
    """Return the extension of an image file by its content, as its name may lie."""
    with Image.open(io.BytesIO(data)) as image:
        return _ENDINGS.get(str(image.format), str(image.format).lower())


def _encoded(pixels: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def _label(sample: Sample) -> int:
    """Return the class of a sample; -1 where it has none, or is no single class."""
    label = sample.get("label")
    single = isinstance(label, torch.Tensor) and label.ndim == 0 and not label.is_floating_point()
    return int(label) if single and label is not None else -1


def _offered(readers: dict[str, Reader]) -> dict[str, dict[str, list[Any]]]:
    """Return the attributes that every reader has, one row of numbers a sample, by split and name."""
    offered: dict[str, dict[str, list[Any]]] = {split: {} for split in readers}
    for name, kind in OFFERED.items():
        values: dict[str, Any] = {split: getattr(reader, name, None) for split, reader in readers.items()}
        if any(part is None or len(part) != len(readers[split]) for split, part in values.items()):
            continue
        try:
            rows = {
                split: [[int(count) for count in row] for row in part]
                if kind is None
                else np.array(part, kind).tolist()
                for split, part in values.items()
            }
        except (TypeError, ValueError):  # not one row of numbers a sample
            continue
        for split, part in rows.items():
            offered[split][name] = part
    return offered


def _finish(job: _Job, splits: Splits, key: str, shards: Sequence[tuple[str, int]]) -> None:
    """Write the lists and the index of the shards, and `pack.json`, which makes the folder a pack."""
    parts = {each: read_index((job.folder / shard_name(*each)).with_suffix(".npz")) for each in shards}
    lists: dict[str, list[Shard]] = {split: [] for split in job.readers}
    for (split, number), part in parts.items():
        file = job.folder / shard_name(split, number)
        lists[split].append(Shard(file.name, len(part["ids"]), str(part["md5"]), file.stat().st_size))
    for split, listed in lists.items():
        write_list(job.folder / list_name(split), f"{splits.name} {split}", listed)
    columns = {**join_columns(list(parts.values())), "shards": shards_column(lists)}
    files = [file for part in job.files.values() for file in part]
    if None not in files:
        columns["files"] = [str(Path(str(file)).resolve()) for file in files]
    write_index(job.folder / INDEX, columns)
    digests = b"".join(columns["rows"]["digest"].tolist())
    description = {
        "format": PACK_FORMAT,
        "key": key,
        "content": hashlib.blake2b(digests, digest_size=16).hexdigest(),
        "settings": asdict(job.settings),
        "name": splits.name,
        "classes": list(splits.classes),
        "splits": {name: len(reader) for name, reader in job.readers.items()},
        "fields": sorted({field for reader in job.readers.values() if len(reader) for field in reader[0]}),
        "facts": json.loads(json.dumps(dict(splits.facts), default=str)),
        "notices": [notice.as_dict() for notice in splits.notices],
    }
    write_text(job.folder / "pack.json", json.dumps(description, indent=1))
    remove_parts(job.folder)
