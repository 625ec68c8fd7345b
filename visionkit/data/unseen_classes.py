"""Splits whose validation and test classes (people, animals, products) never occur in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from visionkit.data.folds import assign_folds
from visionkit.data.splits import (
    HOLDOUT,
    GalleryName,
    Joined,
    Splits,
    Subset,
    single_labels,
    stay_in_shards,
)
from visionkit.errors import DataError, InputError, expected
from visionkit.notices import MAX_DROPPED, Notice
from visionkit.types import Reader, Sample

__all__ = ["Relabelled", "hold_out_classes", "require_pairs", "training_classes"]

Parts = dict[str, Reader]


class Relabelled:
    """The samples of a reader with other class numbers.

    It offers `labels`, and `sizes`, `ids` and `files` where the reader does.

    Args:
        reader: Samples of one class each.
        numbers: The new number of each class.
    """

    sizes: Sequence[tuple[int, int]]
    ids: Sequence[str]
    files: Sequence[str]

    def __init__(self, reader: Reader, numbers: Sequence[int]) -> None:
        self.reader, self.numbers = reader, list(numbers)
        self.labels = [self.numbers[int(label)] for label in _labels(reader)]
        for name in ("sizes", "ids", "files"):
            values = getattr(reader, name, None)
            if values is not None:
                setattr(self, name, values)
        stay_in_shards(self, reader, range(len(reader)))

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index` with its new class number."""
        sample: dict[str, Any] = {**self.reader[index], "label": torch.tensor(self.labels[index])}
        return sample  # type: ignore[return-value]


def hold_out_classes(splits: Splits, *, folds: int = 0, fold: int = 0, seed: int = 0) -> Splits:
    """Return splits without a common class; the classes of training come first.

    A validation or test split that the data set itself has stays. One that its reader held out is made anew
    of a fifth of the classes (with `folds`: of one fold of them), and where there is no test split, it is
    made of as many others.

    Args:
        splits: The splits of a data set of one class an image.
        folds: Number of folds of cross-validation; 0: none.
        fold: The one that is for validation, from 0.
        seed: Seed of the assignment of classes.

    Raises:
        DataError: A split of the data set has a class of training, or there are fewer classes than folds.
        InputError: The data set does not say one class an image, or there is no such fold.
    """
    if folds and not (folds >= 2 and 0 <= fold < folds):
        raise InputError(expected("folds and fold", "at least 2, and one of them", (folds, fold)))
    parts: Parts = {"train": splits.train, "val": splits.val}
    facts = dict(splits.facts)
    if folds or "held_out" in facts:
        parts, facts["held_out"] = _cut(splits, folds or round(1 / HOLDOUT), fold, seed)
    if splits.test is not None:
        parts["test"] = splits.test
    known = {name: sorted({int(label) for label in _labels(reader)}) for name, reader in parts.items()}
    _refuse_shared(known, splits.classes)
    order = [label for name in ("train", "val", "test") for label in known.get(name, ())]
    order += sorted(set(range(len(splits.classes))) - set(order))
    numbers = np.argsort(order).tolist()
    made = {name: Relabelled(reader, numbers) for name, reader in parts.items()}
    counts = ", ".join(f"{len(labels)} {name}" for name, labels in known.items())
    return replace(
        splits,
        train=made["train"],
        val=made["val"],
        test=made.get("test"),
        classes=tuple(splits.classes[label] for label in order),
        facts={**facts, "classes_of_splits": f"no class is in two splits: {counts}"},
    )


def training_classes(splits: Splits) -> tuple[str, ...]:
    """Return the names of the classes up to the last that occurs in training, by label.

    Args:
        splits: The splits of a data set of one class an image.

    Raises:
        InputError: The data set does not say one class an image.
    """
    return splits.classes[: int(_labels(splits.train).max()) + 1]


def require_pairs(
    splits: Splits, *, gallery: GalleryName = "split", max_dropped: float = MAX_DROPPED
) -> Splits:
    """Return splits with a notice of the validation and test images that have no like to be found.

    Retrieval cannot serve an image without another of its class: recall and mean average precision leave it
    out.

    Args:
        splits: The splits of a data set of one class an image.
        gallery: What the images are searched among: "split" (the others of theirs) or "train".
        max_dropped: Largest fraction of a split that may have no like.

    Raises:
        DataError: No image of a split has one, or more than the limit have none.
        InputError: The data set does not say one class an image.
    """
    notices = []
    for name, reader in (("val", splits.val), ("test", splits.test)):
        if reader is None:
            continue
        labels = _labels(reader)
        others = _labels(splits.train) if gallery == "train" else labels
        counts = np.bincount(others, minlength=1 + int(labels.max(initial=0)))
        alone = np.flatnonzero(counts[labels] < (1 if gallery == "train" else 2))
        where = "among the training images" if gallery == "train" else "in the split"
        if len(alone) == len(labels):
            raise DataError(
                f"Expected some image of the {name} split of {splits.name} to have another of its class "
                f"{where}, but none of its {len(labels)} images has: nothing could be found. Put more images "
                "of a class into the split, cut the data by class (--unseen_classes true), or search another "
                "gallery (--retrieval.gallery split or train)."
            )
        if len(alone):
            first, ids = int(alone[0]), getattr(reader, "ids", None)
            image = f"image {first}" if ids is None else ids[first]
            what = f"{name} images without another of their class {where}, left out of recall and map_at_r"
            text = f"{image}, of class {splits.classes[labels[first]]!r}"
            notices.append(Notice(what, len(alone), len(labels), text, max_dropped))
    return replace(splits, notices=(*splits.notices, *notices))


def _cut(splits: Splits, count: int, fold: int, seed: int) -> tuple[Parts, str]:
    train, val = splits.train, splits.val
    joined = Joined(train, val)
    pool: Reader = joined
    if isinstance(train, Subset) and isinstance(val, Subset) and train.reader is val.reader:
        pool = Subset(train.reader, sorted({*train.indices, *val.indices}))
    groups = [splits.classes[int(label)] for label in _labels(pool)]
    folds = assign_folds(len(pool), None, groups, count=count, seed=seed)
    chosen = {"val": folds == fold}
    if splits.test is None:
        chosen["test"] = folds == (fold + 1) % count
    chosen = {"train": ~np.logical_or.reduce(list(chosen.values())), **chosen}
    if not chosen["train"].any():
        raise DataError(f"Expected at least 3 folds of classes, for training, val and test, but got {count}.")
    parts: Parts = {name: Subset(pool, np.flatnonzero(rows).tolist()) for name, rows in chosen.items()}
    return parts, f"fold {fold} of {count} of the classes is for validation (seed {seed})"


def _labels(reader: Reader) -> np.ndarray[Any, np.dtype[np.int64]]:
    labels = single_labels(reader)
    if labels is None:
        raise InputError(
            "Expected images of one class each, but the data set does not say the class of each."
        )
    return labels


def _refuse_shared(known: dict[str, list[int]], classes: Sequence[str]) -> None:
    seen: dict[int, str] = {}
    for name, labels in known.items():
        shared = [label for label in labels if label in seen]
        if shared:
            raise DataError(
                f"Expected no class in two splits, but {len(shared)} of {len(labels)} of {name} are in "
                f"{seen[shared[0]]} too, such as {classes[shared[0]]!r}. Leave unseen classes out "
                "(--unseen_classes false), or give a data set without these splits to have its classes held "
                "out."
            )
        seen |= dict.fromkeys(labels, name)
