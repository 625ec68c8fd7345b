"""What the folders of a data set of classes mean, and what is said of files that are not read."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visionkit.data.formats.dataset_report import check_dataset
from visionkit.data.formats.folder.layout import folder_layout
from visionkit.data.formats.folder.reader import ImageFolder, image_folder, is_image_folder
from visionkit.data.formats.validate import check_folder
from visionkit.data.read_image import IMAGE_SUFFIXES, UNREAD_SUFFIXES, read_image
from visionkit.data.splits import SPLIT_ALIASES
from visionkit.errors import DataError, printable

JPEG = "JPEG"


def lay(root, *folders, count=3, name="{}.png"):
    """Make folders of small images."""
    for folder in folders:
        place = root / folder
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (8, 6), (number, 0, 0)).save(place / name.format(number), format="PNG")
    return root


def said(notices):
    return [str(notice) for notice in notices]


def test_a_class_may_be_called_train(tmp_path):
    root = lay(
        tmp_path / "vehicles", *(f"{name}/{part}" for name in ("bus", "car", "train") for part in "xy")
    )
    splits = image_folder(root)
    assert splits.classes == ("bus", "car", "train")
    assert len(splits.train) + len(splits.val) == 18
    assert "folders with the name of a split taken for a class" in said(splits.notices)[0]
    assert "'train' in " in said(splits.notices)[0]
    flat = image_folder(lay(tmp_path / "flat", "bus", "car", "train"))
    assert flat.classes == ("bus", "car", "train")
    medical = image_folder(lay(tmp_path / "medical", "test", "control"))
    assert (medical.classes, len(medical.notices)) == (("control", "test"), 1)


def test_folders_beside_the_splits_are_named(tmp_path):
    root = lay(tmp_path, "train/a", "train/b", "val/a", "val/b", count=20)
    (root / "logs").mkdir()
    (root / "logs" / "x.txt").write_text("")
    notices = image_folder(root).notices
    assert "folders beside the splits ignored (logs): " in said(notices)[0]
    lay(root, "unlabeled", count=4)
    splits = image_folder(root)
    assert splits.classes == ("a", "b")
    assert any(
        text.startswith("images beside the splits ignored (unlabeled): 4 of 84")
        for text in said(splits.notices)
    )
    lay(root, "unlabeled", count=40)
    with pytest.raises(DataError, match=r"at most 10\.0%(.|\n)*unlabeled has the name of no split"):
        image_folder(root)


def test_what_cannot_be_told_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'train' has folders of its own \('cat', 'dog'\)(.|\n)*'unlabeled'"):
        image_folder(lay(tmp_path / "a", "train/cat", "train/dog", "unlabeled"))
    with pytest.raises(DataError, match=r"Rename 'test_set' to 'test', 'training_set' to 'train'"):
        image_folder(lay(tmp_path / "b", "training_set/cat", "training_set/dog", "test_set/cat"))
    with pytest.raises(DataError, match=r"Move cat/test to test/cat"):
        image_folder(lay(tmp_path / "c", "cat/train", "cat/test", "dog/train", "dog/test"))
    with pytest.raises(DataError, match=r"Give .*archive if those"):
        image_folder(lay(tmp_path / "d", "archive/train/cat", "archive/train/dog", "archive/test/cat"))
    with pytest.raises(DataError, match=r"Give .*images if those"):
        image_folder(lay(tmp_path / "e", "images/cat", "images/dog"))
    one = image_folder(lay(tmp_path / "f", "cats"))
    assert "data sets of one class" in said(one.notices)[0]


def test_test_images_without_classes_are_left_out_and_named(tmp_path):
    for number, place in enumerate(("test", "test/unknown", "Testing/test")):
        root = lay(tmp_path / str(number), "train/cat", "train/dog", place)
        splits = image_folder(root)
        assert (splits.classes, splits.test) == (("cat", "dog"), None)
        assert "images of test without a class left out: 3 of" in said(splits.notices)[0]
        assert check_dataset(root)[0].ok
    # A validation folder without classes cannot be used for choices: some training images are.
    splits = image_folder(lay(tmp_path / "val", "train/cat", "train/dog", "val"))
    assert "held_out" in splits.facts


OTHERS = {
    "YOLO boxes": ("images/train", "images/val", "labels/train"),
    r"YOLO boxes \(": ("train/images", "train/labels", "valid/images"),
    "images and masks": ("train/images", "train/masks"),
    "a Pascal VOC folder": ("JPEGImages", "SegmentationClass"),
    "Cityscapes masks": ("leftImg8bit/train/bonn", "gtFine/train/bonn"),
    "images with annotations": ("images", "annotations"),
    "captions are read by": ("Images",),
    "images and 0.xml": ("train", "test"),
    "write a CSV file": ("train", "test "),
    "give .*tags.csv": ("train", "val"),
}


def test_the_layout_of_another_task_is_named(tmp_path):
    for number, (what, folders) in enumerate(OTHERS.items()):
        root = lay(tmp_path / str(number), *(folder.strip() for folder in folders))
        if "captions" in what:
            (root / "captions.txt").write_text("image,caption\n0.png,a dog\n")
        if "xml" in what:
            (root / "train" / "0.xml").write_text("<annotation/>")
        if "tags" in what:
            (root / "tags.csv").write_text("path,label\n")
        assert not is_image_folder(root), what
        with pytest.raises(DataError, match=what):
            image_folder(root)
        assert re.search(what, str(check_folder(root)[0]))
    assert len(OTHERS) == 10
    assert is_image_folder(lay(tmp_path / "classes", "mask", "no_mask", "masks"))
    assert not is_image_folder(tmp_path / "nothing")
    assert not is_image_folder(tmp_path / "classes/mask/0.png")


@settings(max_examples=40)
@given(
    names=st.sets(
        st.sampled_from(["cat", "dog", "train", "Training", "val", "DEV", "test", "bus"]), min_size=1
    )
)
def test_no_folder_with_images_goes_missing(tmp_path_factory, names):
    """Each folder is a split, a class, or named in a notice or an error."""
    root = tmp_path_factory.mktemp("layout")
    for name in names:
        lay(root / name, "a", "b", count=1)
    aliases = {alias for all_of in SPLIT_ALIASES.values() for alias in all_of}
    try:
        splits = image_folder(root, max_dropped=1.0)
    except DataError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert any(name in refused for name in names)
        return
    text = " ".join(said(splits.notices))
    for name in names:
        used = {folder.name for folder in folder_layout(root).splits.values()}
        assert name in used or name in splits.classes or name in text
        assert not (name.lower() in aliases and name in splits.classes) or name in text


def test_endings_of_jpeg_and_netpbm_are_read(tmp_path):
    lay(tmp_path, "a", "b", count=1)
    endings = [".jfif", ".jpe", ".jfi", ".JIF", ".ppm", ".pgm", ".pbm", ".pnm", ".apng"]
    formats = [JPEG] * 4 + ["PPM"] * 4 + ["PNG"]
    modes = ["RGB"] * 5 + ["L", "1", "RGB", "RGB"]
    for ending, form, mode in zip(endings, formats, modes, strict=True):
        Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode).save(tmp_path / f"a/x{ending}", format=form)
    reader = ImageFolder(tmp_path)
    assert (len(reader), reader.notices) == (11, ())
    for index in range(len(reader)):
        if "x" in reader.ids[index]:
            assert reader[index]["image"].float().mean() > 250, reader.ids[index]
    assert not IMAGE_SUFFIXES & UNREAD_SUFFIXES
    deep = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    Image.fromarray(deep).save(tmp_path / "deep.pgm")
    assert abs(read_image(tmp_path / "deep.pgm").float().mean().item() - 127.5) < 1


def test_images_that_are_not_read_are_counted_and_limited(tmp_path):
    root = lay(tmp_path, "a", "b", count=20)
    (root / "a/notes.txt").write_text("mine")
    (root / "a/photo.HEIC").write_bytes(b"x")
    Image.new("RGB", (8, 6)).save(root / "b" / "0001", format=JPEG)  # no ending, and an image
    Image.new("RGB", (8, 6)).save(root / "b" / "u.jpg_large", format=JPEG)
    os.mkfifo(root / "b" / "pipe")
    splits = image_folder(root)
    texts = said(splits.notices)
    assert any(text.startswith("images ignored for their format or file ending: 3 of 43") for text in texts)
    assert any(text.startswith("files that are no images ignored: 2 of 43") for text in texts)
    assert "a/photo.HEIC: convert it" in "".join(texts)
    assert check_dataset(root)[0].ok
    assert "2 notices" in str(check_dataset(root)[0])
    (tmp_path / ".all/x").mkdir(parents=True)
    (tmp_path / ".all/x/1.heic").write_bytes(b"x")
    with pytest.raises(DataError, match="1 are images in a format that is not read"):
        ImageFolder(tmp_path / ".all")
    for number in range(5):
        (root / f"a/{number}.heic").write_bytes(b"x")
    for call in (lambda: image_folder(root), lambda: ImageFolder(root)):
        with pytest.raises(DataError, match=r"at most 10\.0%(.|\n)*0\.heic"):
            call()
    assert "8 of 48" in str(check_folder(root)[0])
    assert check_folder(root, max_dropped=0.5) == []
    assert len(image_folder(root, max_dropped=0.5).notices) == 2


def test_masks_among_the_images_and_loose_images_are_refused(tmp_path):
    lay(tmp_path / "busi", "benign", "normal")
    lay(tmp_path / "busi", "benign", name="{}_mask.png")
    with pytest.raises(DataError, match=r"named like the mask of another one: 3 of 9(.|\n)*0_mask\.png"):
        image_folder(tmp_path / "busi")
    lay(tmp_path, "loose/a", "loose/b", "loose")
    with pytest.raises(DataError, match="images outside of the class folders ignored: 3 of 9"):
        image_folder(tmp_path / "loose")


def test_twelve_bits_in_sixteen_are_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, brightest in (("a", 4095), ("b", 65535)):
        (tmp_path / name).mkdir()
        deep = np.linspace(0, brightest, 48).astype(np.uint16).reshape(6, 8)
        Image.fromarray(deep).save(tmp_path / name / "0.png")
    assert len(image_folder(".").notices) == 1
    notices = image_folder(tmp_path).notices
    assert [(notice.what, notice.count) for notice in notices] == [("16-bit images that are nearly black", 1)]
    assert "4,095 of 65,535" in notices[0].first


def test_names_that_are_no_utf8_can_be_printed(tmp_path):
    root = lay(tmp_path, "b")
    place = os.fsencode(root) + b"/caf\xe9"
    os.mkdir(place)  # noqa: PTH102 (bytes)
    with open(place + b"/\xff.png", "wb") as stream:  # noqa: PTH123
        Image.new("RGB", (8, 6)).save(stream, format="PNG")
    splits = image_folder(root, held_out=0.3)
    ids = [*splits.train.ids, *splits.val.ids]
    assert splits.classes == ("b", "caf\\xe9")
    assert "caf\\xe9/\\xff.png" in ids
    for text in (*ids, *splits.classes, printable("\udce9\ud800a")):
        text.encode()
    with open(place + b"/\xfe.png", "wb"):  # noqa: PTH123
        pass
    faults = check_folder(root)
    assert len(faults) == 1
    str(faults[0]).encode()


def test_classes_that_differ_by_case_are_said(tmp_path):
    splits = image_folder(lay(tmp_path / "one", "Cat", "cat", "dog"))
    assert "'Cat' and 'cat' are two classes" in said(splits.notices)[0]
    many = [f"{split}/{split}{i:02d}" for split in ("train", "val") for i in range(20)]
    with pytest.raises(DataError, match=r"'train11', \.\.\. 20 in all") as caught:
        image_folder(lay(tmp_path / "many", *many, count=1))
    assert len(str(caught.value)) < 1500
    with pytest.raises(DataError, match="'cat' and 'Cat' differ by case"):
        image_folder(lay(tmp_path / "two", "train/cat", "train/dog", "val/Cat", "val/dog"))


def test_real_folders_have_no_notice(shared_data):
    looked = 0
    for name in ("cifar10", "gtsrb", "busi", "orl"):
        assert is_image_folder(shared_data / name), name
        assert image_folder(shared_data / name).notices == (), name
        looked += 1
    for name in ("bccd", "camvid", "roads", "flickr1k", "lsp", "mouse", "galaxies", "art"):
        assert not is_image_folder(shared_data / name), name
        looked += 1
    assert looked == 12
