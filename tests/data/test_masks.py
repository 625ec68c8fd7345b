"""Folders of images and masks: every layout and kind of file, and faults named with file and value."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit.data.formats.masks.cityscapes import cityscapes_masks
from visionkit.data.formats.masks.label_map import LabelMap, read_label_map
from visionkit.data.formats.masks.reader import mask_folder, read_mask
from visionkit.data.formats.masks.sources import mask_format
from visionkit.data.formats.masks.validate import check_masks
from visionkit.data.formats.voc.class_maps import voc_masks
from visionkit.data.splits import fingerprint
from visionkit.errors import DataError, InputError

CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "person", "bike"]


def _image(path, size=(6, 8), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def _mask(path, values, palette=None, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, dtype=np.uint8), "L" if mode == "L" else "P")
    if palette is not None:
        image.putpalette(palette)
    image.save(path)


def _values(seed=0, classes=3, size=(6, 8)):
    return np.random.default_rng(seed).integers(0, classes, size)


def _folder(root, layout="{split}/{kind}", splits=("train", "val", "test"), count=4):
    for number, split in enumerate(splits):
        for index in range(count):
            seed = 10 * number + index
            _image(root / layout.format(split=split, kind="images") / f"{index}.jpg", seed=seed)
            _mask(root / layout.format(split=split, kind="masks") / f"{index}.png", _values(seed))
    (root / "classes.txt").write_text("road\nsky  # above\n\ncar\n")
    return root


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
def test_reads_both_layouts(tmp_path, layout):
    splits = mask_folder(_folder(tmp_path, layout))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (4, 4, 4)
    assert splits.classes == ("road", "sky", "car")
    sample = splits.val[2]
    assert sample["image"].shape == (3, 6, 8)
    assert sample["mask"].dtype == torch.int64
    assert (sample["mask"].numpy() == _values(12)).all()
    assert sample["id"] == layout.format(split="val", kind="images") + "/2.jpg"
    assert sample["size"] == (6, 8)


def test_a_missing_validation_split_is_held_out_and_said(tmp_path):
    splits = mask_folder(_folder(tmp_path, splits=("train",), count=20), seed=1)
    assert (len(splits.train), len(splits.val)) == (16, 4)
    assert splits.test is None
    assert splits.facts["held_out"] == "4 of the 20 training images, held out with seed 1"
    ids = {splits.train[i]["id"] for i in range(16)} | {splits.val[i]["id"] for i in range(4)}
    assert len(ids) == 20


def test_flat_folder_and_endings_of_names(tmp_path):
    for index in range(4):
        _image(tmp_path / "images" / f"{index}.png")
        _mask(tmp_path / "masks" / f"{index}{('', '_mask', '_label', '_L')[index]}.png", _values(index))
    splits = mask_folder(tmp_path, classes=["a", "b", "c"])
    assert len(splits.train) + len(splits.val) == 4


@pytest.mark.parametrize("kind", ["L", "P", "1", "I;16", "RGB", "RGBA"])
def test_every_kind_of_mask_gives_the_same_classes(tmp_path, kind):
    values = _values(3, classes=2)
    colours = np.array([[10, 20, 30], [200, 0, 255]], np.uint8)
    file = tmp_path / "mask.png"
    if kind == "P":
        _mask(file, values, palette=bytes(colours.ravel()), mode="P")
    elif kind == "1":
        Image.fromarray(values.astype(bool)).save(file)
    elif kind == "I;16":
        Image.fromarray(values.astype(np.uint16)).save(file)
    elif kind in ("RGB", "RGBA"):
        Image.fromarray(colours[values]).convert(kind).save(file)
    else:
        _mask(file, values)
    labels = LabelMap(("a", "b"), {0: 0, 1: 1}, {(10, 20, 30): 0, (200, 0, 255): 1})
    assert (read_mask(file, labels).numpy() == values).all()


def test_label_map_file_maps_values_and_ignores(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("# ids\n7 road 128 64 128\n8 side walk 244 35 232\n0 ignore\n11 building 70 70 70\n")
    labels = read_label_map(file)
    assert labels.classes == ("road", "side walk", "building")
    assert labels.values == {7: 0, 8: 1, 0: 255, 11: 2, 255: 255}
    assert labels.colours == {(128, 64, 128): 0, (244, 35, 232): 1, (70, 70, 70): 2}
    _mask(tmp_path / "m.png", [[7, 8, 0, 11, 255]])
    assert read_mask(tmp_path / "m.png", labels).tolist() == [[0, 1, 255, 2, 255]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 a\n0 b\n", "line 2 repeats one: '0 b'"),
        ("a\na\n", "a more than once"),
        ("", "1 to 255 classes, but got 0"),
        ("70000 a\n", "value from 0 to 65535"),
        ("1 a 1 2 300\n", "colour from 0 to 255"),
        ("-1 a\n", "value from 0 to 65535"),
    ],
)
def test_bad_label_maps_are_refused(tmp_path, text, said):
    file = tmp_path / "labels.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        read_label_map(file)
    assert caught.value.path == str(file)


def test_strange_values_are_named_with_their_counts(tmp_path):
    _mask(tmp_path / "m.png", [[0, 1, 9, 9, 77]])
    with pytest.raises(DataError, match=r"m\.png.*2 classes, but got 9 \(2 pixels\), 77 \(1 pixels\)"):
        read_mask(tmp_path / "m.png", LabelMap.of(["a", "b"]))


def test_files_that_are_no_masks_are_refused(tmp_path):
    labels = LabelMap.of(["a", "b"])
    _image(tmp_path / "colour.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "lossy.jpg")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tiff")
    Image.new("LA", (4, 4), (1, 128)).save(tmp_path / "alpha.png")
    _mask(tmp_path / "whole.png", _values(size=(90, 90)))
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    cases = {
        "colour.png": "image in colours",
        "lossy.jpg": "lossless format, but it is JPEG",
        "float.tiff": "pixel type is 'F'",
        "alpha.png": "16 are half transparent",
        "cut.png": "decoding stopped",
        "absent.png": "there is none by this name",
    }
    for name, said in cases.items():
        with pytest.raises(DataError, match=said) as caught:
            read_mask(tmp_path / name, labels)
        assert name in str(caught.value)
    with pytest.raises(DataError, match="inside"):
        read_mask("../whole.png", labels, root=tmp_path / "sub")


def test_size_mismatch_and_missing_masks_are_refused(tmp_path):
    _folder(tmp_path)
    _mask(tmp_path / "train/masks/1.png", _values(size=(5, 8)))
    with pytest.raises(DataError, match=r"masks/1\.png.*images/1\.jpg \(6 x 8\), but it is 5 x 8"):
        mask_folder(tmp_path).train[1]
    (tmp_path / "val/masks/0.png").unlink()
    with pytest.raises(DataError, match=r"1 have none: val/images/0\.jpg"):
        mask_folder(tmp_path)


def test_a_folder_without_layout_or_classes_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no classes\.txt and none was given"):
        mask_folder(tmp_path)
    (tmp_path / "stuff").mkdir()
    with pytest.raises(DataError, match=r"train/images beside train/masks.*holds stuff"):
        mask_folder(tmp_path, classes=["a"])
    with pytest.raises(InputError, match="1 to 255 classes"):
        mask_folder(tmp_path, classes=[])


def test_check_reports_everything_at_once(tmp_path):
    _folder(tmp_path, count=8)
    assert check_masks(tmp_path) == []
    masks = tmp_path / "train/masks"
    _mask(masks / "0.png", np.full((6, 8), 7))
    _mask(masks / "1.png", _values(size=(6, 7)))
    _mask(masks / "2.png", np.full((6, 8), 255))
    (masks / "3.png").write_bytes(b"")
    (masks / "4.png").unlink()
    _mask(masks / "stray.png", _values())
    _mask(masks / "5.png", _values(), palette=bytes([0, 0, 0, 255, 0, 0, 0, 255, 0]), mode="P")
    _mask(masks / "6.png", _values(), palette=bytes([0, 0, 0, 0, 255, 0, 255, 0, 0]), mode="P")
    _image(masks / "7.png")
    (tmp_path / "val/images/1.jpg").write_bytes(b"<html>")
    faults = check_masks(tmp_path)
    found = {(fault.path.rpartition("/train/")[2].rpartition("/val/")[2], fault.field) for fault in faults}
    names = {(str(fault.path).split("/")[-1], fault.field) for fault in faults}
    assert names == {
        ("0.png", "mask"),
        ("1.png", "size"),
        ("2.png", "mask"),
        ("3.png", "header"),
        ("4.jpg", "mask"),
        ("stray.png", "image"),
        ("6.png", "palette"),
        ("7.png", "mode"),
        ("1.jpg", "header"),
    }
    assert len(faults) == len(found) == 9


def test_check_finds_a_foreground_that_would_be_ignored(tmp_path):
    for index in range(2):
        _image(tmp_path / "train/images" / f"{index}.jpg")
        _mask(tmp_path / "train/masks" / f"{index}.png", _values(index, classes=2) * 255)
    faults = check_masks(tmp_path, classes=["background", "cell"])
    assert len(faults) == 1
    assert "'255 cell'" in str(faults[0])
    (tmp_path / "classes.txt").write_text("0 background\n255 cell\n")
    assert check_masks(tmp_path) == []


def test_voc_layout(tmp_path):
    for name in ("a", "b", "c"):
        _image(tmp_path / "JPEGImages" / f"{name}.jpg")
        _mask(tmp_path / "SegmentationClass" / f"{name}.png", _values(classes=21), bytes(range(63)), "P")
        _mask(tmp_path / "SegmentationClassAug" / f"{name}.png", _values(classes=21))
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    (lists / "trainaug.txt").write_text("/JPEGImages/a.jpg /SegmentationClassAug/a.png\nc\n")
    splits = voc_masks(tmp_path)
    assert (len(splits.train), len(splits.val), splits.test) == (1, 1, None)
    assert len(splits.classes) == 21
    assert splits.train[0]["mask"].max() > 3
    assert len(voc_masks(tmp_path, extra=True).train) == 2
    (lists / "val.txt").write_text("b\nmissing\n")
    with pytest.raises(DataError, match=r"1 have none: JPEGImages/missing\.jpg"):
        voc_masks(tmp_path)


def test_the_fingerprint_follows_files_and_classes(tmp_path):
    _folder(tmp_path)
    first = fingerprint(mask_folder(tmp_path).train)
    assert fingerprint(mask_folder(tmp_path).train) == first
    assert fingerprint(mask_folder(tmp_path, classes=["a", "b", "c"]).train) != first
    _mask(tmp_path / "train/masks/0.png", np.zeros((6, 8)))
    assert fingerprint(mask_folder(tmp_path).train) != first


def test_real_road_scenes(shared_data):
    folder = shared_data / "camvid"
    splits = mask_folder(folder, classes=CAMVID, ignore=(11, 255))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (367, 101, 233)
    sample = splits.test[0]
    assert sample["image"].shape == (3, 360, 480)
    assert set(sample["mask"].unique().tolist()) <= {*range(11), 255}
    with pytest.raises(DataError, match=r"11 classes, but got 11 \("):
        [mask_folder(folder, classes=CAMVID).train[index] for index in range(20)]


def _cityscapes(root, *, without=""):
    for split, frames in (("train", 3), ("val", 2)):
        for i in range(frames):
            name = f"ulm_{i:06d}_000019"
            for kind, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
                folder = root / kind / split / "ulm"
                folder.mkdir(parents=True, exist_ok=True)
                if without != f"{kind}/{split}/{i}":
                    made = Image.new("RGB" if kind == "leftImg8bit" else "L", (6, 4), 7 * (i + 1) if i else 0)
                    made.save(folder / f"{name}_{ending}.png")
    return root


def test_cityscapes_ids_become_the_scored_classes(tmp_path):
    with pytest.raises(DataError, match=r"pixels of 3 training masks ignored: 48 of 72 .*gtFine/train/ulm"):
        cityscapes_masks(_cityscapes(tmp_path))
    splits = cityscapes_masks(tmp_path, max_dropped=1.0)
    assert len(splits.classes) == 19
    assert splits.classes[0] == "road"
    assert splits.classes[-1] == "bicycle"
    assert (len(splits.train), len(splits.val), splits.test) == (3, 2, None)
    # ids 0 (unlabelled), 14 (guard rail, not scored), 21 (vegetation)
    assert [int(splits.train[i]["mask"][0, 0]) for i in range(3)] == [255, 255, 8]
    assert mask_format(tmp_path) == "cityscapes"
    assert [fault.field for fault in check_masks(tmp_path)] == ["mask"] * 4  # masks without a counted pixel
    _cityscapes(tmp_path / "b", without="gtFine/val/1")
    with pytest.raises(DataError, match=r"1 have none: leftImg8bit/val/ulm/ulm_000001"):
        cityscapes_masks(tmp_path / "b")
    with pytest.raises(DataError, match="gtFine"):
        cityscapes_masks(tmp_path / "c")


def test_check_names_every_fault_of_a_voc_folder(tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for part in ("JPEGImages", "SegmentationClass"):
        (tmp_path / part).mkdir()
    names = ["fine", "large", "strange", "unmasked", "unpictured"]
    (lists / "train.txt").write_text("\n".join(names[:3]))
    (lists / "val.txt").write_text("\n".join(names[3:]))
    for name in names[:4]:
        Image.new("RGB", (9, 6), 9).save(tmp_path / "JPEGImages" / f"{name}.jpg")
    for name in (*names[:3], names[4]):
        mask = Image.new("P", (12, 6) if name == "large" else (9, 6), 99 if name == "strange" else 3)
        mask.putpalette([7, 7, 7] * 255 if name == "strange" else [0, 0, 0, 128, 0, 0] * 128)
        mask.save(tmp_path / "SegmentationClass" / f"{name}.png")
    faults = [(Path(fault.path).stem, fault.field) for fault in check_masks(tmp_path)]
    assert sorted(faults) == [
        ("large", "size"),
        ("strange", "mask"),
        ("strange", "palette"),
        ("unmasked", "mask"),
        ("unpictured", "image"),
    ]
