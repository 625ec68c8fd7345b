"""Folders of images: layouts, hold-outs, and errors that show the tree."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from visionkit.data import fingerprint, image_folder
from visionkit.data.formats.dataset_report import check_dataset
from visionkit.data.formats.folder.reader import ImageFolder
from visionkit.data.formats.validate import check_folder
from visionkit.data.keyed_dataset import drop_unreadable
from visionkit.errors import DataError


def _fill(root, splits=("",), classes=("cat", "dog"), count=5):
    for split in splits:
        for name in classes:
            place = root / split / name
            place.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 6), (i, 0, 0)).save(place / f"{i}.png")
    return root


def test_three_splits_by_their_usual_names(tmp_path):
    splits = image_folder(_fill(tmp_path, ("Training", "valid", "test")))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [10, 10, 10]
    assert splits.classes == ("cat", "dog")
    assert splits.train.labels == [0] * 5 + [1] * 5
    sample = splits.val[7]
    assert (sample["id"], int(sample["label"]), sample["size"]) == ("dog/2.png", 1, (6, 8))
    assert "held_out" not in splits.facts


def test_without_a_validation_folder_some_training_images_are_held_out(tmp_path):
    splits = image_folder(_fill(tmp_path, ("train", "test")), held_out=0.2, seed=1)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (8, 2, 10)
    assert sorted(splits.val.labels) == [0, 1]
    assert "2 of 10 training images" in splits.facts["held_out"]
    assert splits.val.ids == image_folder(tmp_path, seed=1).val.ids


def test_class_folders_alone_do(tmp_path):
    (_fill(tmp_path) / "cat" / "notes.txt").write_text("mine")
    splits = image_folder(tmp_path)
    assert (len(splits.train), len(splits.val), splits.test) == (8, 2, None)
    assert splits.facts["ignored_files"] == 1


def test_hidden_images_are_left_out_and_told(tmp_path):
    root = _fill(tmp_path, ("train", "test"))
    _fill(root, ("train",), (".bird",), count=3)
    (root / "train" / "cat" / ".thumbnails").mkdir()
    shutil.copy(root / "train" / "cat" / "0.png", root / "train" / "cat" / ".thumbnails")
    (root / "train" / "dog" / "._0.png").write_bytes(b"a resource fork")
    (root / ".git").mkdir()
    (root / "test" / "cat" / ".DS_Store").write_bytes(b"")
    (root / "train" / ".cache").mkdir()
    (root / "train" / ".cache" / "index.txt").write_text("no image")
    splits = image_folder(root)
    assert splits.classes == ("cat", "dog")
    (notice,) = [notice for notice in splits.notices if "hidden" in notice.what]
    assert notice.what == "train: hidden images and folders ignored"
    assert notice.count == 3
    assert ".bird: its name begins with a dot" in notice.first
    assert not any("hidden" in notice.what for notice in image_folder(_fill(tmp_path / "plain")).notices)


def test_faults_of_the_layout_are_named(tmp_path):
    with pytest.raises(DataError, match="none by this name"):
        image_folder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"train/<class>/\*\.jpg(.|\n)*an empty folder"):
        image_folder(tmp_path / "empty")
    with pytest.raises(DataError, match=r"no folder to train on(.|\n)*found(.|\n)*only/test/"):
        image_folder(_fill(tmp_path / "only", ("test",)))
    with pytest.raises(DataError, match="'val' and 'valid'"):
        image_folder(_fill(tmp_path / "twice", ("train", "val", "valid")))
    hollow = _fill(tmp_path / "hollow", ("train", "val"))
    (hollow / "train" / "emu").mkdir()
    with pytest.raises(DataError, match="class 'emu'") as caught:
        image_folder(hollow)
    assert caught.value.path.endswith("train/emu")


def test_classes_that_differ_show_both_lists(tmp_path):
    _fill(tmp_path, ("train",))
    _fill(tmp_path, ("val",), ("cat", "dgo"))
    with pytest.raises(DataError, match=r"val lacks 1 of the 2 of train: \['dog'\] and adds 1: \['dgo'\]"):
        image_folder(tmp_path)


def test_check_reports_every_fault_at_once(tmp_path):
    _fill(tmp_path, ("train", "val"))
    assert check_dataset(tmp_path)[0].ok
    (tmp_path / "train/cat/0.png").write_bytes(b"")
    (tmp_path / "val/dog/3.png").write_bytes(b"<html>")
    (tmp_path / "val/emu").mkdir()
    report = check_dataset(tmp_path)[0]
    assert (report.format, report.sizes, len(report.errors)) == ("a folder for each class", None, 4)
    assert "4 errors" in str(report)
    assert len(check_folder(tmp_path)) == 4
    for said in ("train/cat/0.png", "val/dog/3.png", "val/emu", "adds 1: ['emu']"):
        assert said in str(report)


def test_the_faulty_are_skipped_counted_and_limited(tmp_path):
    _fill(tmp_path)
    (tmp_path / "cat/1.png").write_bytes(b"")
    reader = ImageFolder(tmp_path)
    with pytest.raises(DataError, match=r"at most 0\.10% of the 10(.|\n)*1 are(.|\n)*cat/1\.png"):
        drop_unreadable(reader)
    kept, errors = drop_unreadable(reader, limit=0.1)
    assert (len(kept), len(errors)) == (9, 1)
    assert "cat/1.png" not in kept.ids
    assert [kept[i]["id"] for i in range(9)] == kept.ids


def test_a_changed_file_changes_the_fingerprint(tmp_path):
    before = fingerprint(ImageFolder(_fill(tmp_path)))
    assert fingerprint(ImageFolder(tmp_path)) == before
    Image.new("RGB", (80, 60)).save(tmp_path / "cat/0.png")
    assert fingerprint(ImageFolder(tmp_path)) != before


def test_real_photographs(shared_data):
    splits = image_folder(shared_data / "cifar10", held_out=0.1)
    assert (len(splits.train), len(splits.val), len(splits.test), len(splits.classes)) == (
        9000,
        1000,
        2000,
        10,
    )
    assert splits.test[0]["image"].shape == (3, 32, 32)
