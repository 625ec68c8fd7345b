"""Folds of cross-validation and hold-outs by group: near copies, such as frames of a scene, stay together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.data.splits import HOLDOUT, Joined, Splits, Subset, single_labels
from visionkit.errors import DataError, InputError, expected, printable
from visionkit.notices import MAX_DROPPED, Notice
from visionkit.rng import Salt, keyed_seed
from visionkit.types import Reader

__all__ = ["assign_folds", "group_names", "regroup"]


def regroup(
    splits: Splits,
    *,
    group_by: str = "",
    folds: int = 0,
    fold: int = 0,
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
) -> Splits:
    """Return splits whose validation samples are one fold, or a hold-out that keeps groups together.

    Folds are cut from the training and the validation samples together; the test split stays. Without
    `folds`, a hold-out that the data set's reader made is made anew by groups; where the data set has a
    validation split of its own, that stays, and a notice counts its samples whose group is in training too.

    Args:
        splits: The splits of a data set.
        group_by: What keeps samples together, see `group_names`; empty: the image file.
        folds: Number of folds; 0: none.
        fold: The one that is for validation, from 0.
        seed: Seed of the assignment.
        max_dropped: Largest fraction of a split's samples whose group may be in training, too.

    Raises:
        InputError: There is no such fold, or `group_by` is wrong.
        DataError: There are fewer groups than folds, or too many samples of groups in two splits.
    """
    if not group_by and not folds:
        return splits
    if folds and not (folds >= 2 and 0 <= fold < folds):
        raise InputError(expected("folds and fold", "at least 2, and one of them", (folds, fold)))
    if not folds and "held_out" not in splits.facts:
        return _with_leaks(splits, group_by, max_dropped)
    pool = _pool(splits.train, splits.val)
    labels, groups = single_labels(pool), _groups(pool, group_by)
    parts = assign_folds(len(pool), labels, groups, count=folds or round(1 / HOLDOUT), seed=seed)
    train, val = (Subset(pool, np.flatnonzero(chosen).tolist()) for chosen in (parts != fold, parts == fold))
    what = f"fold {fold} of {folds} is for validation" if folds else "there is no validation split"
    how = ["" if labels is None else ", stratified by class"]
    how += [f", in {len(set(groups))} groups by {group_by or 'image file'}" if groups else ""]
    fact = f"{what}: {len(val)} of {len(pool)} images are held out{''.join(how)} (seed {seed})"
    # What the reader said of its own cut (scenes share no drawing between splits) is not true of this one.
    facts = {name: text for name, text in splits.facts.items() if name != "shared_between_splits"}
    made = replace(splits, train=train, val=val, facts={**facts, "held_out": fact})
    return _with_leaks(made, group_by, max_dropped) if group_by else made


def assign_folds(
    size: int,
    labels: Sequence[int] | NDArray[np.int64] | None = None,
    groups: Sequence[str] | None = None,
    *,
    count: int,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return the fold of each sample `(size,)`: stratified by class, groups never cut.

    Without groups, sizes and the samples of each class differ by one at most between folds. With groups,
    each in turn, those that weigh most first, goes where it leaves the classes most even (the idea of
    scikit-learn's `StratifiedGroupKFold`, with the sum of squares in position of the deviation).

    Args:
        size: Number of samples.
        labels: The class of each; None: not stratified.
        groups: The group of each; None: each sample for itself.
        count: Number of folds.
        seed: Seed of the assignment.

    Raises:
        DataError: There are fewer samples or groups than folds.
    """
    rng = np.random.default_rng(keyed_seed(seed, Salt.FOLDS))
    classes = np.zeros(size, np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    names, members = np.unique(np.arange(size) if groups is None else np.asarray(groups), return_inverse=True)
    if len(names) < count:
        unit = "samples" if groups is None else "groups"
        raise DataError(f"Expected at least {count} {unit}, one a fold, but there are {len(names)}.")
    if groups is None:
        order = rng.permutation(size)
        order = order[np.argsort(classes[order], kind="stable")]
        folds = np.empty(size, np.int64)
        folds[order] = np.arange(size) % count
        return folds
    table = np.zeros((len(names), int(classes.max()) + 1))
    np.add.at(table, (members, classes), 1)
    return _even_out(table, count, rng)[members]


def _even_out(table: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the fold of each group, from its number of samples a class `(groups, classes)`."""
    weights = table / table.sum(axis=0)
    order = rng.permutation(len(table))
    order = order[np.argsort(-(weights[order] ** 2).sum(axis=1), kind="stable")]
    sums, sizes = np.zeros((count, table.shape[1])), np.zeros(count)
    folds = np.empty(len(table), np.int64)
    for position, group in enumerate(order):
        # Adding g to a fold's sum s changes the sum of squares by 2 s g + g g: the smallest s g is best.
        cost = sums @ weights[group]
        empty = np.flatnonzero(sizes == 0)
        left = len(order) - position
        choices = empty if len(empty) >= left else np.arange(count)  # no fold stays empty
        best = choices[np.lexsort((sizes[choices], np.round(cost[choices], 12)))[0]]
        folds[group] = best
        sums[best] += weights[group]
        sizes[best] += table[group].sum()
    return folds


def group_names(reader: Reader, group_by: str, *, strict: bool = True) -> list[str]:
    """Return the group of each sample.

    Args:
        reader: The samples.
        group_by: A column of their table; else a regular expression that is searched in the id of each (its
            path in the data set): the group is what its parentheses hold, or the whole match without any.
        strict: Whether an id that does not match is an error; else it is a group of its own.

    Raises:
        InputError: It is no regular expression, or the reader has no ids.
        DataError: An id does not match it.
    """
    if isinstance(reader, Subset):
        names = group_names(reader.reader, group_by, strict=strict)
        return [names[index] for index in reader.indices]
    if isinstance(reader, Joined):
        return [name for part in reader.readers for name in group_names(part, group_by, strict=strict)]
    column = getattr(reader, "column", None)
    values: list[str] | None = column(group_by) if callable(column) else None
    if values is not None:
        return values
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        text = f"Expected --group_by to be a column of a table or a pattern, but got {group_by!r}: {error}."
        raise InputError(text) from error
    ids: Sequence[Any] | None = getattr(reader, "ids", None)
    if ids is None:
        raise InputError(f"--group_by {group_by!r}: the data set does not name its samples.")
    return [_match(pattern, str(name), strict) for name in ids]


def _match(pattern: re.Pattern[str], name: str, strict: bool) -> str:
    match = pattern.search(name)
    if match is None and not strict:
        return name
    if match is None:
        raise DataError(
            f"Expected --group_by {pattern.pattern!r} to be found in the name of every image, but it is not "
            f"in {printable(name)!r}. Give a pattern that is, such as '(.*)_': what is before the last _."
        )
    return "|".join(part or "" for part in match.groups()) if pattern.groups else match.group()


def _groups(pool: Reader, group_by: str) -> list[str] | None:
    """Return the groups of a pool; without `group_by` those of samples that are of one image file."""
    if not group_by:
        files = list(getattr(pool, "files", ()))
        return files if len(set(files)) < len(files) else None
    names = group_names(pool, group_by)
    if len(set(names)) == len(names) > 1:
        raise InputError(
            f"--group_by {group_by!r} makes each of {len(names)} images a group of its own, such as "
            f"{printable(names[0])!r}: nothing is kept together. Give a pattern that several images share."
        )
    return names


def _pool(train: Reader, val: Reader) -> Reader:
    if isinstance(train, Subset) and isinstance(val, Subset) and train.reader is val.reader:
        return Subset(train.reader, sorted({*train.indices, *val.indices}))
    return Joined(train, val)


def _with_leaks(splits: Splits, group_by: str, max_dropped: float) -> Splits:
    """Return the splits with a notice for each split with samples whose group is in training, too."""
    trained = set(group_names(splits.train, group_by))
    notices = []
    for name, reader in (("val", splits.val), ("test", splits.test)):
        groups = [] if reader is None else group_names(reader, group_by, strict=name == "val")
        shared = [group for group in groups if group in trained]
        if shared:
            text = f"{printable(shared[0])} is in train and in {name}; --folds cuts both anew by group"
            what = f"{name}: images whose group is in train, too"
            notices.append(Notice(what, len(shared), len(groups), text, max_dropped))
    return replace(splits, notices=(*splits.notices, *notices))
