"""The splits of a data set, and seeded subsets and hold-outs of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray

from visionkit.errors import DataError, InputError, expected
from visionkit.notices import Notice, check_notices
from visionkit.rng import Salt, keyed_seed
from visionkit.types import Reader, Sample

__all__ = [
    "HOLDOUT",
    "SPLIT_ALIASES",
    "GalleryName",
    "Joined",
    "Splits",
    "Subset",
    "WithGallery",
    "fingerprint",
    "holdout",
    "single_labels",
    "split_of",
    "stay_in_shards",
    "subset",
]

SPLIT_ALIASES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names of files, folders and columns that mean a split, in lower case; every reader takes them all."""

HOLDOUT = 0.2
"""Fraction of the training samples held out for validation where a data set has no validation split."""

GalleryName: TypeAlias = Literal["split", "train"]
"""What images of validation and test are searched among: the others of their split, or those of training."""

# What a reader may say of its samples without decoding them, one entry a sample.
_OFFERED = ("labels", "targets", "object_counts", "keypoint_counts", "sizes", "ids", "files")
_SPLIT_OF = {alias: split for split, aliases in SPLIT_ALIASES.items() for alias in aliases}


def split_of(name: str) -> str | None:
    """Return the split that the name of a file, folder or cell means, None if it means none.

    Args:
        name: In any case.
    """
    return _SPLIT_OF.get(name.lower())


@dataclass(frozen=True)
class Splits:
    """The training, validation and test samples of a data set, with its classes and facts.

    Args:
        train: The training samples.
        val: The samples that checkpoints and settings are chosen on.
        test: The samples of the final score, if there are any.
        classes: Names of the classes, by label.
        name: Name of the data set in results.
        facts: What results record of it (hold-outs made, licence).
        notices: What the reader left out, changed or assumed, counted.
        opened: How `open_dataset` opened it: "kind" and "options", plain values without paths.

    Raises:
        DataError: The fraction of a notice is above its limit.
    """

    train: Reader
    val: Reader
    test: Reader | None
    classes: tuple[str, ...]
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    opened: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a data set of which too much would be left out."""
        check_notices(self.notices, path=str(self.facts.get("root", self.name)))


class Subset:
    """Some samples of a reader, in a given order.

    It offers `labels`, `targets`, `object_counts`, `keypoint_counts`, `sizes`, `ids` and `files` where the
    reader does.

    Args:
        reader: The samples to choose from.
        indices: The chosen ones.
    """

    labels: Sequence[int]
    sizes: Sequence[tuple[int, int]]
    ids: Sequence[str]
    files: Sequence[str]

    def __init__(self, reader: Reader, indices: Sequence[int]) -> None:
        self.reader = reader
        self.indices = [int(index) for index in indices]
        for name in _OFFERED:
            values = getattr(reader, name, None)
            if values is not None:
                setattr(self, name, [values[index] for index in self.indices])
        stay_in_shards(self, reader, self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        """Return the sample at `index` of this choice."""
        return self.reader[self.indices[index]]


def stay_in_shards(view: Any, reader: Reader, indices: Iterable[int]) -> None:
    """Give a view of a streamed set what an order that stays within its shards needs; of others nothing.

    Args:
        view: The view.
        reader: What it is of.
        indices: The sample of the reader that each sample of the view is of.
    """
    shards: Any = getattr(reader, "shard_numbers", None)
    if shards is not None:
        streamed: Any = reader
        view.shard_numbers = [shards[index] for index in indices]
        view.window, view.fetch = streamed.window, streamed.fetch


class Joined:
    """The samples of two readers, one after the other, such as those of two splits.

    It offers `labels`, `targets`, `object_counts`, `sizes`, `ids`, `files` and `captions` where both do.

    Args:
        first: The first samples.
        second: Those after them.

    Raises:
        InputError: One is streamed: its samples would be asked for in no order of shards.
    """

    def __init__(self, first: Reader, second: Reader) -> None:
        self.readers = (first, second)
        if any(hasattr(reader, "shard_numbers") for reader in self.readers):
            raise InputError(
                "Expected the splits of a streamed set as they are, but two are to be joined (for folds, "
                "groups, unseen classes, or a gallery of training images). Copy the pack to this machine."
            )
        for name in (*_OFFERED[:-1], "captions"):
            parts = [getattr(reader, name, None) for reader in self.readers]
            if all(part is not None for part in parts):
                setattr(self, name, [value for part in parts for value in part or ()])

    def __len__(self) -> int:
        return sum(map(len, self.readers))

    def __getitem__(self, index: int) -> Sample:
        """Return the sample at `index` of both."""
        first, second = self.readers
        return first[index] if index < len(first) else second[index - len(first)]


class WithGallery(Joined):
    """Images to search with, then those to search among, which `gallery` of each sample says.

    The names of the second begin with "gallery: ", so that no image of two splits is taken for another.

    Args:
        queries: The images to search with.
        gallery: The images to search among.
    """

    ids: Sequence[str]

    def __init__(self, queries: Reader, gallery: Reader) -> None:
        super().__init__(queries, gallery)
        names: Sequence[str] | None = getattr(self, "ids", None)
        if names is not None:
            self.ids = [*names[: len(queries)], *map(_gallery_name, names[len(queries) :])]

    def __getitem__(self, index: int) -> Sample:
        """Return the sample at `index` of both."""
        inside = index >= len(self.readers[0])
        sample: dict[str, Any] = {**super().__getitem__(index), "gallery": torch.tensor(inside)}
        if inside and "id" in sample:
            sample["id"] = _gallery_name(sample["id"])
        return cast(Sample, sample)


def _gallery_name(name: object) -> str:
    return f"gallery: {name}"


def subset(reader: Reader, fraction: float, *, seed: int = 0) -> Reader:
    """Return a seeded, stratified subset of a reader.

    With the same seed the subset of a smaller fraction is part of that of a larger one. Where the reader
    offers integer `labels`, each class has the same fraction of its samples, to within one sample.

    Args:
        reader: The samples to choose from.
        fraction: Fraction of the samples, above 0 and up to 1; at least one sample.
        seed: Seed of the choice.

    Raises:
        InputError: The fraction is not in (0, 1], or the reader is empty.
    """
    if not 0 < fraction <= 1:
        raise InputError(expected("fraction", "above 0 and at most 1", fraction))
    if len(reader) == 0:
        raise InputError("Expected samples to choose from, but the data set is empty.")
    if fraction == 1:
        return reader
    count = max(1, round(fraction * len(reader)))
    return Subset(reader, sorted(_stratified_order(reader, seed, Salt.SUBSET)[:count]))


def holdout(
    reader: Reader, fraction: float, *, seed: int = 0, path: str | os.PathLike[str] | None = None
) -> tuple[Reader, Reader]:
    """Split a reader in two, stratified by class: the samples to train on, and those held out.

    Args:
        reader: The samples to split.
        fraction: Fraction held out, between 0 and 1; at least one sample on either side.
        seed: Seed of the choice.
        path: The file or folder of the samples, for the error.

    Returns:
        `(remaining, held_out)`, without a common sample.

    Raises:
        DataError: There are fewer than two samples.
        InputError: The fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise InputError(expected("the held-out fraction", "above 0 and below 1", fraction))
    if len(reader) < 2:
        text = expected("the number of samples to hold some out of", "at least 2", len(reader))
        raise DataError(
            f"{text} Add samples, or a validation split.", path=None if path is None else Path(path)
        )
    order = _stratified_order(reader, seed, Salt.HOLDOUT)
    count = min(len(reader) - 1, max(1, round(fraction * len(reader))))
    return Subset(reader, sorted(order[count:])), Subset(reader, sorted(order[:count]))


def _stratified_order(reader: Reader, seed: int, purpose: int) -> list[int]:
    """Order all samples at random so that every prefix is stratified by class.

    Member j of the n of a class gets the position (j + 1/2) / n; samples are sorted by it, ties at random.
    """
    size, classes = len(reader), single_labels(reader)
    rng = np.random.default_rng(keyed_seed(seed, purpose))
    shuffled = rng.permutation(size)
    if classes is None:
        return [int(index) for index in shuffled]
    classes = classes[shuffled]
    position = np.empty(size)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return [int(index) for index in shuffled[np.argsort(position, kind="stable")]]


def single_labels(reader: Reader) -> NDArray[np.int64] | None:
    """Return the class of each sample `(N,)`; None where the reader does not say one class a sample."""
    labels = getattr(reader, "labels", None)
    if labels is None or not all(isinstance(label, int | np.integer) for label in labels):
        return None
    return np.asarray(labels, dtype=np.int64)


def fingerprint(reader: Reader) -> str:
    """Return a SHA-256 that changes when samples are added, removed, renamed, relabelled or replaced.

    It covers what the reader offers without decoding: `recipe` (how it makes its samples), `ids`, `labels`,
    `sizes` and `file_sizes`. A reader that offers none of them is fingerprinted by eight of its images.

    Args:
        reader: Any reader.
    """
    digest = hashlib.sha256(f"{len(reader)}".encode())
    known = False
    for name in ("recipe", "ids", "labels", "sizes", "file_sizes"):
        values = getattr(reader, name, None)
        if values is not None:
            known = True
            digest.update(f"|{name}:".encode())
            if isinstance(values, str):
                digest.update(values.encode())
            else:
                digest.update("\n".join(map(str, values)).encode("utf-8", "surrogateescape"))
    if not known and len(reader) and not isinstance(reader, Joined):
        for index in np.unique(np.linspace(0, len(reader) - 1, 8).astype(int)):
            digest.update(reader[int(index)]["image"].contiguous().numpy().tobytes())
    if isinstance(reader, Joined):
        digest.update(("|joined:" + "".join(map(fingerprint, reader.readers))).encode())
    if isinstance(reader, Subset):
        digest.update(("|of:" + fingerprint(reader.reader) + str(reader.indices)).encode())
    return digest.hexdigest()
