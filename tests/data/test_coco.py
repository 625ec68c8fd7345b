"""COCO files: read back to the file's own ids, and 90 kinds of faulty ones named by record and field."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.data.coco_folder import HEIGHT, WIDTH, document, square, write
from visionkit import cli
from visionkit.data.check_coco import scan_coco
from visionkit.data.coco import CocoReader, check_coco, coco, coco_files, coco_results
from visionkit.data.coco_masks import OutlineBuilder, run_lengths
from visionkit.data.json_stream import stream_records
from visionkit.errors import DataError, InputError
from visionkit.tasks.frames import Detections

Break = Callable[[dict[str, Any]], Any]


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
    """Random polygons, some reaching out of the picture, and both kinds of run lengths."""
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
        for picture in (export / split / "images").iterdir():
            picture.rename(export / split / picture.name)
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


@settings(max_examples=60, deadline=None)
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
    # Objects lie picture by picture: the first annotation is of the second picture.
    assert [reader.category_ids[label] for label in labels] == [*chosen[1:], chosen[0]]


def _annotation(**fields: Any) -> Break:
    """Change annotation 1 (id 5); None takes a field away."""

    def change(content: dict[str, Any]) -> None:
        for name, value in fields.items():
            if value is None:
                del content["annotations"][1][name]
            else:
                content["annotations"][1][name] = value

    return change


def _of(section: str, index: int, **fields: Any) -> Break:
    def change(content: dict[str, Any]) -> None:
        for name, value in fields.items():
            if value is None:
                del content[section][index][name]
            else:
                content[section][index][name] = value

    return change


def _replace(section: str, index: int, value: Any) -> Break:
    def change(content: dict[str, Any]) -> None:
        content[section][index] = value

    return change


def _top(name: str, value: Any) -> Break:
    def change(content: dict[str, Any]) -> Any:
        if value is None:
            del content[name]
            return None
        content[name] = value
        return None

    return change


def _text(change: Callable[[str], str]) -> Break:
    return lambda content: change(json.dumps(content))


ONE = r"annotations\[1\] \(id 5\)"
IMAGE = r"images\[1\] \(id 17\)"
NAN, INF = float("nan"), float("inf")
BIG = {"size": [1_000_000, 1_000_000], "counts": [1_000_000_000_000]}
# name: (what is broken, the record and field that are named, words of the text)
FAULTS: dict[str, tuple[Break, str, str | None, str]] = {
    "empty file": (_text(lambda t: ""), "the outermost", None, "an empty file"),
    "cut short": (_text(lambda t: t[: len(t) // 2]), r"annotations\[", None, "cut short"),
    "text": (_text(lambda t: "hello"), "the outermost", None, "'h' first"),
    "html": (_text(lambda t: "<html>"), "the outermost", None, "'<' first"),
    "a list": (_text(lambda t: "[]"), "the outermost", None, "a list"),
    "more behind": (_text(lambda t: t + "{}"), "the outermost", None, "nothing after"),
    "no comma": (_text(lambda t: t.replace("}, {", "} {", 1)), r"images\[0\]", None, "',' or ']'"),
    "nested": (_text(lambda t: '{"info": ' + "[" * 9000), "info", None, "plain JSON|JSON, but"),
    "long number": (_text(lambda t: '{"info": ' + "9" * 6000 + "}"), "info", None, "plain JSON"),
    "twice": (_text(lambda t: t[:-1] + ', "images": []}'), "the outermost", None, "there are two"),
    "no images": (_top("images", None), "", "images", "no 'images'"),
    "no annotations": (_top("annotations", None), "", "annotations", "no 'annotations'"),
    "no categories": (_top("categories", None), "", "categories", "no 'categories'"),
    "images no list": (_top("images", {"a": 1}), "", "images", "got a dict"),
    "annotations null": (_top("annotations", 3), "", "annotations", "got a int"),
    "categories text": (_top("categories", "cat"), "", "categories", "got a str"),
    "image no object": (_replace("images", 1, 5), r"images\[1\]", None, "an object, but got int"),
    "image without id": (_of("images", 1, id=None), r"images\[1\]", "id", "it is missing"),
    "image without name": (_of("images", 1, file_name=None), IMAGE, "file_name", "it is missing"),
    "image without width": (_of("images", 1, width=None), IMAGE, "width", "it is missing"),
    "image without height": (_of("images", 1, height=None), IMAGE, "height", "it is missing"),
    "image id text": (_of("images", 1, id="17"), r"images\[1\]", "id", "whole number, but got '17'"),
    "image id float": (_of("images", 1, id=17.5), r"images\[1\]", "id", "whole number, but got 17.5"),
    "image id twice": (_of("images", 1, id=7), r"images \(id 7\)", "id", "once, but 7 comes 2"),
    "image name twice": (_of("images", 1, file_name="0.png"), r"images \(id 17\)", "file_name", "once"),
    "width 0": (_of("images", 1, width=0), IMAGE, "width", "at least 1"),
    "height negative": (_of("images", 1, height=-30), IMAGE, "height", "at least 1"),
    "width text": (_of("images", 1, width="50"), IMAGE, "width", "whole number"),
    "width NaN": (_of("images", 1, width=NAN), IMAGE, "width", "whole number"),
    "size wrong": (_of("images", 1, width=51), r"images \(id 17\)", "size", "51 x 30 pixels, .* 50 x 30"),
    "size turned": (_of("images", 1, width=30, height=50), r"images \(id 17\)", "size", "EXIF turn"),
    "size huge": (_of("images", 1, width=99999, height=9999), r"images \(id 17\)", "size", "megapixels"),
    "picture missing": (_of("images", 1, file_name="9.png"), r"\(id 17\), 9.png", "file_name", "none by"),
    "name empty": (_of("images", 1, file_name=""), IMAGE, "file_name", "a file name"),
    "name number": (_of("images", 1, file_name=17), IMAGE, "file_name", "a file name"),
    "name NUL": (_of("images", 1, file_name="a\0.png"), IMAGE, "file_name", "a file name"),
    "name surrogate": (_of("images", 1, file_name="\ud800.png"), IMAGE, "file_name", "surrogate"),
    "name above": (_of("images", 1, file_name="../images/1.png"), IMAGE, "file_name", "leads out"),
    "name above, backslash": (_of("images", 1, file_name="..\\1.png"), IMAGE, "file_name", "leads out"),
    "name absolute": (_of("images", 1, file_name="/etc/passwd"), IMAGE, "file_name", "relative to"),
    "name drive": (_of("images", 1, file_name="C:\\1.png"), IMAGE, "file_name", "relative to"),
    "name link": (_of("images", 1, file_name="link.png"), "link.png", "file_name", "leads to"),
    "name folder": (_of("images", 1, file_name="."), r"images \(id 17\), \.", "file_name", "a folder"),
    "name pipe": (_of("images", 1, file_name="pipe.png"), "pipe.png", "file_name", "a pipe"),
    "name text file": (_of("images", 1, file_name="note.png"), "note.png", "header", "starts with"),
    "category no object": (_replace("categories", 2, "emu"), r"categories\[2\]", None, "an object"),
    "category without id": (_of("categories", 2, id=None), r"categories\[2\]", "id", "it is missing"),
    "category without name": (_of("categories", 2, name=None), r"categories\[2\]", "name", "missing"),
    "category id text": (_of("categories", 2, id="40"), r"categories\[2\]", "id", "whole number"),
    "category id twice": (_of("categories", 2, id=2), r"categories \(id 2\)", "id", "comes 2 times"),
    "category name twice": (_of("categories", 2, name="cat"), r"categories \(id 40\)", "name", "once"),
    "category name empty": (_of("categories", 2, name=" "), r"categories\[2\]", "name", "a class name"),
    "no category": (lambda c: c.update(categories=[], annotations=[]), "", "categories", "at least one"),
    "annotation no object": (_replace("annotations", 1, [1]), r"annotations\[1\]", None, "an object"),
    "without id": (_annotation(id=None), r"annotations\[1\]", "id", "1 annotations lack it"),
    "without image_id": (_annotation(image_id=None), ONE, "image_id", "it is missing"),
    "without category_id": (_annotation(category_id=None), ONE, "category_id", "it is missing"),
    "without bbox": (_annotation(bbox=None), ONE, "bbox", "it is missing"),
    "without area": (_annotation(area=None), ONE, "area", "1 annotations lack it"),
    "without iscrowd": (_annotation(iscrowd=None), ONE, "iscrowd", "1 annotations lack it"),
    "id 0": (_annotation(id=0), r"annotations\[1\] \(id 0\)", "id", "takes 0 for 'not matched'"),
    "id twice": (_annotation(id=3), r"annotations \(id 3\)", "id", "3 comes 2 times"),
    "id text": (_annotation(id="5"), r"annotations\[1\]", "id", "whole number, but got '5'"),
    "id huge": (_annotation(id=10**30), r"annotations\[1\]", "id", "at most"),
    "image_id text": (_annotation(image_id="7"), ONE, "image_id", "whole number, but got '7'"),
    "image_id unknown": (_annotation(image_id=8), ONE, "image_id", "no picture with id 8"),
    "category unknown": (_annotation(category_id=3), ONE, "category_id", "none with id 3"),
    "category text": (_annotation(category_id="cat"), ONE, "category_id", "whole number"),
    "box of three": (_annotation(bbox=[1, 2, 3]), ONE, "bbox", "x, y, width, height"),
    "box of five": (_annotation(bbox=[1, 2, 3, 4, 5]), ONE, "bbox", "x, y, width, height"),
    "box of text": (_annotation(bbox=["1", "2", "3", "4"]), ONE, "bbox", "four numbers"),
    "box text": (_annotation(bbox="1234"), ONE, "bbox", "x, y, width, height"),
    "box with null": (_annotation(bbox=[1, None, 3, 4]), ONE, "bbox", "four numbers"),
    "box null": (lambda c: c["annotations"][1].update(bbox=None), ONE, "bbox", "x, y, width, height"),
    "box nested": (_annotation(bbox=[[1, 2, 3, 4]]), ONE, "bbox", "x, y, width, height"),
    "box NaN": (_annotation(bbox=[1, NAN, 3, 4]), ONE, "bbox", "finite"),
    "box infinite": (_annotation(bbox=[1, 2, INF, 4]), ONE, "bbox", "finite"),
    "box overflow": (_annotation(bbox=[1e308, 2, 1e308, 4]), ONE, "bbox", "finite"),
    "box huge int": (_annotation(bbox=[10**400, 2, 3, 4]), ONE, "bbox", "four numbers"),
    "box negative": (_annotation(bbox=[9, 9, -5, 5]), ONE, "bbox", "with an area.* -5"),
    "box flat": (_annotation(bbox=[9, 9, 5, 0]), ONE, "bbox", "with an area"),
    "box outside": (_annotation(bbox=[900, 9, 5, 5]), ONE, "bbox", "lies outside"),
    "box beyond": (_annotation(bbox=[50, 9, 30, 5]), ONE, "bbox", "reaches beyond"),
    "box above": (_annotation(bbox=[5, -30, 5, 35]), ONE, "bbox", "reaches beyond"),
    "area negative": (_annotation(area=-4), ONE, "area", "from 0 up, but got -4"),
    "area NaN": (_annotation(area=NAN), ONE, "area", "from 0 up, but got nan"),
    "area text": (_annotation(area="400"), ONE, "area", "from 0 up"),
    "iscrowd 2": (_annotation(iscrowd=2), ONE, "iscrowd", "0 or 1, but got 2"),
    "iscrowd -1": (_annotation(iscrowd=-1), ONE, "iscrowd", "0 or 1, but got -1"),
    "iscrowd text": (_annotation(iscrowd="no"), ONE, "iscrowd", "0 or 1"),
    "outline text": (_annotation(segmentation="x"), ONE, "segmentation", "polygons .* but got a str"),
    "polygon flat": (_annotation(segmentation=[1, 2, 3, 4, 5, 6]), ONE, "segmentation", "list of numbers"),
    "polygon short": (_annotation(segmentation=[[1, 2, 3, 4]]), ONE, "segmentation", "three points"),
    "polygon odd": (_annotation(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), ONE, "segmentation", "got 7"),
    "polygon text": (_annotation(segmentation=[list("123456")]), ONE, "segmentation", "numbers in a polygon"),
    "polygon NaN": (_annotation(segmentation=[[1, 2, NAN, 4, 5, 6]]), ONE, "segmentation", "finite"),
    "polygon far": (_annotation(segmentation=[[1, 2, 1e9, 4, 5, 6]]), ONE, "segmentation", "in the picture"),
    "polygon long": (
        _annotation(segmentation=[[0, 0, 60, 40] * 100_000]), ONE, "segmentation", "can be filled"
    ),
    "runs huge": (_annotation(segmentation=BIG), ONE, "segmentation", "size|counts"),
    "runs of another size": (
        _annotation(segmentation={"size": [4, 5], "counts": [20]}), ONE, "segmentation", r"of size \[40, 60\]"
    ),
    "runs too short": (
        _annotation(segmentation={"size": [40, 60], "counts": [5]}), ONE, "segmentation", "add up to"
    ),
    "runs negative": (
        _annotation(segmentation={"size": [40, 60], "counts": [-1, 2401]}), ONE, "segmentation", "got -1"
    ),
    "runs without size": (_annotation(segmentation={"counts": [1]}), ONE, "segmentation", "with size"),
    "runs without counts": (_annotation(segmentation={"size": [40, 60]}), ONE, "segmentation", "as a list"),
    "runs of odd characters": (
        _annotation(segmentation={"size": [40, 60], "counts": "~ä"}), ONE, "segmentation", "characters"
    ),
    "runs cut short": (
        _annotation(segmentation={"size": [40, 60], "counts": "oo"}), ONE, "segmentation", "cut short"
    ),
    "runs too long": (
        _annotation(segmentation={"size": [40, 60], "counts": "ooooooooo0"}), ONE, "segmentation", "32 bits"
    ),
}  # fmt: skip
# What this library does not mind, and names for the sake of COCO's own evaluation.
HARMLESS = {"without id", "without area", "without iscrowd", "id 0"}


def test_every_kind_of_fault_is_named_with_its_record_and_nothing_else_is(tmp_path):
    assert len(FAULTS) >= 57
    root = tmp_path / "data"
    write(root, document())
    os.mkfifo(root / "images/pipe.png")
    (root / "images/note.png").write_text("only text")
    Image.new("RGB", (50, 30)).save(tmp_path / "outside.png")
    (root / "images/link.png").symlink_to(tmp_path / "outside.png")
    assert check_coco(root) == (4, [])
    for name, (change, record, field, words) in FAULTS.items():
        content = document()
        made = change(content)
        path = write(root, made if isinstance(made, str) else content)
        _, faults = check_coco(root)
        text = "\n".join(map(str, faults))
        # A record that is left out may leave others without it; the first fault is the one that was made.
        assert faults, name
        first = faults[0]
        assert re.search(record, first.record or ""), (name, text)
        assert first.field == field, (name, text)
        assert re.search(words, str(first)), (name, text)
        assert first.path == str(path), name
        follows = (
            "no picture with id|none with id|annotations lack it|at least one category|boxes would be off"
        )
        assert all(re.search(follows, str(fault)) for fault in faults[1:]), (name, text)
        if name in HARMLESS:
            assert len(CocoReader(path, root / "images")) == 3, name
        else:
            with pytest.raises(DataError):  # noqa: PT012 (each of the reader, and of its samples, may refuse)
                reader = CocoReader(path, root / "images", masks=True, bad_boxes="raise")
                for index in range(len(reader)):
                    reader[index]


def test_the_command_names_all_faults_at_once(tmp_path, capsys):
    content = document()
    _annotation(bbox=[1, 2, NAN, 4])(content)
    _of("images", 2, file_name="../../etc/passwd")(content)
    _of("categories", 0, name="")(content)
    path = write(tmp_path, content)
    assert cli.main(["check", str(path)]) == 2
    said = capsys.readouterr().out
    assert "COCO boxes, 4 annotations, " in said
    for words in ("(id 5), field 'bbox'", "(id 27), field 'file_name'", "(id 90), field 'name'"):
        assert words in said, said
    write(tmp_path, document())
    assert cli.main(["check", str(tmp_path)]) == 0
    assert "no faults" in capsys.readouterr().out


def test_bad_boxes_are_left_out_and_kept_as_faults(tmp_path):
    content = document()
    _annotation(bbox=[9, 9, 0, 5])(content)
    path = write(tmp_path, content)
    reader = CocoReader(path, tmp_path / "images")
    assert reader[0]["labels"].tolist() == [2, 0]
    assert [fault.record for fault in reader.dropped] == ["annotations[1] (id 5)"]
    assert coco(tmp_path).facts["dropped_boxes_count"] == 1
    with pytest.raises(DataError, match="with an area"):
        coco(tmp_path, bad_boxes="raise")
    _annotation(segmentation=[])(content)
    path = write(tmp_path, content)
    with pytest.raises(DataError, match="Read the file without masks"):
        CocoReader(path, tmp_path / "images", masks=True)
    content = document()
    for each in content["annotations"]:
        each["image_id"] = 1
    with pytest.raises(DataError, match="lists all 4 faults"):
        CocoReader(write(tmp_path, content), tmp_path / "images")


def test_a_flood_of_one_fault_is_counted(tmp_path):
    content = document()
    first = content["annotations"][1]
    content["annotations"] = [{**first, "id": i + 1, "bbox": [1, 2, -3, 4]} for i in range(1500)]
    _, faults = check_coco(write(tmp_path, content))
    assert len(faults) == 1001
    assert "And 500 more" in str(faults[-1])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(value=values, section=st.sampled_from(["images", "annotations", "categories"]), data=st.data())
def test_no_value_of_any_field_gets_through_or_breaks_the_check(tmp_path_factory, value, section, data):
    """Whatever stands in a field: the file is read whole, or the fault is named."""
    content = document()
    index = data.draw(st.integers(0, len(content[section]) - 1))
    field = data.draw(st.sampled_from(sorted(content[section][index])))
    content[section][index][field] = value
    root = tmp_path_factory.mktemp("fuzz")
    (root / "train.json").write_text(json.dumps(content))
    try:
        reader = CocoReader(root / "train.json", root, masks=True)
    except DataError as fault:
        named = fault.path
    else:
        named = None
    if named is not None:
        assert named == str(root / "train.json")
        return
    assert np.isfinite(reader._boxes).all()
    assert (reader._boxes[:, 2:] > reader._boxes[:, :2]).all()
    assert reader._outlines is not None
    for index, size in enumerate(reader.sizes):
        for row in reader._row[reader._first[index] : reader._last[index]].tolist():
            assert reader._outlines.mask(row, size).shape == size


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet=st.characters(min_codepoint=40, max_codepoint=120), max_size=40))
def test_compressed_run_lengths_are_refused_or_are_counts(text):
    try:
        counts = run_lengths(text)
    except ValueError:
        return
    assert min(counts, default=0) >= 0
    builder = OutlineBuilder()
    with contextlib.suppress(ValueError):
        builder.add({"size": [3, 4], "counts": text})
        assert builder.done().mask(0, (3, 4)).shape == (3, 4)


def test_a_file_is_read_by_pieces(tmp_path, monkeypatch):
    """Windows of a few characters, so that every token is cut somewhere, give the same records."""
    path = write(tmp_path, json.dumps(document(), indent=3))
    whole = list(stream_records(path, ("images", "annotations", "categories")))
    assert len(whole) == 3 + 4 + 3
    for step in (1, 2, 3, 7, 64):
        monkeypatch.setattr("visionkit.data.json_stream._STEP", step)
        assert list(stream_records(path, ("images", "annotations", "categories"))) == whole


def _large(path: Path, annotations: int) -> None:
    draw = random.Random(0)
    with path.open("w") as out:
        pictures = annotations // 7
        rows = (
            json.dumps({"id": i, "file_name": f"{i:012}.jpg", "width": 640, "height": 480, "license": 3})
            for i in range(pictures)
        )
        out.write('{"info": {}, "images": [' + ", ".join(rows) + '], "annotations": [')
        for i in range(annotations):
            x, y = draw.uniform(0, 500), draw.uniform(0, 400)
            outline = [round(draw.uniform(0, 400), 2) for _ in range(46)]
            row = {"segmentation": [outline], "area": 900.5, "iscrowd": 0, "image_id": i % pictures}
            row |= {"bbox": [round(x, 2), round(y, 2), 60.5, 50.25], "category_id": i % 80 + 1, "id": i + 1}
            out.write((", " if i else "") + json.dumps(row))
        names = [{"id": i + 1, "name": f"class {i}", "supercategory": "x"} for i in range(80)]
        out.write(f'], "categories": {json.dumps(names)}}}')


def test_memory_grows_with_the_arrays_and_not_with_the_json(tmp_path):
    _large(tmp_path / "large.json", 7000)
    size = (tmp_path / "large.json").stat().st_size
    tracemalloc.start()
    scan = scan_coco(tmp_path / "large.json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(scan.records.ids) == 7000
    assert scan.faults == scan.dropped == scan.notes == ()
    # Parsed as one document it takes about 4 times the file.
    assert peak < 2 * size, (peak, size)


@pytest.mark.slow
def test_a_file_of_860_000_annotations_takes_seconds(tmp_path):
    import resource
    import time

    _large(tmp_path / "large.json", 860_000)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    scan = scan_coco(tmp_path / "large.json", masks=True)
    seconds = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{(tmp_path / 'large.json').stat().st_size / 1e6:.0f} MB, {seconds:.1f} s, {grown:.0f} MB")
    assert len(scan.records.ids) == 860_000
    assert scan.faults == scan.dropped == scan.notes == ()
    assert seconds < 60
    assert grown < 1500
