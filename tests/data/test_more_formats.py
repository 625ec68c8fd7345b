"""labelme class maps, Supervisely, masks beside their images, AVIF, Parquet, and few key points."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data import test_open as cases
from visionkit import cli
from visionkit.data import check_coco, check_dataset, detect_formats, open_dataset, read_image
from visionkit.data.formats.huggingface.boxes import check_huggingface_boxes
from visionkit.data.formats.labelme import check_labelme
from visionkit.data.formats.labelme_class_maps import labelme_class_maps
from visionkit.data.formats.masks.validate import check_masks
from visionkit.data.formats.split_notices import frame_notices
from visionkit.data.formats.supervisely import check_supervisely, supervisely_boxes
from visionkit.data.formats.yolo.reader import yolo
from visionkit.errors import DataError


def _labelme(root, shapes, count=4):
    cases.draw(root, *(f"{number}.jpg" for number in range(count)))
    shapes = [
        {"label": label, "points": points, "shape_type": "rectangle" if len(points) == 2 else "polygon"}
        for label, points in shapes
    ]
    for number in range(count):
        content = {"imagePath": f"{number}.jpg", "imageWidth": 24, "imageHeight": 16, "shapes": shapes}
        (root / f"{number}.json").write_text(json.dumps(content))


SHAPES = [
    ("road", [[0, 8], [24, 8], [24, 16], [0, 16]]),
    ("car", [[4, 6], [12, 12]]),
    ("__ignore__", [[20, 0], [24, 4]]),
    ("_background_", [[0, 14], [24, 16]]),
]


def test_labelme_shapes_are_class_maps_with_later_ones_on_top(tmp_path):
    _labelme(tmp_path, SHAPES)
    assert [each.name for each in detect_formats(tmp_path)] == ["labelme shapes"]
    splits = open_dataset(tmp_path, "segmentation")
    assert splits.classes == ("background", "car", "road")
    assert (len(splits.train), len(splits.val), splits.notices) == (3, 1, ())
    wanted = torch.zeros(16, 24, dtype=torch.int64)
    wanted[8:] = 2
    wanted[6:12, 4:12] = 1
    wanted[0:4, 20:] = 255
    wanted[14:] = 0
    assert splits.train[0]["mask"].equal(wanted)
    (tmp_path / "names.txt").write_text("background\nroad\n")
    splits = open_dataset(tmp_path, "segmentation", cases.OpenOptions(classes=str(tmp_path / "names.txt")))
    assert splits.classes == ("background", "road")
    assert splits.train[0]["mask"][13].unique().tolist() == [1]
    (notice,) = splits.notices
    assert ("no class, left to the background" in notice.what, notice.count) == (True, 4)
    content = json.loads((tmp_path / "0.json").read_text())
    content["shapes"][0]["shape_type"] = "mask"
    (tmp_path / "0.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"shapes drawn as masks, left out: 1 of 4"):
        labelme_class_maps(_only(tmp_path, 1))


def _only(root, count):
    for number in range(count, 4):
        (root / f"{number}.json").unlink()
    return root


def test_checks_list_what_is_left_out_only_where_it_is_asked_for(tmp_path):
    bad = ("", [[1, 1], [2, 2]])
    _labelme(tmp_path / "labelme", [SHAPES[1]] * 12 + [bad])
    (fault, *_) = check_labelme(tmp_path / "labelme")
    assert "Expected a label" in str(fault)
    assert check_labelme(tmp_path / "labelme", left_out=False) == []
    rows = []
    cases.draw(tmp_path / "boxes", *(f"{number}.jpg" for number in range(11)))
    for number in range(11):
        box = [2, 2, 8, 8] if number else [2, 2, 8]
        rows.append({"file_name": f"{number}.jpg", "objects": {"bbox": [box], "categories": [0]}})
    (tmp_path / "boxes/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(check_huggingface_boxes(tmp_path / "boxes")) == 1
    assert check_huggingface_boxes(tmp_path / "boxes", left_out=False) == []
    cases.masks(tmp_path / "masks")
    Image.new("L", (24, 16), 1).save(tmp_path / "masks/training/masks/stray.png")
    assert len(check_masks(tmp_path / "masks")) == 1
    assert check_masks(tmp_path / "masks", left_out=False) == []


def _supervisely(root, count=3):
    for split in ("train", "val"):
        cases.draw(root / split / "img", *(f"{number}.jpg" for number in range(count)))
        (root / split / "ann").mkdir()
        objects = [
            {"classTitle": "dog", "geometryType": "rectangle", "points": {"exterior": [[2, 3], [10, 12]]}},
            {
                "classTitle": "cat",
                "geometryType": "polygon",
                "points": {"exterior": [[4, 4], [20, 4], [4, 14]], "interior": []},
            },
        ]
        for number in range(count):
            content = {"size": {"height": 16, "width": 24}, "objects": objects}
            (root / split / f"ann/{number}.jpg.json").write_text(json.dumps(content))
    classes = [{"title": title, "shape": "any"} for title in ("person", "dog", "cat")]
    (root / "meta.json").write_text(json.dumps({"classes": classes}))


def test_supervisely_projects_are_read(tmp_path):
    _supervisely(tmp_path)
    splits = supervisely_boxes(tmp_path)
    assert splits.classes == ("dog", "cat")  # in the order of meta.json, those that occur
    assert (len(splits.train), len(splits.val), splits.notices) == (3, 3, ())
    assert splits.train[0]["boxes"].tolist() == [[2, 3, 10, 12], [4, 4, 20, 14]]
    assert splits.train[0]["labels"].tolist() == [0, 1]
    assert check_supervisely(tmp_path) == []
    file = tmp_path / "train/ann/0.jpg.json"
    content = json.loads(file.read_text())
    content["objects"].append({"classTitle": "cat", "geometryType": "bitmap", "bitmap": {"data": ""}})
    content["objects"].append({"classTitle": "cat", "geometryType": "polygon", "points": {}})
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"no rectangles or polygons .*left out: 1 of 8 \(12\.50%\)"):
        supervisely_boxes(tmp_path)
    assert len(check_supervisely(tmp_path)) == 2
    assert check_supervisely(tmp_path, left_out=False) == []


@pytest.mark.parametrize("split", ["", "train"])
def test_masks_beside_their_images_are_read(split, tmp_path):
    cases.draw(tmp_path / split, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    for name in "abcd":
        mask = Image.new("L", (24, 16), 0)
        mask.paste(1, (2, 2, 9, 9))
        mask.save(tmp_path / split / f"{name}_mask.png")
    (tmp_path / "classes.txt").write_text("background\nroad\n")
    assert [each.name for each in detect_formats(tmp_path)] == ["images and masks"]
    splits = open_dataset(tmp_path, "segmentation")
    assert (len(splits.train), len(splits.val)) == (3, 1)
    assert int(splits.train[0]["mask"].sum()) == 49
    assert check_dataset(tmp_path)[0].ok
    (tmp_path / split / "d_mask.png").unlink()
    with pytest.raises(DataError, match=r"a mask for every image, but 1 have none: .*d\.jpg"):
        open_dataset(tmp_path, "segmentation")


@pytest.mark.parametrize("file", ["metadata.parquet", "data/train-00000-of-00001.parquet"])
def test_parquet_is_refused_by_name(file, tmp_path):
    cases.draw(tmp_path, "1.jpg")
    (tmp_path / "data").mkdir()
    (tmp_path / file).write_bytes(b"PAR1")
    for path in (tmp_path, tmp_path / file):
        with pytest.raises(DataError, match=r"\.parquet: .*Parquet files are not read.*metadata\.jsonl"):
            open_dataset(path, "detection")


def test_avif_images_are_read(tmp_path):
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[:, :15] = (200, 40, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.avif", quality=100, exif=exif)
    image = read_image(tmp_path / "a.avif")
    assert image.shape == (3, 30, 20)
    assert image[:, 3, 10].tolist() == pytest.approx([200, 40, 90], abs=4)
    assert image[:, 25, 10].tolist() == pytest.approx([0, 0, 0], abs=4)
    (tmp_path / "b.avif").write_bytes((tmp_path / "a.avif").read_bytes()[:-60])
    with pytest.raises(DataError, match=r"b\.avif"):
        read_image(tmp_path / "b.avif")


def test_real_clips_in_avif_give_their_first_frame(shared_data):
    files = sorted((shared_data / "fight/fight").glob("*.avif"))[:2]
    assert len(files) == 2
    assert all(read_image(file).shape[0] == 3 for file in files)
    (notice,) = frame_notices(map(str, files))
    assert (notice.count, "of which the first is read (all 2" in notice.what) == (2, True)


@pytest.mark.parametrize("count", [1, 4, 6])
def test_key_points_without_their_shape_are_named_however_few(count, tmp_path):
    cases.draw(tmp_path / "images/train", *(f"{number}.jpg" for number in range(12)))
    (tmp_path / "labels/train").mkdir(parents=True)
    for number in range(12):
        text = "0 .5 .5 .2 .3 .45 .45 2 .55 .55 1" if number < count else "0 .5 .5 .2 .3"
        (tmp_path / f"labels/train/{number}.txt").write_text(text)
    yaml = tmp_path / "data.yaml"
    yaml.write_text("train: images/train\nnames: [cat]\n")
    if count == 6:
        with pytest.raises(DataError, match=r"look like key points .*: 6 of 12"):
            yolo(tmp_path)
    else:
        counts = [notice.count for notice in yolo(tmp_path).notices if "key points" in notice.what]
        assert counts == [count]
    yaml.write_text("train: images/train\nnames: [cat]\nkpt_shape: [2, 3]\n")
    assert yolo(tmp_path).notices == ()


def test_what_only_other_programs_mind_is_a_notice(tmp_path, capsys):
    cases.coco(tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    for each, number in zip(content["annotations"], (0, 5, 5), strict=True):
        del each["area"], each["iscrowd"]
        each["id"] = number
    del content["annotations"][2]["id"]
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert cli.main(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "0 errors, 3 notices" in out
    for words in ("without an area", "notes on 'id'", "notes on 'iscrowd'"):
        assert words in out
    count, errors = check_coco(tmp_path)  # lists them, as does COCO's own evaluation
    assert (count, len(errors)) == (4, 4)
