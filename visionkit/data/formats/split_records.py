"""Splits of records that name their split: rows of a table, captioned images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from visionkit.data.splits import Subset, holdout
from visionkit.errors import DataError
from visionkit.types import Reader

__all__ = ["raise_first", "split_records"]


def raise_first(errors: Sequence[DataError], unit: str) -> None:
    """Raise the first of some errors, if there is one; it names how many more there are.

    Args:
        errors: All errors of a file.
        unit: What each is about, in the plural.

    Raises:
        DataError: There are errors.
    """
    if errors:
        first, more = errors[0], len(errors) - 1
        also = f" {more} more {unit} are at fault; `visionkit check` lists them all." if more else ""
        raise DataError(first.message + also, path=first.path, record=first.record, field=first.field)


def split_records(
    reader: Reader,
    splits: Sequence[str],
    images: Sequence[str],
    *,
    unit: str,
    missing: str,
    path: Path,
    held_out: float,
    seed: int,
) -> tuple[Reader, Reader, Reader | None, dict[str, object]]:
    """Return the training, validation and test samples, and the fact of a hold-out where there is one.

    Args:
        reader: All records.
        splits: The split of each record; those that are none of train, val and test are left out.
        images: The image of each record: records of one image are never held out apart.
        unit: What a record is called, in the singular.
        missing: The error text where no record is for training.
        path: The file that errors name.
        held_out: Fraction of the training records that is held out where none is for validation.
        seed: Seed of the hold-out.

    Raises:
        DataError: No record is for training.
    """
    train, val, test = (
        [i for i, each in enumerate(splits) if each == name] for name in ("train", "val", "test")
    )
    if not train:
        raise DataError(missing, path=path)
    tested = Subset(reader, test) if test else None
    if val:
        return Subset(reader, train), Subset(reader, val), tested, {}
    remaining, held = _hold_out(reader, train, images, path, held_out, seed)
    fact = f"no {unit} is for validation: {len(held)} of {len(train)} training {unit}s are held out"
    return remaining, held, tested, {"held_out": f"{fact} (share {held_out}, seed {seed})"}


def _hold_out(
    reader: Reader, indices: Sequence[int], images: Sequence[str], path: Path, held_out: float, seed: int
) -> tuple[Reader, Reader]:
    """Hold out a fraction of some records, so that the records of one image are all on one side."""
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(os.path.normpath(images[index]), []).append(index)
    if len(groups) == len(indices):
        return holdout(Subset(reader, indices), held_out, seed=seed, path=path)
    first = Subset(reader, [group[0] for group in groups.values()])
    _, held = holdout(first, held_out, seed=seed, path=path)
    chosen = held.indices if isinstance(held, Subset) else []
    names = list(groups)
    out = sorted(index for each in chosen for index in groups[names[each]])
    return Subset(reader, sorted(set(indices) - set(out))), Subset(reader, out)
