"""Folders of masks as people have them: every layout is read, every fault named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.data.mask_folders import ids, image, mask, names
from visionkit.data.formats.masks.layout import is_mask_folder
from visionkit.data.formats.masks.reader import mask_folder
from visionkit.data.formats.masks.sources import is_masks, open_masks
from visionkit.data.formats.masks.validate import check_masks
from visionkit.errors import DataError

LAYOUTS = {
    "split first": ("{split}/images/{name}.jpg", "{split}/masks/{name}.png"),
    "labels": ("{split}/images/{name}.jpg", "{split}/labels/{name}.png"),
    "kind first": ("images/{split}/{name}.jpg", "annotations/{split}/{name}.png"),
    "upper case": ("{split}/Images/{name}.JPG", "{split}/Masks/{name}.PNG"),
    "SegNet": ("{split}/{name}.png", "{split}annot/{name}.png"),
    "Kaggle CamVid": ("{split}/{name}.png", "{split}_labels/{name}_L.png"),
    "prefix": ("{split}/images/{name}.jpg", "{split}/masks/mask_{name}.png"),
    "suffix": ("{split}/images/{name}_sat.jpg", "{split}/masks/{name}_mask.png"),
    "both ends": ("{split}/images/{name}.jpg", "{split}/masks/{name}.jpg.png"),
    "nested": ("{split}/images/city/{name}.jpg", "{split}/masks/city/{name}.png"),
}


@pytest.mark.parametrize("aliases", [("train", "val", "test"), ("Training", "dev", "testing")])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_name_of_a_split(tmp_path, layout, aliases):
    names(tmp_path)
    for split, count in zip(aliases, (3, 2, 1)):
        for index in range(count):
            image(tmp_path / LAYOUTS[layout][0].format(split=split, name=index))
            mask(tmp_path / LAYOUTS[layout][1].format(split=split, name=index))
    splits = open_masks(tmp_path)
    assert [len(part) for part in ids(splits)] == [3, 2, 1]
    assert is_masks(tmp_path)
    assert splits.notices == ()
    assert splits.train[0]["mask"].unique().tolist() == [0, 1]
    assert check_masks(tmp_path) == []


def test_flat_camvid_folders(tmp_path):
    names(tmp_path, "0 0 0 Void\n64 128 64\tAnimal\n192 0 128 Archway\n", "label_colors.txt")
    for index in range(3):
        image(tmp_path / "701_StillsRaw_full" / f"{index}.png")
        drawn = np.zeros((6, 8, 3), np.uint8)
        drawn[0], drawn[1:] = (64, 128, 64), (192, 0, 128)
        (tmp_path / "LabeledApproved_full").mkdir(exist_ok=True)
        Image.fromarray(drawn).save(tmp_path / "LabeledApproved_full" / f"{index}_L.png")
    splits = open_masks(tmp_path)
    assert splits.classes == ("Animal", "Archway")
    assert splits.train[0]["mask"][:2, 0].tolist() == [0, 1]


def test_what_is_no_mask_folder(tmp_path):
    for place in ("yolo/images/train/a.jpg", "classes/train/cat/a.jpg", "plain/images/a.jpg"):
        image(tmp_path / place)
    (tmp_path / "yolo/labels/train").mkdir(parents=True)
    (tmp_path / "yolo/labels/train/a.txt").write_text("0 .5 .5 .1 .1\n")
    for root in ("yolo", "classes", "plain", "none", "yolo/labels/train/a.txt"):
        assert not is_masks(tmp_path / root)
        assert not is_mask_folder(tmp_path / root)


def _plain(root, count=2, splits=("train", "val")):
    names(root)
    for split in splits:
        for index in range(count):
            image(root / split / "images" / f"{index}.jpg")
            mask(root / split / "masks" / f"{index}.png")
    return root


def test_two_files_of_one_name_are_a_fault_of_reader_and_check(tmp_path):
    _plain(tmp_path / "m")
    mask(tmp_path / "m/train/masks/0.tif")
    with pytest.raises(DataError, match=r"0\.tif.*one mask of each name, but train/masks/0\.png"):
        mask_folder(tmp_path / "m")
    assert [fault.path for fault in check_masks(tmp_path / "m")] == ["train/masks/0.tif"]
    _plain(tmp_path / "i")
    image(tmp_path / "i/val/images/1.png")
    with pytest.raises(DataError, match=r"1\.png.*one image of each name, but val/images/1\.jpg"):
        mask_folder(tmp_path / "i")
    assert [fault.field for fault in check_masks(tmp_path / "i")] == ["image"]
    _plain(tmp_path / "s")
    image(tmp_path / "s/train/images/0_sat.jpg")
    with pytest.raises(DataError, match=r"train/images/0\.jpg and train/images/0_sat\.jpg both"):
        mask_folder(tmp_path / "s")


def test_folders_that_are_no_split_are_named(tmp_path):
    _plain(tmp_path, splits=("train", "val", "holdout"))
    image(tmp_path / "test/images/9.jpg")
    (notice,) = mask_folder(tmp_path).notices
    assert notice.count == 2
    assert "holdout/images beside holdout/masks, as 'holdout' is no name of a split (train" in str(notice)
    _plain(tmp_path / "b", splits=("train", "training"))
    with pytest.raises(DataError, match="one place for the split 'train', but found train/images"):
        mask_folder(tmp_path / "b")
    with pytest.raises(DataError, match="one place for the split"):
        check_masks(tmp_path / "b")


def test_masks_without_an_image_are_counted_and_refused_above_the_share(tmp_path):
    _plain(tmp_path, count=8)
    mask(tmp_path / "train/masks/stray.png")
    (tmp_path / "train/masks/notes.txt").write_text("x")
    found = {notice.what: (notice.count, notice.total) for notice in mask_folder(tmp_path).notices}
    assert found["masks without an image left out"] == (1, 17)
    assert found["files that are no images ignored"][0] == 1
    for index in range(3):
        mask(tmp_path / f"train/masks/stray{index}.png")
    with pytest.raises(DataError, match="masks without an image left out: 4 of 20"):
        mask_folder(tmp_path)
    assert len(mask_folder(tmp_path, max_dropped=0.5).train) == 8


def test_arrays_are_refused_with_the_way_out(tmp_path):
    names(tmp_path)
    image(tmp_path / "images/a.jpg")
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks/a.npy", np.zeros((6, 8)))
    image(tmp_path / "images/b.jpg")
    mask(tmp_path / "masks/b.png")
    assert "file of arrays" in str(check_masks(tmp_path)[0])
    (tmp_path / "images/a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.npy.*file of arrays"):
        mask_folder(tmp_path)


def _binary(root, kinds, text="background\nlesion\n"):
    names(root, text)
    for index, kind in enumerate(kinds):
        image(root / "images" / f"{index:02}.jpg")
        mask(root / "masks" / f"{index:02}.png", kind)
    return root


def test_masks_of_0_and_255_are_refused_with_both_ways_out(tmp_path):
    _binary(tmp_path, [(0, 255)] * 6)
    with pytest.raises(DataError, match=r"only 0 and 255: 6 of 6.*'255 lesion'.*'255 ignore'"):
        open_masks(tmp_path)
    (fault,) = check_masks(tmp_path)
    assert "'255 lesion'" in str(fault)
    names(tmp_path, "0 background\n255 lesion\n")
    assert open_masks(tmp_path).train[0]["mask"].unique().tolist() == [0, 1]
    assert check_masks(tmp_path) == []
    names(tmp_path, "0 background\n1 lesion\n255 ignore\n")
    with pytest.raises(DataError, match="classes without a pixel in the training masks"):
        open_masks(tmp_path)  # said and done: nothing is left to learn


def test_mixed_masks_are_found_by_file(tmp_path):
    _binary(tmp_path, [(0, 1), (0, 1), *[(0, 255)] * 6])
    with pytest.raises(DataError, match="only 0 and 255: 6 of 8"):
        open_masks(tmp_path)
    faults = check_masks(tmp_path)
    assert [fault.path for fault in faults] == [f"masks/{index:02}.png" for index in range(2, 8)]
    names(tmp_path, "0 background\n1 lesion\n255 lesion\n")
    assert check_masks(tmp_path) == []
    assert open_masks(tmp_path).notices == ()


def test_ignored_borders_are_no_alarm(tmp_path):
    _binary(tmp_path, [(0, 1, 255)] * 19 + [(0, 255)])
    splits = open_masks(tmp_path)
    assert {notice.what for notice in splits.notices} == {
        "training masks that hold only 0 and 255",
        "pixels of 20 training masks ignored",
    }
    assert len(check_masks(tmp_path)) == 1
    names(tmp_path, "0 background\n1 lesion\n255 ignore\n")
    assert check_masks(tmp_path) == []
    assert len(open_masks(tmp_path).notices) == 1


def test_classes_that_training_never_shows_are_said(tmp_path):
    _binary(tmp_path, [(0, 1)] * 4, "background\nlesion\ncyst\n")
    (notice,) = open_masks(tmp_path).notices
    assert (notice.count, notice.total) == (1, 3)
    assert "cyst" in notice.first
    assert "all 4 were read" in notice.what


def test_most_pixels_ignored_is_refused(tmp_path):
    _binary(tmp_path, [(255, 0, 1)] * 4, "background\nlesion\ncyst\n")
    with pytest.raises(DataError, match=r"pixels of 4 training masks ignored: 128 of 192 \(66.67%\)"):
        open_masks(tmp_path)
    assert len(open_masks(tmp_path, max_dropped=0.7).train) == 3


def test_real_roads_and_streets_are_read_without_an_alarm(shared_data):
    roads = mask_folder(shared_data / "roads")
    assert (len(roads.train), len(roads.val), len(roads.test)) == (64, 16, 20)
    assert roads.notices == ()
    assert check_masks(shared_data / "roads") == []
    streets = mask_folder(shared_data / "camvid", classes=[f"c{i}" for i in range(11)], ignore=(11,))
    assert [notice.what for notice in streets.notices] == ["pixels of 64 training masks ignored"]
