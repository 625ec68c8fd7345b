"""Pascal VOC: real cell photographs, and every fault of an annotation by file and field."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from visionkit.data.voc import VocReader, check_voc, voc
from visionkit.errors import DataError

XML = """<annotation><filename>{name}.jpg</filename><size><width>60</width><height>40</height></size>{objects}
</annotation>"""
OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
    "<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
)


def _object(box, name="cat", difficult=0) -> str:
    return OBJECT.format(box=box, name=name, difficult=difficult)


def _folder(root: Path, annotations: dict[str, str]) -> Path:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for name, objects in annotations.items():
        Image.new("RGB", (60, 40), (9, 99, 9)).save(root / "JPEGImages" / f"{name}.jpg")
        text = objects if objects.startswith("<?") else XML.format(name=name, objects=objects)
        (root / "Annotations" / f"{name}.xml").write_text(text)
    for split in ("train", "val"):
        (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(annotations))
    return root


def test_real_cells_read_whole_and_the_two_boxes_without_area_are_named(shared_data):
    splits = voc(shared_data / "bccd")
    assert splits.classes == ("Platelets", "RBC", "WBC")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (205, 87, 72)
    dropped = splits.facts["dropped_boxes"]
    assert len(dropped) == 2
    assert all("with an area" in text and ".xml, record" in text for text in dropped)
    boxes = [len(e["boxes"]) for r in (splits.train, splits.val, splits.test) for e in r._entries]
    assert sum(boxes) == 4155 + 372 + 361 - 2
    sample = splits.train[0]
    assert sample["image"].shape == (3, 480, 640)
    assert sample["boxes"].shape == (len(sample["labels"]), 4)
    assert sample["boxes"].dtype == torch.float32
    assert (sample["boxes"][:, 2:] > sample["boxes"][:, :2]).all()
    with pytest.raises(DataError, match="with an area"):
        voc(shared_data / "bccd", bad_boxes="raise")
    faults = check_voc(shared_data / "bccd")
    assert [fault.field for fault in faults] == ["bndbox", "bndbox"]


def test_a_small_folder_reads_with_difficult_objects_as_crowds(tmp_path):
    objects = _object((1, 1, 20, 30)) + _object((5, 5, 61, 40), "dog", 1)
    root = _folder(tmp_path, {"a": objects, "b": ""})
    splits = voc(root)
    assert splits.classes == ("cat", "dog")
    sample = splits.train[0]
    assert sample["boxes"].tolist() == [[1, 1, 20, 30], [5, 5, 60, 40]]
    assert sample["labels"].tolist() == [0, 1]
    assert sample["iscrowd"].tolist() == [0, 1]
    assert sample["size"] == (40, 60)
    assert splits.train[1]["boxes"].shape == (0, 4)
    assert len(VocReader(root, ["a", "b"], keep_empty=False)) == 1
    based = VocReader(root, ["a"], one_based=True)[0]
    assert based["boxes"][0].tolist() == [0, 0, 20, 30]
    assert splits.train.sizes == [(40, 60)] * 2


FAULTS = {
    "swapped": (_object((30, 1, 20, 30)), "bndbox", "corners are swapped"),
    "nan": (_object(("nan", 1, 20, 30)), "bndbox", "finite coordinates"),
    "infinite": (_object((1, 1, "inf", 30)), "bndbox", "finite coordinates"),
    "outside": (_object((100, 1, 120, 30)), "bndbox", "lies outside"),
    "text": (_object(("left", 1, 20, 30)), "bndbox", "number in <bndbox/xmin>, but got 'left'"),
    "no name": (_object((1, 1, 20, 30), name=""), "name", "class name, but got none"),
    "no corner": (_object((1, 1, 20, 30)).replace("<xmin>1</xmin>", ""), "bndbox", "it is missing"),
    "not xml": ("<?xml version='1.0'?><annotation>", None, "Expected XML"),
    "entity": (
        "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>",
        None,
        "Expected XML without entities",
    ),
    "other tag": ("<?xml version='1.0'?><note/>", None, "Expected <annotation>, but got <note>"),
    "no size": ("<?xml version='1.0'?><annotation/>", "size", "Expected <size/height>"),
    "escape": (
        "<?xml version='1.0'?><annotation><filename>../../../etc/passwd.jpg</filename><size><width>6</width>"
        "<height>4</height></size></annotation>",
        "path",
        "Expected a file inside",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_faults_are_named_by_file_and_field(tmp_path, fault):
    text, field, words = fault
    root = _folder(tmp_path, {"good": _object((1, 1, 20, 30)), "bad": text})
    found = check_voc(root)
    assert len(found) == 1
    assert found[0].field == field
    with pytest.raises(DataError, match=words) as caught:
        VocReader(root, ["good", "bad"], bad_boxes="raise")
    assert "bad" in str(caught.value) or field == "path"


def test_a_wrong_size_a_missing_picture_and_a_missing_list_are_named(tmp_path):
    root = _folder(tmp_path, {"a": _object((1, 1, 20, 30)), "b": ""})
    Image.new("RGB", (50, 40)).save(root / "JPEGImages/a.jpg")
    (root / "JPEGImages/b.jpg").unlink()
    assert sorted(str(fault.field) for fault in check_voc(root)) == ["path", "size"]
    with pytest.raises(DataError, match="60 x 40 pixels, as the annotation says, but it is 50 x 40"):
        voc(root).train[0]
    (root / "ImageSets/Main/train.txt").unlink()
    with pytest.raises(DataError, match="Expected the list of training pictures"):
        voc(root)
    with pytest.raises(DataError, match="JPEGImages is missing"):
        voc(tmp_path / "nowhere")
