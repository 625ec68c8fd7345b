"""Boxes of YOLO, labelme and Hugging Face folders: the same objects in each, and what each leaves out."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from visionkit.data.formats.box_records import note_crowded
from visionkit.data.formats.huggingface.boxes import (
    check_huggingface_boxes,
    huggingface_boxes,
    is_huggingface_boxes,
)
from visionkit.data.formats.labelme import check_labelme, is_labelme, labelme_boxes, read_labelme
from visionkit.data.formats.yolo.layout import is_yolo
from visionkit.data.formats.yolo.reader import check_yolo, yolo
from visionkit.errors import DataError

WIDTH, HEIGHT = 80, 50
OBJECTS = [("cat", (8, 5, 24, 30)), ("dog", (40, 10, 72, 40))]  # xyxy


def _image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (9, 99, 9)).save(path)


def _yolo_line(number, box, *, outline=False):
    x1, y1, x2, y2 = box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT
    corners = (x1, y1, x2, y1, x2, y2, x1, y2)
    values = corners if outline else ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    return " ".join(map(str, (number, *values)))


def _yolo_set(root, images, labels, *, count=3, outline=False):
    for index in range(count):
        _image(root / images / f"{index}.jpg")
        if labels:
            (root / labels).mkdir(parents=True, exist_ok=True)
            lines = [_yolo_line(n, box, outline=outline) for n, (_, box) in enumerate(OBJECTS)]
            (root / labels / f"{index}.txt").write_text("\n".join(lines) + "\n")


def _same_objects(sample, *, masks=False):
    for boxes in (sample["boxes"].numpy(), sample["truth"]["boxes"]):
        assert boxes == pytest.approx(np.array([box for _, box in OBJECTS], float), abs=1e-4)
    assert sample["labels"].tolist() == [0, 1]
    assert sample["size"] == (HEIGHT, WIDTH)
    if masks:
        assert sample["masks"].flatten(1).sum(1).tolist() == [16 * 25, 32 * 30]
        assert coco_mask.area(sample["truth"]["masks"]).tolist() == [16 * 25, 32 * 30]


ULTRALYTICS = (
    "path: /home/me/datasets/pets\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
)
ROBOFLOW = (
    "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['cat', 'dog']\n"
)
LISTED = "train: train.txt\nval: [images/a, images/b]\nnames: [cat, dog]\n"
YOLO = {
    "ultralytics": (ULTRALYTICS, (("images/train", "labels/train"), ("images/val", "labels/val")), (3, 3, 0)),
    "roboflow": (
        ROBOFLOW, tuple((f"{s}/images", f"{s}/labels") for s in ("train", "valid", "test")), (3, 3, 3)
    ),
    "lists": (LISTED, tuple((f"images/{s}", f"labels/{s}") for s in "tab"), (3, 6, 0)),
    "plain": ("", (("images", "labels"),), (2, 1, 0)),
    "side by side": ("", (("", ""),), (2, 1, 0)),
    "split folders": ("", (("train", "train"), ("Val", "Val")), (3, 3, 0)),
}  # fmt: skip


@pytest.mark.parametrize("outline", [False, True])
@pytest.mark.parametrize("layout", YOLO.values(), ids=YOLO.keys())
def test_yolo_layouts_are_read(tmp_path, layout, outline):
    text, places, sizes = layout
    for images, labels in places:
        _yolo_set(tmp_path, images, labels or ".", outline=outline)
    if text:
        (tmp_path / "data.yaml").write_text(text)
    else:
        (tmp_path / "classes.txt").write_text("\ufeffcat\ndog\n", encoding="utf-8")
    if "train.txt" in text:
        lines = [f"./images/t/{index}.jpg" for index in range(3)]
        (tmp_path / "train.txt").write_text("\n".join(lines))
    assert is_yolo(tmp_path)
    splits = yolo(tmp_path, masks=outline)
    assert splits.classes == ("cat", "dog")
    assert (len(splits.train), len(splits.val), len(splits.test or ())) == sizes
    assert splits.notices == ()
    assert check_yolo(tmp_path) == []
    _same_objects(splits.train[0], masks=outline)
    _same_objects(pickle.loads(pickle.dumps(splits.val))[0], masks=outline)
    assert set(splits.train.sizes) == {(HEIGHT, WIDTH)}
    if not outline:
        with pytest.raises(DataError, match="Expected an outline of every object"):
            yolo(tmp_path, masks=True)


def test_yolo_lines_that_cannot_be_right_are_counted(tmp_path):
    _yolo_set(tmp_path, "images", "labels", count=30)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    lines = [
        _yolo_line(0, (8, 5, 24, 30)),
        _yolo_line(0, (8, 5, 24, 30)),  # again
        _yolo_line(1, (60, 10, 100, 40)),  # over the border
        "2 0.5 0.5 0.1 0.1",  # no such class
        "0 0.5 0.5 0 0.1",  # no area
        "0 40 20 16 16",  # pixels
        "0 0.5 0.5 nan 0.1",
        "cat 0.5 0.5 0.1 0.1",
        "0 0.5 0.5",
    ]
    (tmp_path / "labels/0.txt").write_text("\n".join(lines))
    (tmp_path / "labels/1.txt").unlink()
    splits = yolo(tmp_path)
    assert {each.what.split(": ")[1]: each.count for each in splits.notices} == {
        "lines that cannot be right, left out": 6,
        "lines that come again in their file, left out": 1,
        "boxes that reach over the border of their images, cut there": 1,
        "images without a file of labels, taken for images without objects": 1,
    }
    assert len(check_yolo(tmp_path)) == 7
    every = {
        each["id"]: each
        for part in (splits.train, splits.val)
        for each in (part[i] for i in range(len(part)))
    }
    assert len(every) == 30
    boxes = every["images/0.jpg"]["boxes"].numpy()
    assert boxes == pytest.approx(np.array([[8, 5, 24, 30], [60, 10, 80, 40]], float), abs=1e-4)
    assert every["images/0.jpg"]["truth"]["boxes"][1] == pytest.approx([60, 10, 100, 40])
    assert every["images/1.jpg"]["boxes"].shape == (0, 4)
    for file in (tmp_path / "labels").iterdir():
        file.write_text("7 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match=r"left out: 29 of 29 \(100\.00%\).*but got '7'"):
        yolo(tmp_path)
    (tmp_path / "labels/2.txt").write_text(_yolo_line(0, (8, 5, 24, 30)))
    with pytest.raises(
        DataError, match=r"lines that cannot be right, left out: 28 of .* in 0\.\.1, but got '7'"
    ):
        yolo(tmp_path)


def test_yolo_names_are_told_or_missed(tmp_path):
    _yolo_set(tmp_path, "images", "labels")
    splits = yolo(tmp_path)
    assert splits.classes == ("0", "1")
    assert [each.what for each in splits.notices] == [
        "train: classes without a name, called by their numbers"
    ]
    for text, words in (("names: {0: a, 2: b}", "names of 0 to 1"), ("names: [a, a]", "'a' comes twice")):
        (tmp_path / "data.yaml").write_text(f"{text}\ntrain: images\n")
        with pytest.raises(DataError, match=words):
            yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [a, b]\ntrain: ../../etc\n")
    assert len(yolo(tmp_path / "data.yaml").train) == 2
    assert not is_yolo(tmp_path / "images")
    assert not is_yolo(tmp_path / "nowhere")


def _labelme(path, shapes, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.2.1", "flags": {}, "shapes": shapes, "imageData": "aGVsbG8="}
    content |= {"imagePath": f"..\\x\\{path.stem}.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH} | more
    path.write_text(json.dumps(content))


def _shape(label, box, kind="rectangle", group=None):
    x1, y1, x2, y2 = box
    points = [[x2, y2], [x1, y1]] if kind == "rectangle" else [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    return {"label": label, "points": points, "shape_type": kind, "group_id": group}


@pytest.mark.parametrize("places", [(".", "."), ("images", "annotations"), ("train", "train")])
def test_labelme_folders_are_read(tmp_path, places):
    images, texts = places
    for index in range(3):
        _image(tmp_path / images / f"a {index}.JPG")
        kinds = ("rectangle", "polygon", "polygon")
        shapes = [_shape(name, box, kind) for (name, box), kind in zip(OBJECTS, kinds, strict=False)]
        _labelme(tmp_path / texts / f"a {index}.json", shapes, imageHeight=None if index else HEIGHT)
    assert is_labelme(tmp_path)
    splits = labelme_boxes(tmp_path, masks=True)
    assert splits.classes == ("cat", "dog")
    assert (len(splits.train), len(splits.val), splits.notices) == (2, 1, ())
    _same_objects(splits.train[0], masks=True)
    assert check_labelme(tmp_path) == []


def test_labelme_groups_are_one_object_and_what_has_no_area_is_counted(tmp_path):
    for index in range(20):
        _image(tmp_path / f"{index}.png")
        _labelme(tmp_path / f"{index}.json", [_shape("cat", OBJECTS[0][1])])
    parts = [_shape("cat", (8, 5, 16, 30), "polygon", 1), _shape("cat", (20, 5, 24, 30), "polygon", 1)]
    odd = [
        {"label": "tip", "points": [[1, 1]], "shape_type": "point"},
        {"label": "", "points": [[1, 1], [2, 2]], "shape_type": "rectangle"},
        {"label": "cat", "points": [[1, 1], [2, 2]], "shape_type": "polygon"},
        {"label": "cat", "points": [[20, 20], [20, 25]], "shape_type": "circle"},
    ]
    _labelme(tmp_path / "0.json", [*parts, *odd])
    (tmp_path / "1.png").unlink()
    file = read_labelme(tmp_path / "0.json", root=tmp_path)
    assert (file.image, file.size, len(file.shapes), file.others, len(file.errors)) == (
        *("0.png", (HEIGHT, WIDTH)), 3, 1, 2
    )  # fmt: skip
    splits = labelme_boxes(tmp_path, masks=True)
    assert {each.what.split(": ")[1]: each.count for each in splits.notices} == {
        "shapes that cannot be right, left out": 2,
        "shapes without an area (points, lines), left out": 1,
        "annotations without an image, left out": 1,
    }
    assert len(check_labelme(tmp_path)) == 3
    every = [part[i] for part in (splits.train, splits.val) for i in range(len(part))]
    first = next(each for each in every if each["id"] == "0.png")
    assert first["boxes"].tolist()[0] == [8, 5, 24, 30]
    assert first["masks"][0].sum() == 8 * 25 + 4 * 25
    assert first["boxes"].tolist()[1] == pytest.approx([15, 15, 25, 25])
    assert not is_labelme(tmp_path / "nowhere")


def test_hugging_face_objects_are_read(tmp_path):
    for split in ("train", "validation"):
        rows = []
        for index in range(4):
            _image(tmp_path / split / f"{index}.jpg")
            boxes = [[x1, y1, x2 - x1, y2 - y1] for _, (x1, y1, x2, y2) in OBJECTS]
            objects = {"bbox": boxes, "categories": [3, 7] if split == "train" or index else [7, 7]}
            rows.append(json.dumps({"file_name": f"{index}.jpg", "objects": objects}))
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(rows))
    assert is_huggingface_boxes(tmp_path)
    splits = huggingface_boxes(tmp_path)
    assert splits.classes == ("3", "7")
    assert (len(splits.train), len(splits.val), splits.notices) == (4, 4, ())
    _same_objects(splits.train[0])
    assert check_huggingface_boxes(tmp_path) == []
    rows[0] = json.dumps({"file_name": "0.jpg", "objects": {"bbox": [[1, 2, 3]], "categories": [3]}})
    rows[1] = json.dumps({"file_name": "1.jpg", "objects": None})
    (tmp_path / "validation/metadata.jsonl").write_text("\n".join(rows))
    assert len(check_huggingface_boxes(tmp_path)) == 1
    assert len(huggingface_boxes(tmp_path, max_dropped=0.25).val) == 3
    with pytest.raises(DataError, match=r"val: rows that cannot be right, left out: 1 of 4 "):
        huggingface_boxes(tmp_path, max_dropped=0.24)


def test_images_with_more_objects_than_are_detected_are_noted(tmp_path):
    _yolo_set(tmp_path, "images", "labels")
    splits = yolo(tmp_path)
    assert note_crowded(splits, 2) is splits
    (_, notice) = note_crowded(splits, 1).notices
    assert (notice.what, notice.count, notice.total) == (
        "images with more objects than are detected in one",
        3,
        3,
    )
    assert "has 2 objects, but at most 1" in notice.first
