"""What any reader must do, asked of every reader there is."""

from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image

from tests.data.coco_folder import document, write
from visionkit.data import (
    CocoKeypoints,
    ObjectReader,
    Scenes,
    Subset,
    caption_data,
    fingerprint,
    image_folder,
    image_table,
    point_table,
)
from visionkit.data.formats.coco.class_maps import CocoClassMaps
from visionkit.data.formats.coco.reader import CocoReader
from visionkit.data.formats.keypoints.points import scan_points
from visionkit.data.formats.masks.reader import mask_folder
from visionkit.data.formats.voc.reader import VocReader
from visionkit.data.keyed_dataset import drop_unreadable
from visionkit.types import Reader


def _folder(place):
    for name in ("ant", "bee"):
        (place / name).mkdir()
        for i in range(4):
            Image.new("RGB", (10 + i, 8), (40 * i, 0, 0)).save(place / name / f"{i}.png")
    return image_folder(place).train


def _table(place, kind, header, target):
    for i in range(6):
        Image.new("RGB", (9, 8), (i, 0, 0)).save(place / f"{i}.png")
    rows = "".join(f"{i}.png,{target(i)}\n" for i in range(6))
    (place / "t.csv").write_text(f"path,{header}\n{rows}")
    return image_table(place / "t.csv", kind=kind).train


def _coco(place, *, masks):
    return CocoReader(write(place, document()), place / "images", masks=masks)


def _coco_keypoints(place):
    content = document()
    for category in content["categories"]:
        category["keypoints"] = ["head", "tail"]
    for each in content["annotations"]:
        each["keypoints"] = [6, 7, 2, 9, 9, 1]
    file = write(place, content)
    return CocoKeypoints(CocoReader(file, place / "images"), scan_points(file))


def _points(place):
    for i in range(3):
        Image.new("RGB", (9, 8), (i, 0, 0)).save(place / f"{i}.png")
    rows = "".join(f"{i}.png,1,2,{3 + i},4\n" for i in range(3))
    (place / "points.csv").write_text(f"path,head_x,head_y,tail_x,tail_y\n{rows}")
    return point_table(place / "points.csv").train


def _voc(place):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>7</ymax></bndbox>"
        "</object>"
        for name in ("ant", "bee")
    )
    for part in ("Annotations", "JPEGImages"):
        (place / part).mkdir()
    for i in range(3):
        Image.new("RGB", (10 + i, 8), (40 * i, 0, 0)).save(place / f"JPEGImages/{i}.png")
        size = f"<size><width>{10 + i}</width><height>8</height></size>"
        text = f"<annotation><filename>{i}.png</filename>{size}{objects}</annotation>"
        (place / f"Annotations/{i}.xml").write_text(text)
    return VocReader(place, ["0", "1", "2"])


def _masks(place):
    for part in ("images", "masks"):
        (place / part).mkdir()
    for i in range(4):
        Image.new("RGB", (10 + i, 8), (40 * i, 0, 0)).save(place / f"images/{i}.png")
        Image.new("L", (10 + i, 8), i % 2).save(place / f"masks/{i}.png")
    return mask_folder(place, classes=["ground", "ant"]).train


def _captions(place):
    for i in range(4):
        Image.new("RGB", (9, 8), (i, 0, 0)).save(place / f"{i}.png")
    (place / "captions.txt").write_text("".join(f"{i}.png,an image of {i}\n" for i in range(4)))
    return caption_data(place, held_out=0.25).train


CASES = {
    "folder": _folder,
    "table-single": lambda place: _table(place, "single", "label", lambda i: "ab"[i % 2]),
    "table-multi": lambda place: _table(place, "multi", "x,y", lambda i: f"{i % 2},1"),
    "table-regression": lambda place: _table(place, "regression", "y", lambda i: i / 3),
    "scenes-classification": lambda place: Scenes("classification", split="val", count=6),
    "scenes-detection": lambda place: Scenes("detection", split="val", count=6),
    "scenes-segmentation": lambda place: Scenes("segmentation", split="val", count=6),
    "scenes-captioning": lambda place: Scenes("captioning", split="val", count=6),
    "coco": lambda place: _coco(place, masks=False),
    "coco-masks": lambda place: _coco(place, masks=True),
    "coco-class-maps": lambda place: CocoClassMaps(_coco(place, masks=True)),
    "scenes-keypoints": lambda place: Scenes("keypoints", split="val", count=6),
    "coco-keypoints": _coco_keypoints,
    "objects": lambda place: ObjectReader(_coco_keypoints(place)),
    "points": _points,
    "masks": _masks,
    "voc": _voc,
    "captions": _captions,
    "subset": lambda place: Subset(_folder(place), [3, 1]),
    "drop-unreadable": lambda place: drop_unreadable(_folder(place))[0],
}


def test_twenty_readers_are_held_to_the_contract():
    assert len(CASES) == 20


@pytest.mark.parametrize("name", CASES)
def test_a_reader_keeps_the_contract(name, tmp_path):
    reader = CASES[name](tmp_path)
    assert isinstance(reader, Reader)
    assert len(reader) >= 2
    ids = []
    for index in range(len(reader)):
        sample, again = reader[index], reader[index]
        assert set(sample) <= {
            *(
                "image",
                "id",
                "label",
                "boxes",
                "labels",
                "masks",
                "iscrowd",
                "area",
                "mask",
                "captions",
                "size",
                "truth",
                "keypoints",
                "keypoint_flip",
            )
        }
        image = sample["image"]
        assert image.dtype == torch.uint8
        assert image.shape[0] == 3
        assert torch.equal(image, again["image"]), "reading twice must give the same image"
        assert sample["size"] == tuple(image.shape[1:])
        sample.pop("id"), again.pop("size")
        assert "id" in reader[index], "a caller may change its sample, not the reader's"
        ids.append(reader[index]["id"])
    assert len(set(ids)) == len(ids)
    assert list(reader.ids) == ids
    if hasattr(reader, "labels"):
        assert [int(reader[i]["label"]) for i in range(len(reader))] == list(reader.labels)
    for outside in (len(reader), len(reader) + 7):
        with pytest.raises(IndexError):
            reader[outside]
    copy = pickle.loads(pickle.dumps(reader))
    assert torch.equal(copy[1]["image"], reader[1]["image"])
    assert fingerprint(copy) == fingerprint(reader)
