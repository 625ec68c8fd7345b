"""Class lists of a model and of a data set, matched by name, and a reader that gives the model's indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from visionkit.data.splits import Subset
from visionkit.errors import InputError
from visionkit.types import Reader, Sample, Truth

__all__ = ["ClassMatch", "CountUnknown", "MatchedReader", "known_images", "match_classes"]

IGNORED = 255  # value of ignored pixels in every reader of masks


@dataclass(frozen=True)
class ClassMatch:
    """The classes of a model and those of a data set.

    Args:
        known: The model's classes, by its index.
        given: The data's classes, by their label.
        index: For each of the data's classes the model's index; -1 where the model does not know it.
    """

    known: tuple[str, ...]
    given: tuple[str, ...]
    index: tuple[int, ...]

    @property
    def identical(self) -> bool:
        """Return whether the labels of the data are the indices of the model."""
        return self.index == tuple(range(len(self.known)))

    @property
    def unknown(self) -> tuple[str, ...]:
        """Return the data's classes that the model does not know."""
        return tuple(name for name, index in zip(self.given, self.index, strict=True) if index < 0)

    @property
    def absent(self) -> tuple[str, ...]:
        """Return the model's classes that the data do not have."""
        return tuple(name for index, name in enumerate(self.known) if index not in self.index)

    def lists(self) -> str:
        """Return both lists in words."""
        return f"the model's classes are {_listed(self.known)}; the data's are {_listed(self.given)}"

    def notes(self) -> list[str]:
        """Return what differs, in sentences."""
        if self.identical:
            return []
        notes = [f"The classes are matched by name: {self.lists()}."]
        if self.unknown:
            notes.append(f"The model does not know {_listed(self.unknown)}.")
        if self.absent:
            notes.append(
                f"The data have no {_listed(self.absent)}: these classes count only where they are predicted."
            )
        return notes


def match_classes(known: Sequence[str], given: Sequence[str], *, all_known: bool = False) -> ClassMatch:
    """Match two lists of classes by name; case, spaces, hyphens and underscores may differ.

    Args:
        known: The model's classes.
        given: The data's classes.
        all_known: Every class of the model must be in the data (numbers to regress).

    Raises:
        InputError: No name is in both, or one that must be is not; the text has both lists.
    """
    exact = {name: index for index, name in reversed(list(enumerate(known)))}
    counts = Counter(map(_plain, known))
    loose = {_plain(name): index for index, name in enumerate(known) if counts[_plain(name)] == 1}
    taken = {exact[name] for name in given if name in exact}
    indices = []
    for name in given:
        index = exact.get(name, -1)
        if index < 0 and loose.get(_plain(name), -1) not in taken:
            index = loose.get(_plain(name), -1)
        indices.append(index)
    match = ClassMatch(tuple(known), tuple(given), tuple(indices))
    if all(index < 0 for index in indices):
        raise InputError(
            f"Expected data with the model's classes, but no name is in both lists: {match.lists()}. "
            "Rename the classes of the data, or evaluate a model of these classes."
        )
    if all_known and match.absent:
        raise InputError(
            f"Expected a column for every number that the model predicts, but {_listed(match.absent)} "
            f"{'is' if len(match.absent) == 1 else 'are'} not among them: {match.lists()}. Name the columns "
            "with --table.target."
        )
    return match


class MatchedReader:
    """A reader whose samples have the model's indices in place of the data's labels.

    Objects, label columns and pixels of classes that the model does not know are left out (pixels are
    ignored); a sample's "unknown" is how many, and out of how many.

    Args:
        reader: The samples. Of single classes, those that the model knows alone (`known_images`).
        match: The classes.
        ignore_index: Value of pixels that do not count.
    """

    def __init__(self, reader: Reader, match: ClassMatch, *, ignore_index: int = IGNORED) -> None:
        self.reader = reader
        self.match = match
        self.index = torch.tensor(match.index, dtype=torch.int64)
        self.ignore_index = ignore_index

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Sample:
        """Read sample `index`, with the model's indices."""
        sample: dict[str, Any] = dict(self.reader[index])
        counts = (0, 0)
        if "mask" in sample:
            sample["mask"], counts = self._pixels(sample["mask"])
        elif "boxes" in sample:
            counts = self._objects(sample)
        elif "label" in sample:
            sample["label"], counts = self._label(sample["label"])
        return cast(Sample, sample | {"unknown": counts})

    def _label(self, label: Tensor) -> tuple[Tensor, tuple[int, int]]:
        if label.dim() == 0:
            return self.index[label], (0, 0)
        columns = torch.zeros(len(self.match.known), dtype=label.dtype)
        there = self.index >= 0
        columns[self.index[there]] = label[there]
        positive = label != 0
        return columns, (int((positive & ~there).sum()), int(positive.sum()))

    def _pixels(self, mask: Tensor) -> tuple[Tensor, tuple[int, int]]:
        table = torch.full((max(256, len(self.index)),), self.ignore_index, dtype=torch.int64)
        table[: len(self.index)] = torch.where(self.index < 0, self.ignore_index, self.index)
        table[IGNORED] = self.ignore_index
        counted = torch.bincount(mask.flatten(), minlength=len(table))
        counted[IGNORED] = 0
        unknown = counted[: len(self.index)][self.index < 0].sum()
        return table[mask], (int(unknown), int(counted.sum()))

    def _objects(self, sample: dict[str, Any]) -> tuple[int, int]:
        labels = self.index[sample["labels"]]
        keep = labels >= 0
        for name in ("boxes", "masks", "keypoints", "iscrowd", "area"):
            if name in sample:
                sample[name] = sample[name][keep]
        sample["labels"] = labels[keep]
        if "truth" in sample:
            sample["truth"] = self._truth(sample["truth"])
        return int((~keep).sum()), len(keep)

    def _truth(self, truth: Truth) -> Truth:
        labels = self.index.numpy()[truth["labels"]]
        keep = labels >= 0
        values: dict[str, Any] = dict(truth)
        for name in ("boxes", "keypoints", "iscrowd", "area"):
            if name in values:
                values[name] = values[name][keep]
        if "masks" in values:
            values["masks"] = [values["masks"][index] for index in np.flatnonzero(keep).tolist()]
        return cast(Truth, values | {"labels": labels[keep]})


def known_images(reader: Reader, match: ClassMatch) -> tuple[Reader, int]:
    """Return the images whose one class the model knows, and how many others there are.

    Args:
        reader: Samples with one class each.
        match: The classes.
    """
    if not match.unknown:
        return reader, 0
    labels = getattr(reader, "labels", None)
    if labels is None:
        labels = [int(reader[index]["label"]) for index in range(len(reader))]
    chosen = [index for index, label in enumerate(labels) if match.index[int(label)] >= 0]
    return Subset(reader, chosen), len(reader) - len(chosen)


class CountUnknown:
    """A collate that adds up what the samples of a `MatchedReader` leave out, as "unknown" of the batch.

    Args:
        collate: Makes a batch of samples.
    """

    def __init__(self, collate: Callable[[Sequence[Sample]], Mapping[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        """Return the batch with its counts."""
        counts = [cast(Any, sample)["unknown"] for sample in samples]
        return {**self.collate(samples), "unknown": [sum(each) for each in zip(*counts, strict=True)]}


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _listed(names: Sequence[str], limit: int = 40) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(map(str, names[:limit]))}{more}" if names else "none"
