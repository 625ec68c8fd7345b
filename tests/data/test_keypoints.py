"""Keypoints: files are read as they say, checked, and carried by every change of geometry."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit.data import (
    CocoKeypoints,
    Skeleton,
    check_dataset,
    coco_keypoints,
    fingerprint,
    list_batch,
    open_dataset,
    open_pack,
    pack,
    per_object,
    point_table,
    scenes,
    skeleton_of,
)
from visionkit.data.folder_data import FolderData
from visionkit.data.formats.keypoints.skeleton import mirror_names
from visionkit.errors import DataError, InputError

NAMES = ["nose", "left_eye", "right_eye"]


def document(images=6):
    """Two animals an image, one of them without a labelled point in every third; a crowd; a boxed stone."""
    content = {"images": [], "annotations": [], "categories": [
        {"id": 4, "name": "stone"},
        {"id": 7, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]},
    ]}  # fmt: skip
    for i in range(images):
        content["images"].append({"id": i, "file_name": f"{i}.png", "width": 60, "height": 40})
        for k, (x, y) in enumerate(((5, 5), (30, 12))):
            points = [x + 8, y + 3, 2, x + 4, y + 9, 1, x + 12, y + 9, 2]
            points = [0] * 9 if k and i % 3 == 0 else points
            content["annotations"].append({
                "id": 10 * i + k + 1, "image_id": i, "category_id": 7, "bbox": [x, y, 20, 18], "area": 300.0,
                "iscrowd": 0, "keypoints": points, "num_keypoints": sum(v > 0 for v in points[2::3]),
            })  # fmt: skip
        stone = {"id": 10 * i + 5, "image_id": i, "category_id": 4, "bbox": [1, 1, 9, 9], "area": 81.0}
        content["annotations"].append({**stone, "iscrowd": 0})
    return content


def write(root, content, name="train.json"):
    (root / "images").mkdir(parents=True, exist_ok=True)
    for i in range(6):
        Image.new("RGB", (60, 40), (40 * i, 9, 9)).save(root / f"images/{i}.png")
    (root / name).write_text(json.dumps(content))
    return root


def test_a_coco_file_reads_as_it_says(tmp_path):
    splits = coco_keypoints(write(tmp_path, document()))
    assert (len(splits.train), len(splits.val), splits.test) == (5, 1, None)
    assert splits.classes == ("cat",)
    assert skeleton_of(splits) == Skeleton(tuple(NAMES), ((0, 1), (0, 2)))
    reader = splits.train.reader
    assert isinstance(reader, CocoKeypoints)
    sample = reader[1]
    assert sample["labels"].tolist() == [0, 0], "the stone is left out"
    assert sample["keypoints"][1].tolist() == [[38, 15, 2], [34, 21, 1], [42, 21, 2]]
    assert sample["keypoint_flip"].tolist() == [0, 2, 1]
    assert sample["truth"]["keypoints"].shape == (2, 3, 3)
    assert reader.keypoint_counts[:2] == [[3, 0], [3, 3]]
    assert reader.keypoint_counts == [(each["keypoints"][..., 2] > 0).sum(1).tolist() for each in reader]
    other = document()
    other["annotations"][0]["keypoints"][0] += 1
    (tmp_path / "b").mkdir()
    assert fingerprint(coco_keypoints(write(tmp_path / "b", other)).train) != fingerprint(splits.train)
    single = per_object(splits)
    assert len(single.train) + len(single.val) == 10
    assert sum(each.count for each in single.notices) == 2
    ids = [*single.train.ids, *single.val.ids]
    assert {"1.png#0", "1.png#1", "0.png"} <= set(ids)
    assert single.train[0]["keypoints"].shape == (1, 3, 3)
    assert "truth" not in single.train[0]
    batch = list_batch([reader[0], reader[1]])
    assert batch["targets"][0]["keypoints"].shape == (2, 3, 3)
    with pytest.raises(InputError, match="opened for another task"):
        skeleton_of(open_dataset(tmp_path, "detection"))


def test_person_keypoints_are_preferred_and_detection_reads_the_others(tmp_path):
    folder = write(tmp_path, document())
    (folder / "annotations").mkdir()
    for name in ("instances_train2017", "person_keypoints_train2017"):
        (folder / f"annotations/{name}.json").write_text(json.dumps(document()))
    (folder / "train.json").unlink()
    (folder / "images").rename(folder / "train2017")
    assert coco_keypoints(folder).train.reader.objects.path.name == "person_keypoints_train2017.json"
    assert open_dataset(folder, "detection").train.reader.path.name == "instances_train2017.json"


def change(**values):
    def apply(content):
        content["annotations"][0] |= values

    return apply


def rename(index, name):
    def apply(content):
        content["categories"][1] = {**content["categories"][1], "keypoints": [*NAMES]}
        content["categories"][1]["keypoints"][index] = name

    return apply


FAULTS = {
    "outside": (change(keypoints=[99, 8, 2, 9, 14, 1, 17, 14, 2]), "point 0 is at"),
    "flag": (change(keypoints=[13, 8, 3, 9, 14, 1, 17, 14, 2]), "0, 1 or 2, but that of point 0 is 3"),
    "length": (change(keypoints=[13, 8, 2]), "Expected 9 numbers"),
    "text": (change(keypoints="many"), "x1, y1, flag1"),
    "infinite": (change(keypoints=[1e999, 8, 2, 9, 14, 1, 17, 14, 2]), "Expected finite keypoints"),
    "count": (change(num_keypoints=2), "num_keypoints to be 3"),
    "twice": (rename(0, "left_eye"), "all different, but got 'left_eye'"),
    "alone": (rename(1, "left_ear"), "no"),
    "edge": (lambda c: c["categories"][1].update(skeleton=[[1, 9]]), "an edge of the skeleton"),
    "differ": (
        lambda c: c["categories"].append({"id": 9, "name": "dog", "keypoints": ["tail"]}),
        "those of 'dog' differ",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_check_names_what_cannot_be_right(name, tmp_path):
    fault, words = FAULTS[name]
    content = document()
    (clean,) = check_dataset(write(tmp_path / "clean", content))
    assert (clean.errors, clean.notices) == ((), ())
    fault(content)
    (report,) = check_dataset(write(tmp_path / "faulty", content))
    if name == "alone":
        assert report.ok
        assert "cannot be mirrored" in report.text()
        assert "keypoint_flip" not in open_dataset(tmp_path / "faulty", "keypoints").train[0]
        return
    assert words in report.text(), report.text()
    assert report.ok == (name in ("outside", "flag", "length", "text", "infinite", "count"))
    if report.ok and name != "count":
        splits = open_dataset(tmp_path / "faulty", "keypoints")
        sample = splits.train.reader[0]
        assert (sample["keypoints"][0, :, 2] > 0).sum() == (2 if name in ("outside", "flag") else 0)


def test_a_file_without_keypoints_is_refused(tmp_path):
    content = document()
    content["categories"] = [{"id": 4, "name": "stone"}, {"id": 7, "name": "cat"}]
    with pytest.raises(DataError, match="names of its 'keypoints'"):
        open_dataset(write(tmp_path, content), "keypoints")


def test_a_table_of_points(tmp_path):
    write(tmp_path, document())
    (tmp_path / "train.json").unlink()
    rows = ["path,split,nose_x,nose_y,l_ear_x,l_ear_y,r_ear_x,r_ear_y,nose_v"]
    rows += [f"{i}.png,train,{5 + i},9,3,8,8,7,1" for i in range(3)]
    rows += ["3.png,val,5,9,,,8,7,", "3.png,val,25,19,22,17,28,17,2", "4.png,val,,,,,,,"]
    (tmp_path / "points.csv").write_text("\n".join(rows))
    (report,) = check_dataset(tmp_path / "points.csv")
    assert report.format == "a table of points"
    assert report.ok
    assert "rows without a labelled point" in report.text()
    splits = open_dataset(tmp_path, "keypoints")
    assert (len(splits.train), len(splits.val)) == (3, 1)
    sample = splits.val[0]
    assert sample["boxes"].tolist() == [[5, 7, 8, 9], [22, 17, 28, 19]]
    assert sample["keypoints"][0].tolist() == [[5, 9, 2], [0, 0, 0], [8, 7, 2]]
    assert sample["keypoint_flip"].tolist() == [0, 2, 1]
    assert splits.train[0]["keypoints"][0, 0].tolist() == [5, 9, 1]
    assert per_object(splits).val.ids == ("3.png#0", "3.png#1")
    faults = (
        ("9.png,train,5,9,3,8,8,7,1", "Expected an image"),
        ("0.png,train,x,9,3,8,8,7,1", "finite number"),
        ("0.png,train,,9,3,8,8,7,1", "both coordinates"),
        ("0.png,train,500,9,3,8,8,7,1", "inside the image"),
    )
    for line, words in faults:
        (tmp_path / "points.csv").write_text("\n".join([*rows, line]))
        assert words in check_dataset(tmp_path / "points.csv")[0].text()
    with pytest.raises(DataError, match="Expected at most"):
        point_table(tmp_path / "points.csv", max_dropped=0.01)


def test_names_of_a_side_find_their_partners():
    for pair in (("left_knee", "right_knee"), ("kneeRight", "kneeLeft"), ("leftear", "rightear"),
                 ("l_eye", "r_eye"), ("eye.R", "eye.L"), ("LAnkle", "RAnkle")):  # fmt: skip
        assert mirror_names([pair[0], "nose", pair[1]]) == ((2, 1, 0), ())
    assert mirror_names(["bright_spot", "l_5", "mill"]) == ((0, 1, 2), ())
    assert mirror_names(["left_eye", "nose"])[1] == ("left_eye",)
    assert Skeleton(("left_eye", "nose")).flip is None


def test_scenes_have_the_outermost_points_of_their_object():
    splits = scenes("keypoints", train=6, val=2, test=2, size=64)
    assert skeleton_of(splits).flip == (0, 3, 2, 1)
    assert splits.train[0]["keypoint_flip"].tolist() == [0, 3, 2, 1]
    assert splits.train.keypoint_counts == ((4,),) * 6
    fresh = scenes("keypoints", train=50, val=2, test=2, size=64)
    fresh.train.scene = fresh.val.scene = fresh.test.scene = None  # nothing is composed to count
    assert len(per_object(fresh).train) == 50
    for index in range(6):
        sample = splits.train[index]
        left, top, right, bottom = sample["boxes"][0].tolist()
        points = sample["keypoints"][0].tolist()
        assert [points[0][1], points[1][0], points[2][1], points[3][0]] == [
            top + 0.5, left + 0.5, bottom - 0.5, right - 0.5,
        ]  # fmt: skip


def test_packs_keep_points_and_names(tmp_path):
    splits = coco_keypoints(write(tmp_path, document()))
    packed = open_pack(pack(splits, tmp_path / "p.pack"), fields=("keypoints",))
    assert skeleton_of(packed) == skeleton_of(splits)
    for index in range(5):
        a, b = packed.train[index], splits.train[index]
        assert torch.equal(a["keypoints"], b["keypoints"])
        assert np.array_equal(a["truth"]["keypoints"], b["truth"]["keypoints"])
    assert len(per_object(packed).train) == len(per_object(splits).train)
    subset_counts = [splits.train.reader.keypoint_counts[index] for index in splits.train.indices]
    assert packed.train.keypoint_counts == subset_counts


@pytest.mark.parametrize(("name", "points", "edges", "count"), [("lsp", 14, 12, 880), ("mouse", 4, 4, 74)])
def test_real_files_raise_no_alarm(name, points, edges, count, shared_data):
    splits = open_dataset(shared_data / name, "keypoints")
    skeleton = skeleton_of(splits)
    assert (len(skeleton.names), len(skeleton.edges)) == (points, edges)
    assert splits.notices == ()
    single = per_object(splits)
    assert len(single.train) == count
    assert single.notices == ()
    swapped = [skeleton.names[i] for i in skeleton.flip or ()]
    assert all(
        other == name.replace("left", "@").replace("right", "left").replace("@", "right")
        for name, other in zip(skeleton.names, swapped, strict=True)
    )


def crowded():
    content = document()
    for annotation in content["annotations"]:
        if annotation["id"] % 10 == 2:
            annotation.update(iscrowd=1, segmentation={"size": [40, 60], "counts": [2400]})
    return content


def test_a_crowd_is_no_object_and_no_sample(tmp_path):
    splits = coco_keypoints(write(tmp_path, crowded()))
    readers = (splits.train, splits.val)
    assert sum(sum(reader.object_counts) for reader in readers) == 6
    for reader in readers:  # counted once: samplers and checks ask again
        whole = getattr(reader, "reader", reader)
        assert whole.object_counts is whole.object_counts
    assert sum(sum(len(reader[i]["truth"]["labels"]) for i in range(len(reader))) for reader in readers) == 12
    single = per_object(splits)
    assert len(single.train) + len(single.val) == 6


def test_a_check_reads_the_boxes_of_detection_and_the_keypoints_beside_them(tmp_path):
    """The official layout: boxes of all classes in one file, people's keypoints in another."""
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / split).mkdir()
        for i in range(6):
            Image.new("RGB", (60, 40), (40 * i, 9, 9)).save(tmp_path / split / f"{i}.png")
        plain = document()
        plain["annotations"][2]["bbox"] = [70, 1, 9, 9]  # a stone outside its image
        for category in plain["categories"]:
            category.pop("keypoints", None)
        (annotations / f"instances_{split}.json").write_text(json.dumps(plain))
        points = document()
        points["annotations"][0]["keypoints"][2] = 7
        (annotations / f"person_keypoints_{split}.json").write_text(json.dumps(points))
    (report,) = check_dataset(tmp_path)
    said = report.text()
    assert "instances_train2017.json" in said
    assert "person_keypoints_train2017.json" in said


def test_detection_whose_categories_name_points_that_nobody_labelled_passes(tmp_path):
    content = document()
    for annotation in content["annotations"]:
        annotation.pop("keypoints", None)
        annotation.pop("num_keypoints", None)
    (report,) = check_dataset(write(tmp_path, content))
    assert report.ok, report.text()


@pytest.mark.parametrize("names", [NAMES, ["nose", "left_eye", "tail"]])
def test_a_folder_trains_without_mirrors_where_one_side_is_missing(tmp_path, names):
    content = document()
    content["categories"][1]["keypoints"] = names
    data = FolderData(str(write(tmp_path, content)), task="keypoints", image_size=32, batch_size=4)
    batch = next(iter(data.train_dataloader()))
    assert batch["keypoints"].shape == (4, 3, 3)
