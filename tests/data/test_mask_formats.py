"""Masks as Pascal VOC, Cityscapes, ADE20K, COCO panoptic and CVAT lay them out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.mask_folders import ids, image, mask, names
from visionkit.data.formats.coco.panoptic import is_panoptic, panoptic
from visionkit.data.formats.masks.ade20k import is_ade20k
from visionkit.data.formats.masks.cityscapes import cityscapes_masks
from visionkit.data.formats.masks.sources import is_masks, mask_format, open_masks
from visionkit.data.formats.masks.validate import check_masks
from visionkit.data.formats.voc.class_maps import voc_masks
from visionkit.errors import DataError, InputError


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
