"""Folders of masks as people have them: every layout is read, every fault named."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit.data.check_masks import check_masks
from visionkit.data.cityscapes import cityscapes_masks
from visionkit.data.formats.ade20k import is_ade20k
from visionkit.data.formats.panoptic import is_panoptic, panoptic
from visionkit.data.formats.voc_masks import voc_masks
from visionkit.data.mask_layout import is_mask_folder
from visionkit.data.mask_sources import is_masks, mask_format, open_masks
from visionkit.data.masks import mask_folder
from visionkit.errors import DataError, InputError


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (seed, 90, 30)).save(path)


def mask(path, values=(0, 1), save_as=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = np.full((6, 8), values[0], np.uint8)
    for place, value in enumerate(values[1:], start=1):
        grid[place] = value
    Image.fromarray(grid).save(path, format=save_as)


def names(root, text="road\ncar\n", file="classes.txt"):
    root.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    return root


def ids(splits):
    return [
        [] if reader is None else [reader[i]["id"] for i in range(len(reader))]
        for reader in (splits.train, splits.val, splits.test)
    ]


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


def _voc(root, lists, files=("my photo 1", "my photo 2", "c"), values=(0, 1, 2)):
    for name in files:
        image(root / "JPEGImages" / f"{name}.jpg")
        mask(root / "SegmentationClass" / f"{name}.png", values)
    for name, text in lists.items():
        (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets/Segmentation" / f"{name}.txt").write_text(text, encoding="utf-8-sig")
    return root


def test_voc_layout_takes_own_classes(tmp_path):
    _voc(tmp_path, {"train": "my photo 1\nc 1\n", "val": "my photo 2\n"})
    assert len(voc_masks(tmp_path).classes) == 21
    own = names(tmp_path / "elsewhere", "background\nroad\ncar\n", "mine.txt") / "mine.txt"
    splits = open_masks(tmp_path, classes=own)
    assert splits.classes == ("background", "road", "car")
    assert ids(splits)[:2] == [
        ["JPEGImages/my photo 1.jpg", "JPEGImages/c.jpg"],
        ["JPEGImages/my photo 2.jpg"],
    ]
    names(tmp_path, "background\nstreet\ncar\n")
    assert open_masks(tmp_path).classes == ("background", "street", "car")
    assert check_masks(tmp_path) == []


def test_voc_layout_as_cvat_exports_it(tmp_path):
    _voc(tmp_path, {"default": "".join(f"{index}\n" for index in range(8))}, files=map(str, range(8)))
    names(
        tmp_path,
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:9,0,0::\ncar:8,0,0::\n",
        "labelmap.txt",
    )
    for index in range(8):
        drawn = np.zeros((6, 8, 3), np.uint8)
        drawn[1], drawn[2] = (9, 0, 0), (8, 0, 0)
        Image.fromarray(drawn).save(tmp_path / f"SegmentationClass/{index}.png")
    splits = open_masks(tmp_path)
    assert splits.classes == ("background", "road", "car")
    assert len(splits.train) + len(splits.val) == 8
    assert splits.val[0]["mask"][:3, 0].tolist() == [0, 1, 2]


def test_voc_layout_without_lists_takes_every_mask(tmp_path):
    _voc(tmp_path, {}, files=list(map(str, range(8))))
    assert is_masks(tmp_path)
    splits = open_masks(tmp_path)
    assert len(splits.train) + len(splits.val) == 8


def _cityscapes(root, frames, image_name, mask_name, values=(7, 8), images="leftImg8bit"):
    for split in ("train", "val"):
        for folder, name in frames:
            place = f"{split}/{folder}"
            image(root / images / place / image_name.format(name))
            mask(root / "gtFine" / place / mask_name.format(name), values)
    return root


NEW_YORK = [("new_york", f"new_york_000000_00000{i}") for i in range(4)]


@pytest.mark.parametrize(
    ("image_name", "mask_name"),
    [
        ("{}_leftImg8bit.png", "{}_gtFine_labelIds.png"),
        ("{}_leftImg8bit.jpg", "{}_gtFine_labelIds.png"),
        ("{}.png", "{}_labelIds.png"),
    ],
)
def test_cityscapes_names_are_cut_at_their_endings(tmp_path, image_name, mask_name):
    frames = [*NEW_YORK, ("", "frame_000001"), ("", "frame_000002")]
    _cityscapes(tmp_path, frames, image_name, mask_name)
    splits = open_masks(tmp_path)
    assert (len(splits.train), len(splits.val)) == (6, 6)
    assert splits.train[0]["mask"].unique().tolist() == [0, 1]
    assert check_masks(tmp_path) == []


def test_cityscapes_layout_of_other_tools_and_classes(tmp_path):
    _cityscapes(tmp_path / "cvat", NEW_YORK, "{}_leftImg8bit.png", "{}_gtFine_labelIds.png", (0, 1),
                "imgsFine/leftImg8bit")  # fmt: skip
    names(tmp_path / "cvat", "0 0 0 back\n9 9 9 road\n", "label_colors.txt")
    assert open_masks(tmp_path / "cvat").classes == ("back", "road")
    trained = _cityscapes(
        tmp_path / "t", NEW_YORK, "{}_leftImg8bit.png", "{}_gtFine_labelTrainIds.png", (0, 18)
    )
    assert open_masks(trained).train[0]["mask"].unique().tolist() == [0, 18]
    idd = _cityscapes(
        tmp_path / "idd", NEW_YORK, "{}_leftImg8bit.jpg", "{}_gtFine_labellevel3Ids.png", (0, 1)
    )
    with pytest.raises(DataError, match="Expected a list of the classes"):
        open_masks(idd)
    assert open_masks(idd, classes=names(tmp_path) / "classes.txt").classes == ("road", "car")


def test_two_frames_of_one_key_are_a_fault(tmp_path):
    _cityscapes(tmp_path, NEW_YORK, "{}_leftImg8bit.png", "{}_gtFine_labelIds.png")
    image(tmp_path / "leftImg8bit/train/new_york/new_york_000000_000001_leftImg8bit.jpg")
    with pytest.raises(DataError, match="one image of each name"):
        cityscapes_masks(tmp_path)
    assert len(check_masks(tmp_path)) == 1


def test_ade20k(tmp_path):
    for split, count in (("training", 3), ("validation", 2)):
        for index in range(count):
            image(tmp_path / f"images/{split}/ADE_{index}.jpg")
            mask(tmp_path / f"annotations/{split}/ADE_{index}.png", (1, 0, 2, 3))
    listed = enumerate(("wall", "building, edifice", "sky"), start=1)
    rows = ["Idx\tRatio\tTrain\tVal\tStuff\tName", *(f"{i}\t0.1\t9\t1\t1\t{name}" for i, name in listed)]
    names(tmp_path, "\r\n".join(rows), "objectInfo150.txt")
    assert is_ade20k(tmp_path)
    assert mask_format(tmp_path) == "ade20k"
    splits = open_masks(tmp_path)
    assert splits.classes == ("wall", "building", "sky")
    assert (len(splits.train), len(splits.val)) == (3, 2)
    assert splits.train[0]["mask"][:4, 0].tolist() == [0, 255, 1, 2]
    assert check_masks(tmp_path) == []
    names(tmp_path, "\n".join([*rows[:2], rows[3]]), "objectInfo150.txt")
    with pytest.raises(DataError, match="with Idx 2, but line 3"):
        open_masks(tmp_path)


def _panoptic(root, year="2017"):
    things = [{"id": 3, "name": "person", "isthing": 1}, {"id": 90, "name": "sky", "isthing": 0}]
    segments = [{"id": 70_000, "category_id": 90}, {"id": 5, "category_id": 3, "iscrowd": 0}]
    for split in ("train", "val"):
        stem = f"panoptic_{split}{year}"
        drawn = np.zeros((6, 8, 3), np.uint8)
        drawn[0], drawn[1] = (70_000 & 255, 70_000 >> 8 & 255, 70_000 >> 16), (5, 0, 0)
        (root / "annotations" / stem).mkdir(parents=True)
        for index in range(2):
            image(root / f"{split}{year}" / f"{index}.jpg")
            Image.fromarray(drawn).save(root / "annotations" / stem / f"{index}.png")
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(2)],
            "annotations": [
                {"image_id": i, "file_name": f"{i}.png", "segments_info": segments} for i in range(2)
            ],
            "categories": things,
        }
        (root / "annotations" / f"{stem}.json").write_text(json.dumps(content))
    return root


def test_coco_panoptic(tmp_path):
    root = _panoptic(tmp_path)
    assert is_panoptic(root)
    assert is_masks(root)
    splits = open_masks(root)
    assert splits.classes == ("person", "sky")
    assert (len(splits.train), len(splits.val)) == (2, 2)
    sample = splits.val[1]
    assert sample["mask"].dtype == torch.int64
    assert sample["mask"][:3, 0].tolist() == [1, 0, 255]
    assert check_masks(root) == []
    chosen = panoptic(root, categories=["person"])
    assert chosen.classes == ("background", "person")
    assert chosen.train[0]["mask"][:3, 0].tolist() == [0, 1, 255]
    single = open_masks(root / "annotations/panoptic_train2017.json")
    assert len(single.train) + len(single.val) == 2
    with pytest.raises(InputError, match="cat"):
        panoptic(root, categories=["cat"])


def test_faults_of_panoptic_files_are_named(tmp_path):
    root = _panoptic(tmp_path)
    file = root / "annotations/panoptic_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][1]["segments_info"].pop()
    file.write_text(json.dumps(content))
    (fault,) = check_masks(root)
    assert (fault.record, fault.field) == ("1.jpg", "segments_info")
    content["annotations"][0]["segments_info"][0]["category_id"] = 7
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"annotations\[0\].*got \[7\]"):
        panoptic(root)
    del content["annotations"][0]["segments_info"]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"annotations\[0\].*'segments_info' is missing"):
        panoptic(root)


def test_real_roads_and_streets_are_read_without_an_alarm(shared_data):
    roads = mask_folder(shared_data / "roads")
    assert (len(roads.train), len(roads.val), len(roads.test)) == (68, 12, 20)
    assert roads.notices == ()
    assert check_masks(shared_data / "roads") == []
    streets = mask_folder(shared_data / "camvid", classes=[f"c{i}" for i in range(11)], ignore=(11,))
    assert [notice.what for notice in streets.notices] == ["pixels of 64 training masks ignored"]
