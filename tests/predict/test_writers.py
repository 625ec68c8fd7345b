"""Written predictions are read back by our own readers and by pycocotools; nothing is half written."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.predict.made_results import NAMES, photos, results
from visionkit.data.formats.coco.boxes import coco
from visionkit.data.formats.masks.reader import MaskReader, mask_folder
from visionkit.data.formats.voc.reader import VocReader
from visionkit.data.formats.yolo.reader import yolo
from visionkit.drawing.class_colors import class_colors
from visionkit.errors import DataError, InputError
from visionkit.files import PART
from visionkit.predict.writers import FORMATS, open_writers
from visionkit.predict.writers.formats import EVERY_KIND, check_formats, formats_of
from visionkit.predict.writers.output_files import encoded
from visionkit.predict.writers.output_names import OutputNames, source_root
from visionkit.predict.writers.sheet import PAGE

UNSCORED = "Results in coco/predictions.json that have the score 1, as points by regression have none: 1."
KINDS = ("single", "multi", "regression", "detection", "segmentation", "captioning", "keypoints")


def write(folder, made, formats=("all",), **settings):
    kind = made[0].kind
    writers = open_writers(formats, folder, kind=kind, class_names=NAMES, facts={}, **settings)
    with writers:
        for each in made:
            writers.add(each)
    return writers.close()


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def files(tmp_path):
    return photos(tmp_path / "photos")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_written_in_all_its_formats(kind, files, tmp_path):
    made, out = results(files, kind), tmp_path / "out"
    notes = write(out, made, roots=[str(tmp_path / "photos")])
    # The second of the poses has no scores.
    assert notes == [UNSCORED] * (kind == "keypoints")
    rows = lines(out / "predictions.jsonl")
    assert [row.pop("name") for row in rows] == ["a", "b", "deep/a"]
    assert rows == [each.to_dict() for each in made]
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert {row["image"] for row in table} == {str(file) for file in files}
    page = (out / "index.html").read_text(encoding="utf-8")
    assert f"<p>{len(made)} images. Kind: " in page
    assert page.count("<figure>") == page.count('<a href="drawings/') == len(made)
    assert not re.search(r"https?://|<script", page)
    for name in ("a", "b", "deep/a"):
        with Image.open(out / "drawings" / f"{name}.jpg") as image:
            image.load()
    for name in formats_of(made[0].kind):
        for pattern in FORMATS[name].files:
            if not pattern.startswith("sheet/"):
                assert len(list(out.rglob(pattern.split("/")[-1]))) in (1, 3), pattern
    assert not list(out.rglob(f"*{PART}"))


def test_boxes_of_coco_are_those_of_pycocotools(files, tmp_path, capsys):
    made = results(files, "detection")
    write(tmp_path / "out", made, ["coco"])
    loaded = COCO(str(tmp_path / "out/coco/images.json"))
    there = loaded.loadRes(str(tmp_path / "out/coco/predictions.json"))
    assert [each["name"] for each in there.loadCats(there.getCatIds())] == list(NAMES)
    for number, each in enumerate(made, start=1):
        (image,) = there.loadImgs(number)
        assert (image["file_name"], image["height"], image["width"]) == (each.id, *each.size)
        rows = there.loadAnns(there.getAnnIds(imgIds=number))
        x, y, w, h = np.array([row["bbox"] for row in rows]).reshape(-1, 4).T
        expected = each.prediction.boxes.numpy()
        np.testing.assert_allclose(np.stack((x, y, x + w, y + h), 1), expected, rtol=0, atol=0.0011)
        assert [row["category_id"] - 1 for row in rows] == each.prediction.labels.tolist()
        assert [row["score"] for row in rows] == each.prediction.scores.tolist()
    # The same as annotations, through our own reader.
    (tmp_path / "set").mkdir()
    content = there.dataset | {
        "images": [i | {"file_name": i["file_name"][1:]} for i in there.dataset["images"]]
    }
    (tmp_path / "set" / "train.json").write_text(json.dumps(content))
    shutil.copytree(tmp_path / "photos", tmp_path / "set" / files[0].parent.as_posix()[1:])
    splits = coco(tmp_path / "set")
    assert splits.classes == NAMES
    boxes = np.concatenate([s["truth"]["boxes"] for part in (splits.train, splits.val) for s in part])
    assert len(boxes) == sum(len(each.prediction.boxes) for each in made)


def test_masks_of_detections_are_run_lengths_of_coco(files, tmp_path):
    (made,) = results(files[2:], "detection")
    made.prediction.masks = torch.rand(1, *made.size) > 0.5
    write(tmp_path / "out", [made], ["coco"])
    loaded = COCO(str(tmp_path / "out/coco/images.json")).loadRes(str(tmp_path / "out/coco/predictions.json"))
    (row,) = loaded.dataset["annotations"]
    np.testing.assert_array_equal(coco_mask.decode(row["segmentation"]), made.prediction.masks[0].numpy())


def test_captions_and_class_maps_are_results_of_coco(files, tmp_path):
    for kind in ("captioning", "segmentation"):
        made, out = results(files, kind), tmp_path / kind
        write(out, made, ["coco"])
        there = COCO(str(out / "coco/images.json")).loadRes(str(out / "coco/predictions.json"))
        for number, each in enumerate(made, start=1):
            rows = there.loadAnns(there.getAnnIds(imgIds=number))
            if kind == "captioning":
                assert [row["caption"] for row in rows] == [each.prediction.caption]
                continue
            for row in rows:
                mask = coco_mask.decode(row["segmentation"]) == 1
                np.testing.assert_array_equal(mask, each.prediction.mask.numpy() == row["category_id"] - 1)


def test_poses_are_results_of_coco_of_which_pycocotools_computes_scores(files, tmp_path):
    made, out = results(files, "keypoints"), tmp_path / "out"
    assert write(out, made, ["coco"], roots=[str(tmp_path / "photos")]) == [UNSCORED]
    truth = COCO(str(out / "coco/images.json"))
    assert truth.loadCats(1) == [{"id": 1, "name": "object", "keypoints": list(NAMES), "skeleton": [[1, 2]]}]
    there = truth.loadRes(str(out / "coco/predictions.json"))
    for number, each in enumerate(made, start=1):
        (row,) = there.loadAnns(there.getAnnIds(imgIds=number))
        points = np.array(row["keypoints"]).reshape(-1, 3)
        np.testing.assert_allclose(points[:, :2], each.prediction.points.numpy(), rtol=0, atol=0.00051)
        assert set(points[:, 2]) == {1}
        scores = each.prediction.scores
        assert row["score"] == (1.0 if scores is None else pytest.approx(scores.mean().item()))
    # Scored against themselves they are right; a result of COCO has the box of its points.
    sides = {row["image_id"]: row["bbox"][2:] for row in there.dataset["annotations"]}
    truth.dataset["annotations"] = [
        {**row, "num_keypoints": 3, "iscrowd": 0, "area": float(np.prod(sides[row["image_id"]]))}
        for row in there.dataset["annotations"]
    ]
    truth.createIndex()
    evaluation = COCOeval(truth, there, "keypoints")
    evaluation.params.kpt_oks_sigmas = np.full(3, 0.05)
    evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_boxes_of_voc_are_read_back(files, tmp_path):
    made, out = results(files[:2], "detection"), tmp_path / "out"
    write(out, made, ["voc"], min_score=0.0)
    shutil.copytree(tmp_path / "photos", out / "voc" / "images")
    reader = VocReader(out / "voc", ["a", "b"], classes=NAMES, folders=("images", "annotations"))
    assert reader.dropped == []
    for sample, each in zip(reader, made, strict=True):
        np.testing.assert_allclose(sample["truth"]["boxes"], each.prediction.boxes.numpy(), rtol=0, atol=1.0)
        assert sample["labels"].tolist() == each.prediction.labels.tolist()
        assert sample["size"] == each.size


def test_boxes_of_yolo_are_read_back(files, tmp_path):
    made, out = results(files[:2], "detection"), tmp_path / "out"
    write(out, made, ["yolo"], min_score=0.0)
    (out / "yolo" / "images").mkdir()
    for file in files[:2]:
        shutil.copy(file, out / "yolo" / "images")
    splits = yolo(out / "yolo")
    assert splits.classes == NAMES
    samples = sorted(
        (sample for part in (splits.train, splits.val) for sample in part), key=lambda s: s["id"]
    )
    for sample, each in zip(samples, made, strict=True):
        np.testing.assert_allclose(sample["truth"]["boxes"], each.prediction.boxes.numpy(), rtol=0, atol=1e-4)
        assert sample["labels"].tolist() == each.prediction.labels.tolist()


def test_weak_detections_are_left_to_the_formats_with_scores(files, tmp_path):
    made, out = results(files[1:], "detection"), tmp_path / "out"  # 1 and 2 detections, from 0.9 down to 0.3
    write(out, made, min_score=0.95)
    assert (out / "yolo/labels/b.txt").read_text() == ""
    assert "<object>" not in (out / "voc/annotations/b.xml").read_text()
    assert len(json.loads((out / "coco/predictions.json").read_text())) == 3
    assert sum(len(row["boxes"]) for row in lines(out / "predictions.jsonl")) == 3


def test_masks_are_read_back_as_class_numbers(files, tmp_path):
    made, out = results(files, "segmentation"), tmp_path / "out"
    write(out, made, ["masks"], roots=[str(tmp_path / "photos")])
    shutil.copytree(tmp_path / "photos", out / "masks" / "images")
    splits = mask_folder(out / "masks")
    assert splits.classes == NAMES
    whole = {name: mask for part in (splits.train, splits.val) for name, mask in _masks(part)}
    assert len(whole) == 3
    for name, each in zip(("a.png", "b.png", "deep/a.png"), made, strict=True):
        torch.testing.assert_close(whole[f"images/{name}"], each.prediction.mask)
    with Image.open(out / "masks/masks/a.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[:9] == [part for color in class_colors(3) for part in color]
    assert len(set(class_colors(256))) == 256


def _masks(part):
    assert isinstance(part, MaskReader) or hasattr(part, "__getitem__")
    return [(part[i]["id"], part[i]["mask"]) for i in range(len(part))]


def test_more_classes_than_a_palette_has_are_grey(files, tmp_path):
    (made,) = results(files[:1], "segmentation")
    made.prediction.mask[0, 0] = 299
    write(tmp_path / "out", [made], ["masks"])
    with Image.open(tmp_path / "out/masks/masks/a.png") as image:
        np.testing.assert_array_equal(np.array(image), made.prediction.mask.numpy())


def test_the_sheet_has_pages_that_lead_to_each_other(files, tmp_path):
    made, out = results(files[:1], "single") * (2 * PAGE + 1), tmp_path / "out"
    write(out, made, ["sheet"])
    index, second, third = (
        (out / name).read_text(encoding="utf-8")
        for name in ("index.html", "sheet/0002.html", "sheet/0003.html")
    )
    assert [page.count("<figure>") for page in (index, second, third)] == [PAGE, PAGE, 1]
    assert 'href="sheet/0003.html"' in index
    assert 'href="../sheet/0003.html"' in second
    assert 'href="../index.html"' in second
    assert "next" not in third
    assert files[0].as_uri() in third  # without drawings, the image itself


def test_no_two_images_have_the_same_name(tmp_path):
    names = OutputNames([str(tmp_path / "photos"), str(tmp_path / "other")])
    given = ("photos/1.jpg", "other/1.jpg", "photos/1.png", "photos/../photos/1.jpg", "photos/deep/1.jpg")
    made = [names.name(str(tmp_path / each)) for each in given]
    assert made == ["photos/1", "other/1", "photos/1-2", "photos/1-3", "photos/deep/1"]
    assert names.changed == 2
    names = OutputNames()
    odd = [
        "/x/../../etc/passwd",
        "A.jpg",
        "a.jpg",
        os.fsdecode(b"caf\xe9.jpg"),
        "new\nline.png",
        "..",
        "...jpg",
    ]
    odd += ["x" * 250 + ".jpg", "y" * 249 + "é.jpg", "\\".join("ab")]
    made = [names.name(each) for each in odd]
    assert made[:5] == ["passwd", "A", "a-2", "caf_xe9", "new_line"]
    assert len(set(made)) == len(made)
    assert all("/" not in name and len(name.encode()) < 200 and name.isprintable() for name in made)
    deep = str(tmp_path / "/".join(["d" * 200] * 8) / "1.jpg")
    assert len(OutputNames([str(tmp_path)]).name(deep)) < 200
    assert OutputNames([str(tmp_path)]).name("/elsewhere/1.jpg") == "1"


def test_the_folder_of_a_source(tmp_path, monkeypatch):
    photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    given = ("photos", "photos/a.png", "photos/**/*.png", "*/a.png", "photos/[ab].png")
    assert [source_root(each) for each in given] == ["photos", "photos", "photos", ".", "photos"]
    (tmp_path / "odd[1]").mkdir()
    assert source_root("odd[1]") == "odd[1]"


def test_names_that_are_no_utf_8_go_through_every_format(tmp_path):
    name = os.fsdecode(b"caf\xe9 <&>\n#%.png")
    try:
        files = photos(tmp_path / "photos", (name,))
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    for kind in EVERY_KIND:
        out = tmp_path / kind
        (note,) = write(out, results(files, "single" if kind == "classification" else kind))
        assert "1 of 1 images" in note
        (row,) = lines(out / "predictions.jsonl")
        assert row["id"].endswith("caf\\xe9 <&>\n#%.png")
        assert (out / "drawings" / f"{row['name']}.jpg").is_file()
        page = (out / "index.html").read_text(encoding="utf-8")
        assert 'href="drawings/caf_xe9%20%3C%26%3E_%23%25.jpg"' in page


def test_formats_that_a_kind_cannot_have_are_refused_by_name(tmp_path):
    for kind, formats, why in (
        ("classification", ["coco"], "'coco'.*for detection or segmentation or captioning or keypoints"),
        ("captioning", ["jsonl,masks"], "'masks'.*for segmentation"),
        ("detection", ["yolov8"], "Did you mean 'yolo'"),
        ("detection", [], "got none"),
    ):
        with pytest.raises(InputError, match=why):
            open_writers(formats, tmp_path / "out", kind=kind, class_names=(), facts={})
    assert not (tmp_path / "out").exists()
    assert check_formats(["sheet,csv", "csv"]) == ("csv", "sheet")
    assert check_formats(["all"], "captioning") == ("jsonl", "csv", "coco", "drawings", "sheet")


def test_earlier_predictions_are_refused_and_removed_without_anything_else(files, tmp_path):
    made, out = results(files, "detection"), tmp_path / "out"
    write(out, made, roots=[str(tmp_path / "photos")])
    mine = out / "yolo" / "labels" / "mine.txt"
    mine.write_text("mine")
    with pytest.raises(InputError, match=r"has coco, drawings, index.html.*--overwrite"):
        write(out, made)
    with (out / "predictions.jsonl").open("a") as stream:
        stream.write('{"name": "../../photos/a"}\n{"name": "/etc/passwd"}\n[1]\nno json\n')
    write(out, made[:1], ["jsonl"], overwrite=True)
    assert written(out) == ["predictions.jsonl", "yolo/labels/mine.txt"]
    assert all(file.is_file() for file in files)
    with pytest.raises(InputError, match="is a file"):
        write(files[0], made, overwrite=True)


@pytest.mark.dist
def test_a_full_disk_leaves_whole_files(zygote, tmp_path):
    limits = [0, 5_000, 40_000, 60_000, 90_000, 130_000]
    told = zygote.run("tests.predict.full_disk:write_on_a_full_disk", str(tmp_path), limits)
    assert len(told) == 2 * len(limits)
    for one in told:
        assert "Expected to be able to write into" in one["raised"], one
        assert one["broken"] == [], one
    assert any(one["rows"] for one in told)


def test_errors_have_lines_of_their_own(files, tmp_path):
    made, out = results(files, "single"), tmp_path / "out"
    with open_writers(["jsonl"], out, kind="classification", class_names=NAMES, facts={}) as writers:
        writers.add_error(
            os.fsdecode(b"caf\xe9.jpg"), DataError("Expected pixels.", path="x", field="header")
        )
        writers.add(made[0])
    assert lines(out / "errors.jsonl") == [
        {"id": "caf\\xe9.jpg", "error": "Expected pixels.", "field": "header"}
    ]
    assert (writers.count, writers.errors) == (1, 1)


def test_a_drawing_of_any_length_is_written():
    with Image.open(io.BytesIO(encoded(Image.new("RGB", (70_000, 8)), "JPEG"))) as image:
        assert max(image.size) == 65_500
