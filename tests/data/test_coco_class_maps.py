"""Outlines painted into class maps: order, overlaps, crowds, stuff; torchvision's rule; faults are named."""

from __future__ import annotations

import importlib
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from tests.data.coco_folder import HEIGHT, WIDTH, document, square, write
from visionkit.data.formats.coco import class_maps
from visionkit.data.formats.coco.class_maps import COCO_VOC_CATEGORIES, CocoClassMaps, coco_class_maps
from visionkit.data.formats.coco.reader import CocoReader
from visionkit.data.formats.masks.sources import mask_format, open_masks
from visionkit.data.formats.masks.validate import check_masks, read_masks
from visionkit.data.formats.voc.class_maps import VOC_CLASSES
from visionkit.errors import DataError, InputError


def _reader(place, content=None, **settings):
    file = write(place, content or document())
    return CocoClassMaps(CocoReader(file, place / "images", masks=True), **settings)


def _crossing():
    """A cat of 20, a dog of 8 in its corner, an emu that is none of the chosen, and a crowd of cats."""
    content = document()
    made = [(2, 10, 5, 20), (90, 26, 20, 8), (40, 12, 7, 6)]
    content["annotations"] = [
        {"id": i + 1, "image_id": 7, "category_id": c, "bbox": [x, y, side, side], "area": side**2,
         "iscrowd": 0, "segmentation": square(x, y, side)}
        for i, (c, x, y, side) in enumerate(made)
    ] + [document()["annotations"][3]]  # fmt: skip
    return content


def test_smaller_objects_lie_on_top_and_crowds_are_ignored(tmp_path):
    reader = _reader(tmp_path)
    assert reader.classes == ("background", "cat", "emu", "dog")
    sample = reader[0]
    mask = sample["mask"]
    assert set(sample) == {"image", "mask", "id", "size"}
    assert mask.dtype == torch.int64
    assert mask.shape == (HEIGHT, WIDTH)
    assert mask[10, 5] == 1
    assert mask[6, 33] == 3
    assert mask[30, 15] == 255  # the crowd alone
    assert mask[10, 15] == 1  # an object over the crowd
    assert mask[0, 0] == 0
    assert (reader[2]["mask"] == 0).all()


@pytest.mark.parametrize("overlap", ["smallest", "ignore"])
def test_overlaps(tmp_path, overlap):
    reader = _reader(tmp_path, _crossing(), categories=["dog", "cat"], overlap=overlap)
    assert reader.classes == ("background", "dog", "cat")
    mask = reader[0]["mask"]
    assert mask[22, 28] == (1 if overlap == "smallest" else 255)  # dog over cat
    assert mask[22, 32] == 1
    assert mask[9, 14] == (0 if overlap == "smallest" else 2)  # an emu before a cat
    assert mask[6, 29] == 2


def _scattered(seed):
    """Squares of three categories at random places."""
    rng = np.random.default_rng(seed)
    content = document()
    places = [tuple(rng.integers((0, 0, 3), (40, 20, 20)).tolist()) for _ in range(8)]
    content["annotations"] = [
        {"id": i + 1, "image_id": 7, "category_id": (2, 40, 90)[i % 3], "iscrowd": 0, "area": 1.0,
         "bbox": [x, y, side, side], "segmentation": square(x, y, side)}
        for i, (x, y, side) in enumerate(places)
    ]  # fmt: skip
    return content


def test_ignored_overlaps_follow_torchvisions_rule(tmp_path):
    seen = set()
    for seed in range(4):
        content = _scattered(seed)
        mask = _reader(tmp_path, content, categories=["cat", "dog"], overlap="ignore")[0]["mask"].numpy()
        # their reference: categories remapped, the maximum over masks, several masks on a pixel are 255
        names = {2: 1, 90: 2}
        kept = [each for each in content["annotations"] if each["category_id"] in names]
        outlines = np.stack([
            coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(each["segmentation"], HEIGHT, WIDTH)))
            for each in kept
        ])  # fmt: skip
        expected = (outlines * np.array([names[each["category_id"]] for each in kept])[:, None, None]).max(0)
        expected[outlines.sum(0) > 1] = 255
        assert (mask == expected).all()
        seen |= set(np.unique(mask).tolist())
    assert seen == {0, 1, 2, 255}


def _stuff():
    content = document()
    names = {100: "sky", 101: "grass", 183: "other"}
    content["categories"] = [{"id": number, "name": name} for number, name in names.items()]
    content["annotations"] = [
        {"id": 100 * n + i, "image_id": image, "category_id": c, "bbox": [0, top, WIDTH, rows], "iscrowd": 0,
         "area": WIDTH * rows, "segmentation": {"size": [h, w], "counts": _rows(h, w, top, top + rows)}}
        for n, (image, h, w) in enumerate([(7, HEIGHT, WIDTH), (17, 30, 50), (27, HEIGHT, WIDTH)], start=1)
        for i, (c, top, rows) in enumerate([(100, 0, 10), (101, 10, 10), (183, 20, 5)])
    ]  # fmt: skip
    for each in content["annotations"]:
        each["bbox"][2] = each["segmentation"]["size"][1]
    return content


def _rows(height, width, top, bottom):
    """Run lengths, down the columns, of the rows from top to bottom."""
    plane = np.zeros((height, width), dtype=np.uint8)
    plane[top:bottom] = 1
    flat = plane.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, len(flat)]).tolist()
    return counts if not flat[0] else [0, *counts]


def test_stuff_lies_behind_things_and_the_rest_is_ignored(tmp_path):
    write(tmp_path, document(), name="instances_train2017.json")
    write(tmp_path, _stuff(), name="stuff_train2017.json")
    splits = coco_class_maps(tmp_path / "instances_train2017.json")
    assert splits.classes == ("cat", "emu", "dog", "sky", "grass")
    assert splits.facts["stuff"] is True
    samples = {
        reader[i]["id"]: reader[i]["mask"]
        for reader in (splits.train, splits.val) for i in range(len(reader))
    }  # fmt: skip
    mask = samples["0.png"]
    assert mask[0, 40] == 3
    assert mask[15, 45] == 4
    assert mask[22, 50] == 255  # "other" is not painted
    assert mask[38, 50] == 255
    assert mask[10, 5] == 0  # a cat before the sky
    chosen = coco_class_maps(tmp_path / "instances_train2017.json", categories=["cat"])
    assert chosen.classes == ("background", "cat")


def test_faults_are_named(tmp_path):
    with pytest.raises(InputError, match=r"category 'ca'.*'cat'"):
        _reader(tmp_path, categories=["ca"])
    plain = CocoReader(tmp_path / "train.json", tmp_path / "images")
    with pytest.raises(InputError, match="readers with masks"):
        CocoClassMaps(plain)
    stuff = _stuff()
    stuff["images"] = stuff["images"][:2]
    stuff["annotations"] = [each for each in stuff["annotations"] if each["image_id"] != 27]
    write(tmp_path, stuff, name="stuff_train.json")
    with pytest.raises(DataError, match=r"stuff of every image.*2\.png"):
        coco_class_maps(tmp_path, stuff=True)
    (found,) = check_masks(tmp_path)
    assert (found.record, found.path) == ("2.png", str(tmp_path / "stuff_train.json"))
    content = document()
    del content["annotations"][1]["segmentation"]
    content["annotations"][2]["category_id"] = 3
    write(tmp_path, content)
    assert {fault.field for fault in check_masks(tmp_path)} == {"segmentation", "category_id"}
    assert {fault.field for fault in check_masks(tmp_path, left_out=False)} == {"segmentation"}
    (tmp_path / "stuff_train.json").unlink()
    write(tmp_path, document())
    with pytest.raises(InputError, match="there are none"):
        coco_class_maps(tmp_path, categories=["emu"], min_area=50)


def _counted(seen, call, path, *args, **options):
    seen[Path(path).name] += 1
    return call(path, *args, **options)


def test_files_are_read_once_and_images_decoded_once(tmp_path, monkeypatch):
    write(tmp_path, document(), name="instances_train2017.json")
    write(tmp_path, _stuff(), name="stuff_train2017.json")
    scanned, decoded = Counter(), Counter()
    images = importlib.import_module("visionkit.data.read_image")
    for module, name, seen in ((class_maps, "scan_coco", scanned), (images, "_decoded", decoded)):
        monkeypatch.setattr(module, name, partial(_counted, seen, getattr(module, name)))
    source = read_masks(tmp_path / "instances_train2017.json")
    splits = source.splits(0.1)
    assert splits.facts["stuff"] is True
    assert source.errors(True) == []
    assert scanned == {"instances_train2017.json": 1, "stuff_train2017.json": 1}
    assert decoded == dict.fromkeys(("0.png", "1.png", "2.png"), 1)
    decoded.clear()
    assert splits.val[0]["mask"].max() == 255
    assert list(decoded.values()) == [1]


def test_stuff_of_another_size_is_named(tmp_path):
    stuff = _stuff()
    image = next(each for each in stuff["images"] if each["id"] == 7)
    image["height"] += 1
    stuff["annotations"] = [each for each in stuff["annotations"] if each["image_id"] != 7]
    write(tmp_path, document(), name="instances_train.json")
    write(tmp_path, stuff, name="stuff_train.json")
    (found,) = check_masks(tmp_path / "instances_train.json")
    assert (found.record, found.field, found.path) == ("0.png", "size", str(tmp_path / "stuff_train.json"))
    splits = coco_class_maps(tmp_path / "instances_train.json")
    readers = [(reader, index) for reader in (splits.train, splits.val) for index in range(len(reader))]
    (reader, index) = next(pair for pair in readers if pair[0].ids[pair[1]] == "0.png")
    with pytest.raises(DataError, match="as its record says") as caught:
        reader[index]
    assert caught.value.path == str(tmp_path / "stuff_train.json")


def test_the_right_reader_is_found(tmp_path):
    write(tmp_path, document())
    assert mask_format(tmp_path) == "coco"
    (tmp_path / "names.txt").write_text("background\ndog\n")
    assert open_masks(tmp_path, classes=tmp_path / "names.txt").classes == ("background", "dog")
    write(tmp_path, document(), name="val.json")
    kept = coco_class_maps(tmp_path, categories=["dog"], min_area=90, max_dropped=1.0)
    assert "2 training images" in kept.facts["left_out"]
    assert len(COCO_VOC_CATEGORIES) == len(VOC_CLASSES) - 1 == 20
    with pytest.raises(DataError, match="none by this name"):
        mask_format(tmp_path / "absent")


def test_a_category_background_is_the_background(tmp_path):
    content = _crossing()
    for category in content["categories"]:
        category["name"] = "background" if category["name"] == "emu" else category["name"]
    splits = coco_class_maps(write(tmp_path, content))
    assert splits.classes == ("background", "cat", "dog")
    assert [notice.what for notice in splits.notices] == []
    mask = CocoClassMaps(CocoReader(tmp_path / "train.json", tmp_path / "images", masks=True))[0]["mask"]
    assert mask[9, 14] == 0  # background painted over a cat
    assert mask[20, 12] == 1


def test_categories_that_training_never_shows_are_said(tmp_path):
    (notice,) = coco_class_maps(write(tmp_path, document())).notices
    assert (notice.count, notice.total) == (1, 3)
    assert "emu" in notice.first
