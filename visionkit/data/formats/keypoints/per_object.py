"""One object a sample: a view of a reader whose images have any number of objects with keypoints."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from visionkit.data.splits import Splits, fingerprint, stay_in_shards
from visionkit.errors import DataError
from visionkit.notices import Notice
from visionkit.types import Reader, Sample

__all__ = ["ObjectReader", "per_object"]

_FIELDS = ("boxes", "labels", "iscrowd", "area", "keypoints", "masks")


class ObjectReader:
    """The objects of a reader that have a labelled keypoint, one a sample.

    A sample has the whole image, and boxes, labels and keypoints of one object. It is named by its image, and
    by its number from 0 among the image's objects where more than one is used ("street.jpg#2").

    Args:
        reader: Its samples have `boxes` and `keypoints` of N objects. Where it offers `keypoint_counts`, no
            image is opened to count them.

    Attributes:
        unlabelled: How many objects are left out, as no point of theirs is labelled.
    """

    sizes: Sequence[tuple[int, int]]
    files: Sequence[str]

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        counts = getattr(reader, "keypoint_counts", None)
        if counts is None:
            counts = [_counts(reader[index]) for index in range(len(reader))]
        self.pairs = [
            (index, number) for index, each in enumerate(counts) for number, count in enumerate(each) if count
        ]
        self.unlabelled = sum(len(each) for each in counts) - len(self.pairs)
        used = [sum(map(bool, each)) for each in counts]
        names = getattr(reader, "ids", None) or [str(index) for index in range(len(reader))]
        self.ids = tuple(
            f"{names[index]}#{number}" if used[index] > 1 else str(names[index])
            for index, number in self.pairs
        )
        for name in ("sizes", "files"):
            values = getattr(reader, name, None)
            if values is not None:
                setattr(self, name, [values[index] for index, _ in self.pairs])
        stay_in_shards(self, reader, (index for index, _ in self.pairs))

    @property
    def recipe(self) -> str:
        """Everything annotated, for the fingerprint."""
        return hashlib.sha256(f"{fingerprint(self.reader)} {self.pairs}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read object `index`; raise `DataError` when its image cannot be read."""
        image, number = self.pairs[index]
        sample: dict[str, Any] = {**self.reader[image], "id": self.ids[index]}
        sample.pop("truth", None)  # of all objects of the image
        for name in _FIELDS:
            if name in sample:
                sample[name] = sample[name][number : number + 1]
        return cast(Sample, sample)


def per_object(splits: Splits) -> Splits:
    """Return splits of one object a sample; objects without a labelled keypoint are left out and counted.

    Args:
        splits: Of `open_dataset(root, "keypoints")`.

    Raises:
        DataError: A split has no object with a labelled keypoint.
    """
    readers = {"train": splits.train, "val": splits.val, "test": splits.test}
    made = {name: ObjectReader(reader) for name, reader in readers.items() if reader is not None}
    notices = []
    for name, reader in made.items():
        if not len(reader):
            text = f"Expected objects with labelled keypoints in the split {name}, but there is none."
            raise DataError(text, path=str(splits.facts.get("root", splits.name)), field="keypoints")
        if reader.unlabelled:
            what = f"{name}: objects without a labelled keypoint, left out"
            total = len(reader) + reader.unlabelled
            notices.append(Notice(what, reader.unlabelled, total, str(splits.name)))
    return replace(
        splits,
        train=made["train"],
        val=made["val"],
        test=made.get("test"),
        notices=(*splits.notices, *notices),
    )


def _counts(sample: Sample) -> list[int]:
    crowd = sample.get("iscrowd", torch.zeros(len(sample["keypoints"])))
    return [int(count) for count in (sample["keypoints"][..., 2] > 0).sum(1) * (crowd == 0)]
