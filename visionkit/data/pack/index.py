"""The index of a pack: where each sample lies, and what is known of it without decoding.

It is written with the pack. Where it is missing, it is made from the shards, which hold all of it but the
files that the pack was made from.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.data.pack.layout import (
    PARTS,
    ROW,
    Shard,
    list_name,
    md5,
    read_index,
    read_list,
    write_index,
)
from visionkit.data.pack.record import UNREADABLE, Form, check_value, own_facts, read_json, unreadable
from visionkit.data.pack.tar import map_shard, members, scan_shard
from visionkit.errors import DataError

__all__ = ["INDEX", "OFFERED", "join_columns", "open_index", "shards_column"]

INDEX = "index.npz"
_MD5 = re.compile("[0-9a-f]{32}")  # it names a file of a cache: nothing else may
OFFERED: dict[str, type | None] = {
    "targets": np.float64, "object_counts": np.int64, "keypoint_counts": None
}  # fmt: skip
"""What a reader may offer that is kept with each sample, and its type."""

Columns = dict[str, Any]


def open_index(folder: Path, description: Mapping[str, Any]) -> tuple[Columns, dict[str, list[Shard]], bool]:
    """Return the columns of all samples, the shards of each split, and whether the index had to be made.

    Args:
        folder: The pack.
        description: The content of its `pack.json`.

    Raises:
        DataError: A file is missing or damaged, or they do not belong together.
    """
    sizes = description["splits"]
    lists = {split: read_list(folder / list_name(split)) for split in PARTS if split in sizes}
    for split, shards in lists.items():
        if sum(shard.nsamples for shard in shards) != sizes[split]:
            text = f"Expected shards of {sizes[split]:,} samples, but the list names others. Pack again."
            raise DataError(text, path=folder / list_name(split), field="nsamples")
        if any(not _MD5.fullmatch(shard.md5sum) or shard.filesize < 0 for shard in shards):
            text = "Expected the MD5 and the size of each shard, but the list lacks one. Pack again."
            raise DataError(text, path=folder / list_name(split), field="md5sum")
    if (folder / INDEX).is_file():
        columns = read_index(folder / INDEX)
        _check(folder / INDEX, columns, lists)
        return columns, lists, False
    form = description["settings"]["form"]
    parts = [
        _index_shard(folder, shard, number, form)
        for shards in lists.values()
        for number, shard in enumerate(shards)
    ]
    columns = {**join_columns(parts), "shards": shards_column(lists)}
    with contextlib.suppress(OSError):  # a folder that is only read
        write_index(folder / INDEX, columns)
    return columns, lists, True


def shards_column(lists: Mapping[str, Sequence[Shard]]) -> list[Any]:
    """Return what an index says of the shards that it is of."""
    return [[split, *astuple(shard)] for split, shards in lists.items() for shard in shards]


def join_columns(parts: Sequence[Mapping[str, Any]]) -> Columns:
    """Return the columns of several shards as those of all; of what is offered, what each offers."""
    columns: Columns = {
        "rows": np.concatenate([np.zeros(0, ROW), *(part["rows"] for part in parts)]),
        "ids": [name for part in parts for name in part["ids"]],
    }
    for name, kind in OFFERED.items():
        values: list[Any] = [part[name] for part in parts if part.get(name) is not None]
        with contextlib.suppress(ValueError):  # not one row of numbers a sample
            if values and len(values) == len(parts):
                columns[name] = (
                    [row for value in values for row in value]
                    if kind is None
                    else np.concatenate([np.asarray(value, kind) for value in values])
                )
    return columns


def _check(file: Path, columns: Columns, lists: Mapping[str, Sequence[Shard]]) -> None:
    """Refuse an index that is not of these shards, or that leads out of them."""
    fix = "Remove the file: it is made again."
    if columns.get("shards") != shards_column(lists):
        text = f"Expected the index of the shards that lie here, but it is of others. {fix}"
        raise DataError(text, path=file, field="shards")
    rows = columns.get("rows")
    count = sum(shard.nsamples for shards in lists.values() for shard in shards)
    given = {name: columns[name] for name in (*OFFERED, "files") if name in columns}
    lengths = {_length(rows, ROW), _length(columns.get("ids"), None)}
    lengths |= {_length(column, OFFERED.get(name)) for name, column in given.items()}
    if lengths != {count} or rows is None or rows.dtype != ROW:
        text = f"Expected the place and the name of {count:,} samples, but the index is damaged. {fix}"
        raise DataError(text, path=file, field="rows")
    ends = np.repeat(
        [shard.filesize for shards in lists.values() for shard in shards],
        [shard.nsamples for shards in lists.values() for shard in shards],
    )
    numbers = np.concatenate([np.repeat(np.arange(len(s)), [x.nsamples for x in s]) for s in lists.values()])
    inside = (rows["offset"] >= 0) & (rows["length"] > 0) & (rows["length"] <= ends - rows["offset"])
    if not (inside & (rows["shard"] == numbers) & (rows["length"] % 512 == 0)).all():
        text = f"Expected samples inside their shards, but the index leads out of them. {fix}"
        raise DataError(text, path=file, field="offset")


def _length(column: Any, kind: Any) -> int:
    """Return the entries of a column, -1 where it is no array of numbers, or without a kind no list."""
    if kind is None:
        return len(column) if isinstance(column, list) else -1
    return len(column) if isinstance(column, np.ndarray) and column.ndim else -1


def _index_shard(folder: Path, shard: Shard, number: int, form: Form) -> Columns:
    """Return the columns of a shard from its bytes, which must be those that the list says."""
    file = folder / shard.url
    if not file.is_file():
        raise DataError("Expected a shard, but there is none. Pack again.", path=file, field="shard")
    now = md5(file)
    if now != shard.md5sum:
        text = f"Expected the MD5 {shard.md5sum}, but it is {now}: the shard is damaged, or another one. "
        raise DataError(f"{text}Run the same `visionkit pack` again; it mends it.", path=file, field="md5sum")
    spans, _ = scan_shard(file)
    if len(spans) != shard.nsamples:
        text = f"Expected {shard.nsamples:,} samples, but it holds {len(spans):,}. Pack again."
        raise DataError(text, path=file, field="nsamples")
    content = map_shard(file)
    rows, ids = [], []
    offered: dict[str, list[Any]] = {name: [] for name in OFFERED}
    for span in spans:
        record = content[span.offset : span.offset + span.length]
        try:
            parts = members(record)
            plain = read_json(parts)
            height, width = map(int, plain["size"])
            label = int(parts["cls"].tobytes()) if "cls" in parts else -1
            name = str(plain["id"])
            own = own_facts(plain)
        except UNREADABLE as error:
            raise unreadable(error, file, span.key) from error
        check = check_value(record, form)
        rows.append((number, span.offset, span.length, check, height, width, label, 0, -1, b""))
        ids.append(name)
        for each, values in offered.items():
            values.append(own.get(each))
    known = {name: values for name, values in offered.items() if None not in values}
    return {"rows": np.array(rows, ROW), "ids": ids, **known}
