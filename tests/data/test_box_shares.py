"""Shares of what is left out of sets of boxes: images of images, objects of objects, in their own split."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from visionkit.data.formats.huggingface.boxes import check_huggingface_boxes, huggingface_boxes
from visionkit.data.formats.labelme import labelme_boxes
from visionkit.data.formats.yolo.reader import yolo
from visionkit.errors import DataError


def _images(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (80, 50)).save(folder / f"{index}.png")


def _labelme(root, count, *, shapes=12, **more):
    _images(root, count)
    shape = {"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    for index in range(count):
        content = {
            "shapes": [shape] * shapes,
            "imagePath": f"{index}.png",
            "imageHeight": 50,
            "imageWidth": 80,
        }
        (root / f"{index}.json").write_text(json.dumps(content | more))


def _row(name, boxes=12, category=0, box=(1, 1, 9, 9)):
    return json.dumps(
        {"file_name": name, "objects": {"bbox": [box] * boxes, "categories": [category] * boxes}}
    )


def _yolo(folder, lines, *, split="train"):
    _images(folder / "images" / split, len(lines))
    labels = folder / "labels" / split
    labels.mkdir(parents=True, exist_ok=True)
    for index, text in enumerate(lines):
        (labels / f"{index}.txt").write_text(text)


def test_images_that_are_missing_are_counted_of_images(tmp_path):
    _labelme(tmp_path / "labelme", 10)
    _images(tmp_path / "rows", 5)
    (tmp_path / "rows/metadata.jsonl").write_text("\n".join(_row(f"{index}.png") for index in range(10)))
    for index in range(5):
        (tmp_path / "labelme" / f"{index}.png").unlink()
    with pytest.raises(DataError, match=r"without an image, left out: 5 of 10 \(50\.00%\)"):
        labelme_boxes(tmp_path / "labelme")
    with pytest.raises(DataError, match=r"rows that cannot be right, left out: 5 of 10 \(50\.00%\)"):
        huggingface_boxes(tmp_path / "rows")


def test_lines_are_counted_of_lines_and_files_of_files(tmp_path):
    _yolo(tmp_path, ["0 .5 .5 .1 .1"] * 8 + ["7 .5 .5 .1 .1"] * 2)
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"lines that cannot be right, left out: 2 of 10 \(20\.00%\)"):
        yolo(tmp_path)
    for index in range(8, 10):
        (tmp_path / "labels/train" / f"{index}.txt").unlink()
    (notice,) = yolo(tmp_path).notices
    assert (notice.count, notice.total) == (2, 10)


@pytest.mark.parametrize("at_top", [False, True])
def test_rows_are_counted_in_their_own_split(tmp_path, at_top):
    rows = {split: [f"{index}.png" for index in range(20)] for split in ("train", "validation")}
    for split in rows:
        _images(tmp_path / split, 20)
    for index in range(4):
        (tmp_path / "validation" / f"{index}.png").unlink()
    if at_top:
        text = "\n".join(_row(f"{split}/{name}") for split, names in rows.items() for name in names)
        (tmp_path / "metadata.jsonl").write_text(text)
    else:
        for split, names in rows.items():
            (tmp_path / split / "metadata.jsonl").write_text("\n".join(map(_row, names)))
    with pytest.raises(DataError, match=r"val: rows that cannot be right, left out: 4 of 20 "):
        huggingface_boxes(tmp_path)


def test_hugging_face_rows_that_are_all_wrong_are_named(tmp_path):
    _images(tmp_path, 2)
    file = tmp_path / "metadata.jsonl"
    file.write_text("\n".join(_row(f"{index}.png", box=(1, 2, 3)) for index in range(2)))
    with pytest.raises(DataError, match=r"left out: 2 of 2 .*four|left out: 2 of 2 .*Expected x, y"):
        huggingface_boxes(tmp_path)
    file.write_text("\n".join(_row(f"{index}.png", box=(1, 2, 3, 10**400)) for index in range(2)))
    with pytest.raises(DataError, match="left out: 2 of 2"):
        huggingface_boxes(tmp_path)
    assert len(check_huggingface_boxes(tmp_path)) == 2
    file.write_text(_row("0.png", category=1) + "\n" + _row("1.png", category="1"))
    assert huggingface_boxes(tmp_path).classes == ("1",)


def test_labelme_sizes_are_whole_numbers(tmp_path):
    for side in (float("inf"), float("nan"), 50.5):
        _labelme(tmp_path, 2, imageHeight=side)
        with pytest.raises(DataError, match="whole number of pixels"):
            labelme_boxes(tmp_path)


def test_one_image_cannot_be_held_out(tmp_path):
    _labelme(tmp_path, 1)
    with pytest.raises(DataError, match="at least 2 training images") as caught:
        labelme_boxes(tmp_path)
    assert caught.value.path == str(tmp_path)


def test_a_validation_split_without_objects_is_refused(tmp_path):
    _yolo(tmp_path, ["0 .5 .5 .1 .1"] * 2)
    _yolo(tmp_path, [""] * 2, split="val")
    with pytest.raises(DataError, match="nothing to score"):
        yolo(tmp_path)


def test_entries_of_data_yaml_that_are_not_there_are_named(tmp_path):
    _yolo(tmp_path, ["0 .5 .5 .1 .1"] * 3)
    file = tmp_path / "data.yaml"
    file.write_text("train: images/train\nval: images/typo\nnames: [cat]\n")
    with pytest.raises(DataError, match="images at val: images/typo"):
        yolo(tmp_path)
    # exports of Roboflow name a test folder that they leave out
    file.write_text("train: images/train\ntest: ../test/images\nnames: [cat]\n")
    splits = yolo(tmp_path)
    assert splits.test is None
    assert any("test images that the YAML file names" in str(notice) for notice in splits.notices)
    (tmp_path / "data.yaml").write_text("train: [images/train, images/typo]\nnames: [cat]\n")
    with pytest.raises(DataError, match="images at train: images/typo"):
        yolo(tmp_path)


def test_names_are_as_written_and_as_many_as_said(tmp_path):
    _yolo(tmp_path, ["0 .5 .5 .1 .1"] * 3)
    file = tmp_path / "data.yaml"
    for names in ("[yes, no]", "{0: yes, 1: no}"):
        file.write_text(f"train: images/train\nnc: 2\nnames: {names}\n")
        assert yolo(tmp_path).classes == ("yes", "no")
    file.rename(tmp_path / "b.yaml")
    (tmp_path / "a.yaml").write_text("train: images/train\nnc: 3\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"there are a\.yaml, b\.yaml"):
        yolo(tmp_path)
    with pytest.raises(DataError, match="nc: 3 names, but there are 1"):
        yolo(tmp_path / "a.yaml")
    assert yolo(tmp_path / "b.yaml").classes == ("yes", "no")


@pytest.mark.parametrize("points", [".45 .45 .55 .55", ".45 .45 2 .55 .55 1", ".45 .45 2 0 0 0"])
def test_key_points_without_their_shape_are_no_outlines(tmp_path, points):
    _yolo(tmp_path, [f"0 .5 .5 .2 .3 {points}"] * 6)
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"look like key points .* 6 of 6 \(100.*Expected kpt_shape"):
        yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("train: images/train\nkpt_shape: [2, 2]\nnames: [cat]\n")
    assert yolo(tmp_path).train[0]["boxes"][0].tolist() == pytest.approx([32, 17.5, 48, 32.5])
