"""Folds: even over the classes, groups never cut; the hold-out by groups is the same arithmetic."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from tests.run.tiny import Noise
from visionkit.config import TableConfig
from visionkit.data import OpenOptions, Splits, fingerprint, open_dataset
from visionkit.data.folds import assign_folds, group_names, regroup
from visionkit.data.splits import Joined, Subset
from visionkit.errors import DataError, InputError


def spread(folds, labels, count):
    """The largest difference between folds: of sizes, and of the samples of a class."""
    table = np.zeros((count, max(labels) + 1), int)
    np.add.at(table, (folds, labels), 1)
    return np.ptp(table.sum(1)), np.ptp(table, axis=0).max()


@settings(max_examples=80)
@given(st.lists(st.integers(0, 4), min_size=10, max_size=120), st.integers(2, 6), st.integers(0, 2**40))
def test_folds_are_as_even_as_those_of_scikit_learn(labels, count, seed):
    folds = assign_folds(len(labels), labels, count=count, seed=seed)
    assert folds.shape == (len(labels),)
    assert set(folds) == set(range(count))
    sizes, classes = spread(folds, labels, count)
    assert sizes <= 1
    assert classes <= 1
    if min(Counter(labels).values()) >= count:  # theirs warns below
        theirs = np.empty(len(labels), int)
        splitter = StratifiedKFold(count, shuffle=True, random_state=seed % 2**31)
        for number, (_, held) in enumerate(splitter.split(labels, labels)):
            theirs[held] = number
        assert classes <= spread(theirs, labels, count)[1]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 25), st.integers(0, 3)), min_size=20, max_size=150), st.integers(2, 5)
)
def test_groups_are_never_cut_and_every_fold_has_one(pairs, count):
    groups, labels = [f"g{group}" for group, _ in pairs], [label for _, label in pairs]
    if len(set(groups)) < count:
        with pytest.raises(DataError, match="groups, one a fold"):
            assign_folds(len(pairs), labels, groups, count=count)
        return
    for classes in (labels, None):
        folds = assign_folds(len(pairs), classes, groups, count=count, seed=3)
        assert set(folds) == set(range(count))
        assert len(set(zip(groups, folds.tolist(), strict=True))) == len(set(groups))


def test_grouped_folds_are_as_even_over_the_classes_as_those_of_scikit_learn():
    def deviation(folds, labels):
        table = np.zeros((5, labels.max() + 1))
        np.add.at(table, (folds, labels), 1)
        return (table / table.sum(0)).std(axis=0).mean()

    ours, theirs = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        group = rng.integers(0, 60, 600)
        leaning = rng.integers(0, 4, 60)  # a group is mostly of one class, as a patient or a track is
        labels = np.where(rng.random(600) < 0.8, leaning[group], rng.integers(0, 4, 600))
        ours.append(deviation(assign_folds(600, labels, [f"{g}" for g in group], count=5, seed=seed), labels))
        folds = np.empty(600, int)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for number, (_, held) in enumerate(splitter.split(labels, labels, group)):
            folds[held] = number
        theirs.append(deviation(folds, labels))
    assert len(ours) == 20
    assert np.mean(ours) <= 1.05 * np.mean(theirs)


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    """An image folder of 2 classes with 6 tracks of 4 frames each, and a table of the same images."""
    root = tmp_path_factory.mktemp("tracks")
    lines = ["path,label,scene"]
    for name in ("cat", "dog"):
        (root / "images" / name).mkdir(parents=True)
        for track in range(6):
            for frame in range(4):
                file = f"images/{name}/{track}_{frame}.png"
                Image.new("RGB", (8, 8), (track * 40, frame * 60, 9)).save(root / file)
                lines.append(f"{file},{name},{name[0]}{track // 2}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def of(reader, pattern=r"(\w+/\d+)_"):
    return set(group_names(reader, pattern))


def test_a_hold_out_by_groups_cuts_no_track(tracks):
    plain = open_dataset(tracks / "images", "classification")
    assert of(plain.train) & of(plain.val), "near copies on both sides"
    splits = open_dataset(tracks / "images", "classification", OpenOptions(group_by=r"(\w+/\d+)_"))
    assert not of(splits.train) & of(splits.val)
    assert len(splits.train) + len(splits.val) == 48
    assert set(Counter(splits.val.labels)) == {0, 1}
    assert "stratified by class, in 12 groups by" in splits.facts["held_out"]
    assert splits.opened["options"]["group_by"] == r"(\w+/\d+)_", "an evaluation opens the same split again"


def test_the_folds_of_a_data_set_are_apart_and_together_all_of_it(tracks):
    for group_by in ("", r"(\w+/\d+)_"):
        options = [OpenOptions(folds=4, fold=fold, group_by=group_by) for fold in range(4)]
        splits = [open_dataset(tracks / "images", "classification", each) for each in options]
        held = [name for each in splits for name in each.val.ids]
        assert len(held) == len(set(held)) == 48
        assert all(sorted(each.train.ids + each.val.ids) == sorted(held) for each in splits)
        assert all(Counter(each.val.labels) == {0: 6, 1: 6} for each in splits) or group_by
        assert len({fingerprint(each.val) for each in splits}) == 4
        assert splits[2].facts["held_out"].startswith("fold 2 of 4 is for validation: ")
        if group_by:
            assert all(not of(each.train) & of(each.val) for each in splits)


def test_groups_of_a_table_are_a_column_of_it(tracks):
    options = OpenOptions(folds=3, fold=1, group_by="scene", table=TableConfig(target=["label"]))
    splits = open_dataset(tracks / "labels.csv", "classification", options)
    scenes = {"train": group_names(splits.train, "scene"), "val": group_names(splits.val, "scene")}
    assert not set(scenes["train"]) & set(scenes["val"])
    assert Counter(scenes["val"]) == dict.fromkeys(set(scenes["val"]), 8)
    assert "in 6 groups by scene" in splits.facts["held_out"]


def test_a_validation_split_of_the_data_set_stays_and_its_leaks_are_counted(tracks):
    full = open_dataset(tracks / "images", "classification").train.reader
    tests = [index for index, name in enumerate(full.ids) if "/5_" in name]
    rest = [index for index in range(48) if index not in tests]
    own = Splits(Subset(full, rest[:-1]), Subset(full, rest[-1:] + tests), None, full.classes, "own")
    noted = regroup(own, group_by=r"(\w+/\d+)_", max_dropped=0.5)
    assert [(notice.count, notice.total) for notice in noted.notices] == [(1, 9)]
    assert "whose group is in train" in noted.notices[0].what
    with pytest.raises(DataError, match="whose group is in train"):
        regroup(own, group_by=r"(\w+/\d+)_", max_dropped=0.1)
    folds = regroup(own, folds=2, fold=0)
    assert len(folds.train) + len(folds.val) == 48


def test_two_readers_are_joined_as_one():
    splits = Splits(Noise(10, 1), Noise(6, 2), None, ("a", "b", "c"), "noise")
    made = [regroup(splits, folds=4, fold=fold) for fold in range(4)]
    ids = [name for each in made for name in each.val.ids]
    assert sorted(ids) == sorted([*splits.train.ids, *splits.val.ids])
    pool = Joined(splits.train, splits.val)
    assert [pool[index]["id"] for index in range(16)] == pool.ids
    assert pool.labels == splits.train.labels + splits.val.labels
    assert fingerprint(pool) != fingerprint(Joined(splits.val, splits.train))
    read = made[1].val
    assert [read[index]["id"] for index in range(len(read))] == read.ids


def test_what_groups_nothing_is_refused(tracks):
    splits = open_dataset(tracks / "images", "classification")
    for group_by, error, text in (
        ("(", InputError, "a column of a table or a pattern"),
        (r"(track\d+)", DataError, "found in the name of every image"),
        (r".*", InputError, "a group of its own"),
        (r"cat|dog", DataError, "at least 5 groups"),
    ):
        with pytest.raises(error, match=text):
            regroup(splits, group_by=group_by)
    for folds, fold in ((1, 0), (3, 3), (-2, 0)):
        with pytest.raises(InputError, match="at least 2"):
            regroup(splits, folds=folds, fold=fold)


def test_frames_of_traffic_signs_are_held_out_by_track(shared_data):
    splits = open_dataset(shared_data / "gtsrb", "classification", OpenOptions(group_by=r"(\d+/\d+)_\d+"))
    pattern = r"(\d+/\d+)_\d+"
    train, val = of(splits.train, pattern), of(splits.val, pattern)
    assert (len(train | val), len(train & val)) == (1307, 0)
    assert (len(splits.train) + len(splits.val), len(splits.test)) == (3920, 3158)
    assert len(set(splits.val.labels)) == 43
    assert abs(len(splits.val) / 3920 - 0.2) < 0.01
