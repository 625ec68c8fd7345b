"""Classes that training never sees: held out of a pool, or splits of their own, of folders and tables."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from visionkit.data import OpenOptions, fingerprint, open_dataset, require_pairs, training_classes
from visionkit.errors import DataError, InputError

UNSEEN = OpenOptions(unseen_classes=True)


def people(folder, names, images=3):
    """A folder a person, each image of one grey that its id decides."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(images):
            value = (int(name[1:]) * 7 + number) % 256
            Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(folder / name / f"{number}.png")
    return folder


def check(splits):
    """No class is in two splits, those of training come first, and every sample has its own class."""
    seen = []
    for reader in (splits.train, splits.val, splits.test):
        labels = set(reader.labels)
        assert labels, "no split is empty"
        assert not labels & set(seen)
        assert min(labels) == len(seen)
        seen += sorted(labels)
        for index in range(len(reader)):
            sample = reader[index]
            assert int(sample["label"]) == reader.labels[index]
            assert splits.classes[reader.labels[index]] in sample["id"]
            assert reader.ids[index] == sample["id"]
    assert seen == list(range(len(splits.classes)))
    assert training_classes(splits) == splits.classes[: len(set(splits.train.labels))]


def test_a_pool_of_people_is_cut_by_person(tmp_path):
    root = people(tmp_path / "people", [f"p{i:02d}" for i in range(20)])
    splits = open_dataset(root, "classification", UNSEEN)
    check(splits)
    assert [len(reader) for reader in (splits.train, splits.val, splits.test)] == [36, 12, 12]
    assert "no class is in two splits: 12 train, 4 val, 4 test" in splits.facts["classes_of_splits"]
    again = open_dataset(root, "classification", UNSEEN)
    assert fingerprint(again.train) == fingerprint(splits.train)
    held = []
    for fold in range(4):
        options = OpenOptions(unseen_classes=True, folds=4, fold=fold)
        cut = open_dataset(root, "classification", options)
        check(cut)
        held += [cut.classes[label] for label in set(cut.val.labels)]
    assert sorted(held) == sorted(splits.classes), "each person is for validation in one fold"
    assert open_dataset(root, "classification").val.labels == open_dataset(root, "classification").val.labels
    with pytest.raises(DataError, match="at least 3 folds"):
        open_dataset(root, "classification", OpenOptions(unseen_classes=True, folds=2))
    with pytest.raises(InputError, match="either unseen_classes or group_by"):
        open_dataset(root, "classification", OpenOptions(unseen_classes=True, group_by="(p.)"))


def test_splits_with_people_of_their_own_stay(tmp_path):
    root = tmp_path / "open"
    people(root / "train", [f"p{i:02d}" for i in range(10)])
    people(root / "test", [f"p{i:02d}" for i in range(10, 14)])
    with pytest.raises(DataError, match="same classes in every split"):
        open_dataset(root, "classification")
    splits = open_dataset(root, "classification", UNSEEN)
    check(splits)
    assert set(splits.classes[-4:]) == {"p10", "p11", "p12", "p13"}
    lines = ["path,person,split"]
    for split in ("train", "test"):
        for file in sorted((root / split).glob("*/*.png")):
            lines.append(f"{file.relative_to(root)},{file.parent.name},{split}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="one of the 10 classes of the training rows"):
        open_dataset(root / "labels.csv", "classification")
    table = open_dataset(root / "labels.csv", "classification", UNSEEN)
    check(table)
    assert table.classes == splits.classes


def test_a_split_with_people_of_training_is_refused(tmp_path):
    root = tmp_path / "closed"
    people(root / "train", [f"p{i:02d}" for i in range(8)])
    people(root / "val", ["p03", "p07"])
    with pytest.raises(DataError, match=r"2 of 2 of val are in train too.* 'p03'.*--unseen_classes false"):
        open_dataset(root, "classification", UNSEEN)


def test_a_split_in_which_nothing_has_a_like_is_refused(tmp_path):
    for split, images in (("train", 3), ("val", 1), ("test", 2)):
        people(tmp_path / split, ("p1", "p2"), images)
    splits = open_dataset(tmp_path, "classification")
    with pytest.raises(DataError, match=r"of the val split .* class in the split, but none of its 2 images"):
        require_pairs(splits)
    assert require_pairs(splits, gallery="train") == splits
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "test").rename(tmp_path / "val")
    splits = open_dataset(tmp_path, "classification")
    assert require_pairs(splits) == splits
    # its classes are of its own: none is in training
    shutil.rmtree(tmp_path / "train")
    people(tmp_path / "train", ("p3", "p4"))
    own = open_dataset(tmp_path, "classification", UNSEEN)
    assert require_pairs(own) == own
    with pytest.raises(DataError, match=r"among the training images, but none .*--retrieval.gallery split"):
        require_pairs(own, gallery="train")


def test_images_without_a_like_are_counted_and_named(tmp_path):
    people(tmp_path / "train", ("p1", "p2", "p3"))
    people(tmp_path / "val", ("p1", "p2"), 5)
    people(tmp_path / "val", ("p3",), 1)
    splits = open_dataset(tmp_path, "classification")
    (notice,) = require_pairs(splits).notices
    assert (notice.count, notice.total) == (1, 11)
    assert "val images without another of their class in the split" in notice.what
    assert "p3/0.png" in notice.first
    assert "of class 'p3'" in notice.first
    with pytest.raises(DataError, match=r"(?s)1 of 11 \(9\.09%\).*max_dropped"):
        require_pairs(splits, max_dropped=0.05)
