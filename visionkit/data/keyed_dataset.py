"""The torch `Dataset` of a reader, with draws by (seed, epoch, index), and what unreadable samples do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.data import Dataset

from visionkit.data.splits import Subset
from visionkit.data.transforms.reduced import transformed
from visionkit.errors import DataError
from visionkit.rng import Salt, keyed_generator, keyed_seed
from visionkit.types import Key, Reader, Sample

__all__ = ["KeyedDataset", "SkipUnreadable", "Unreadable", "check_unreadable", "drop_unreadable"]

Transform = Callable[[Sample, torch.Generator], Sample]
Collate = Callable[[Sequence[Sample]], Mapping[str, Any]]
OnError = Literal["raise", "replace", "drop"]

_MAX_ATTEMPTS = 16


class Unreadable(NamedTuple):
    """A sample that could not be read.

    Args:
        index: Its index in the reader.
        message: The text of its `DataError`.
        replacement: The sample that is used instead; None: it is left out.
    """

    index: int  # type: ignore[assignment]  # a field, as in `Key`
    message: str
    replacement: Sample | None


class KeyedDataset(Dataset[Any]):
    """A reader with a transform whose draws are a function of (seed, epoch, index).

    Args:
        reader: The samples without augmentation.
        transform: Takes a sample and a generator; may draw from that generator only.
        seed: Seed of the draws.
        on_error: What is done with a sample that cannot be read: "raise" its `DataError`, "replace" it by
            another one, which is a function of (seed, epoch, index) too, or "drop" it. The last two return an
            `Unreadable`.
    """

    def __init__(
        self, reader: Reader, transform: Transform, *, seed: int, on_error: OnError = "raise"
    ) -> None:
        self.reader = reader
        self.transform = transform
        self.seed = seed
        self.on_error = on_error

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key | int) -> Sample | Unreadable:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        try:
            return self._transformed(index, epoch, index)
        except DataError as error:
            if self.on_error == "raise":
                raise
            replacement = None if self.on_error == "drop" else self._replacement(epoch, index, error)
            return Unreadable(index, str(error), replacement)

    def _transformed(self, read: int, epoch: int, index: int) -> Sample:
        """Return sample `read` with the draws of `index`."""
        return transformed(
            lambda: self.reader[read], self.transform, lambda: keyed_generator(self.seed, epoch, index)
        )

    def _replacement(self, epoch: int, index: int, error: DataError) -> Sample:
        for attempt in range(_MAX_ATTEMPTS):
            other = keyed_seed(self.seed, epoch, index, attempt, Salt.RETRY) % len(self.reader)
            try:
                return self._transformed(other, epoch, index)
            except DataError:
                continue
        raise DataError(
            f"{error.message} None of {_MAX_ATTEMPTS} others drawn to replace it could be read either.",
            path=error.path,
            record=error.record,
            field=error.field,
        ) from error


class SkipUnreadable:
    """A collate that adds "skipped" to the batch: (split, index, message) of each sample that was unreadable.

    Args:
        collate: Makes a batch of samples.
        split: Name of the split.
    """

    def __init__(self, collate: Collate, split: str) -> None:
        self.collate = collate
        self.split = split

    def __call__(self, items: Sequence[Sample | Unreadable]) -> Mapping[str, Any]:
        """Return the batch of all samples and replacements."""
        skipped = [(self.split, item.index, item.message) for item in items if isinstance(item, Unreadable)]
        samples = [item.replacement if isinstance(item, Unreadable) else item for item in items]
        batch = self.collate([sample for sample in samples if sample is not None])
        return {**batch, "skipped": skipped} if skipped else batch


def drop_unreadable(reader: Reader, *, limit: float = 0.001) -> tuple[Subset, list[DataError]]:
    """Read every sample once and return a subset without those that cannot be read, and their errors.

    For loaders of your own: `DataModule.skip_unreadable` needs no pass over the data before training.

    Args:
        reader: The samples.
        limit: Largest fraction that may be left out.

    Raises:
        DataError: More than the limit cannot be read; the first of them are named.
    """
    indices, errors = [], []
    for index in range(len(reader)):
        try:
            reader[index]
            indices.append(index)
        except DataError as error:
            errors.append(error)
    check_unreadable([str(error) for error in errors], len(reader), limit)
    return Subset(reader, indices), errors


def check_unreadable(messages: Sequence[str], size: int, limit: float, *, split: str = "") -> None:
    """Refuse a split of which too many samples cannot be read.

    Args:
        messages: One for each of them.
        size: Samples of the split.
        limit: Largest fraction that may be left out.
        split: Name of the split, for the error.

    Raises:
        DataError: More than the limit are left out; the first five are named.
    """
    if len(messages) <= limit * size:
        return
    shown = "\n".join(f"  {message}" for message in messages[:5])
    name = f"{split} samples" if split else "samples"
    raise DataError(
        f"Expected at most {limit:.2%} of the {size} {name} to be unreadable, but {len(messages)} are "
        f"({len(messages) / size:.2%}). `visionkit check` lists all errors; repair or remove these files, or "
        f"raise the limit:\n{shown}"
    )
