"""COCO files: boxes, masks and class ids are read back to what the file says."""

from __future__ import annotations

import contextlib
import io
import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.data.coco_folder import HEIGHT, WIDTH, document, square, write
from visionkit.data.formats.coco.boxes import coco
from visionkit.data.formats.coco.layout import coco_files
from visionkit.data.formats.coco.reader import CocoReader, coco_results
from visionkit.data.formats.coco.segmentations import run_lengths
from visionkit.errors import DataError, InputError
from visionkit.tasks.detection.image_batch import Detections


def test_a_file_reads_as_it_says(tmp_path):
    path = write(tmp_path, document())
    reader = CocoReader(path, tmp_path / "images", masks=True)
    assert reader.classes == ("cat", "emu", "dog")
    assert reader.category_ids == (2, 40, 90)
    assert reader.image_ids == [7, 17, 27]
    assert reader.ids == ["0.png", "1.png", "2.png"]
    sample = reader[0]
    assert sample["boxes"].tolist() == [[1, 2, 21, 22], [30, 4, 38, 12], [10, 0, 30, 40]]
    assert sample["labels"].tolist() == [0, 2, 0]
    assert sample["iscrowd"].tolist() == [0, 0, 1]
    assert sample["area"].tolist() == [400, 64, 800]
    assert sample["size"] == (HEIGHT, WIDTH)
    assert sample["masks"].flatten(1).sum(1).tolist() == [400, 64, 800]
    assert reader[1]["labels"].tolist() == [2]
    assert reader[2]["boxes"].shape == (0, 4)
    assert reader[2]["masks"].shape == (0, HEIGHT, WIDTH)
    assert len(CocoReader(path, tmp_path / "images", keep_empty=False)) == 2
    only_crowd = document()
    only_crowd["annotations"] = only_crowd["annotations"][3:]
    path = write(tmp_path, only_crowd)
    assert len(CocoReader(path, tmp_path / "images", keep_empty=False)) == 0
    assert len(CocoReader(path, tmp_path / "images")) == 3


def test_masks_and_boxes_are_those_of_the_reference(tmp_path):
    """Random polygons, some reaching out of the image, and both kinds of run lengths."""
    draw = random.Random(0)
    content = document()
    content["annotations"] = []
    for number in range(1, 121):
        size = (HEIGHT, WIDTH)
        kind = number % 3
        if kind == 0:
            points = [draw.uniform(-8, 60) for _ in range(2 * draw.randint(3, 9))]
            outline: Any = [points, *square(draw.randint(0, 30), 3, 7)][: draw.randint(1, 2)]
        else:
            made = np.asfortranarray(np.random.default_rng(number).random(size) < draw.random())
            outline = coco_mask.encode(made.astype(np.uint8))
            outline["counts"] = outline["counts"].decode()
            if kind == 2:
                outline = {"size": list(size), "counts": run_lengths(outline["counts"]).tolist()}
        record = {"id": number, "image_id": 7, "category_id": 2, "bbox": [1, 1, 9, 9], "area": 81.0}
        content["annotations"].append({**record, "iscrowd": 0, "segmentation": outline})
    path = write(tmp_path, content)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(path))
    masks = CocoReader(path, tmp_path / "images", masks=True)[0]["masks"].numpy()
    assert len(masks) == 120
    for mask, number in zip(masks, range(1, 121), strict=True):
        assert (mask == reference.annToMask(reference.anns[number])).all(), number


def test_layouts_splits_and_the_way_back_to_the_files_ids(tmp_path):
    write(tmp_path / "plain", document())
    splits = coco(tmp_path / "plain")
    assert splits.classes == ("cat", "emu", "dog")
    assert (len(splits.train), len(splits.val)) == (2, 1)
    assert "held out" in splits.facts["held_out"]
    own = tmp_path / "coco"
    for split in ("train", "val"):
        write(own, document(), name=f"{split}.json")
        (own / "annotations").mkdir(exist_ok=True)
        (own / f"{split}.json").rename(own / f"annotations/instances_{split}2017.json")
    (own / "images").rename(own / "train2017")
    write(own, document(), name="spare.json")
    (own / "images").rename(own / "val2017")
    assert coco_files(own)["val"] == (own / "annotations/instances_val2017.json", own / "val2017")
    kept = coco(own, keep_empty=False)
    assert (len(kept.train), len(kept.val), kept.test) == (2, 3, None)
    assert len(coco(own / "annotations/instances_val2017.json").train) == 2
    export = tmp_path / "export"
    for split in ("train", "valid", "test"):
        write(export / split, document(), name="_annotations.coco.json")
        for image in (export / split / "images").iterdir():
            image.rename(export / split / image.name)
    splits = coco(export)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [3, 3, 3]
    assert splits.val[1]["image"].shape == (3, 30, 50)
    found = [Detections(torch.tensor([[1.0, 2, 11, 22]]), torch.tensor([0.5]), torch.tensor([2]), id="1.png")]
    rows = coco_results(splits.val, found)
    assert rows == [{"image_id": 17, "category_id": 90, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.5}]
    with pytest.raises(InputError, match=r"but got 'other\.png'"):
        coco_results(
            splits.val, [Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), id="other.png")]
        )
    content = document()
    content["categories"][2]["name"] = "ostrich"
    write(export / "test", content, name="_annotations.coco.json")
    with pytest.raises(DataError, match=r"test differs in 40: 'emu'"):
        coco(export)
    with pytest.raises(DataError, match="there is none"):
        coco(tmp_path / "nowhere")


@settings(max_examples=60)
@given(ids=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=12, unique=True), data=st.data())
def test_class_ids_go_there_and_back(tmp_path_factory, ids, data):
    content = document()
    content["categories"] = [{"id": number, "name": f"class {number}"} for number in ids]
    chosen = data.draw(st.lists(st.sampled_from(ids), min_size=4, max_size=4))
    for annotation, number in zip(content["annotations"], chosen, strict=True):
        annotation["category_id"] = number
    root = tmp_path_factory.mktemp("ids")
    (root / "train.json").write_text(json.dumps(content))
    reader = CocoReader(root / "train.json", root)
    assert sorted(ids) == list(reader.category_ids)
    assert [f"class {number}" for number in reader.category_ids] == list(reader.classes)
    labels = reader._labels.tolist()
    # Objects lie image by image: the first annotation is of the second image.
    assert [reader.category_ids[label] for label in labels] == [*chosen[1:], chosen[0]]


def test_files_with_nothing_to_learn_or_to_score_are_refused(tmp_path):
    content = document()
    write(tmp_path, content)
    for empty, words in (("images", "it is empty"), ("annotations", "nothing to score")):
        lists = {"images": [], "annotations": []} if empty == "images" else {"annotations": []}
        write(tmp_path, content | lists, name="val.json")
        with pytest.raises(DataError, match=words) as caught:
            coco(tmp_path)
        assert caught.value.path == str(tmp_path / "val.json")
    crowds = [each | {"iscrowd": 1} for each in content["annotations"]]
    (tmp_path / "val.json").unlink()
    write(tmp_path, content | {"annotations": crowds})
    with pytest.raises(DataError, match="only crowds"):
        coco(tmp_path)
