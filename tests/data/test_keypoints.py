"""Keypoints: files are read as they say, checked, and carried by every change of geometry."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visionkit.data import (
    CocoKeypoints,
    Compose,
    CopyPaste,
    Keyed,
    Skeleton,
    affine,
    check_dataset,
    coco_keypoints,
    crop_resize,
    fingerprint,
    flip,
    keypoint_batch,
    keypoint_eval,
    keypoint_train,
    list_batch,
    open_dataset,
    open_pack,
    pack,
    per_object,
    point_table,
    scenes,
    skeleton_of,
)
from visionkit.data.formats.keypoints.skeleton import mirror_names
from visionkit.data.transforms.batch import batch_transform
from visionkit.data.transforms.detection import LargeScaleJitter
from visionkit.data.transforms.saved import describe_transform, transform_from
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


def sample_of(points, size=(40, 60)):
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 255, (3, *size), dtype=torch.uint8, generator=rng)
    boxes = torch.tensor([[4.0, 4, 50, 36]])
    return {
        "image": image, "id": "a", "boxes": boxes, "labels": torch.tensor([0]), "size": size,
        "keypoints": torch.tensor([points], dtype=torch.float32), "keypoint_flip": torch.tensor([0, 2, 1]),
    }  # fmt: skip


POINT = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(0, 2))


@settings(max_examples=40)
@given(points=st.lists(POINT, min_size=3, max_size=3), draws=st.tuples(*[st.integers(1, 30)] * 4))
def test_geometry_moves_points_as_it_moves_pixels(points, draws):
    sample = {**sample_of(points), "boxes": torch.tensor([[0.0, 0, 60, 40]])}
    twice = flip(flip(sample))
    assert torch.equal(twice["keypoints"], sample["keypoints"])
    mirrored = flip(sample)["keypoints"][0]
    assert mirrored[1].tolist() == [60 - points[2][0], *points[2][1:]]
    left, top, width, height = draws[0] % 20, draws[1] % 10, 10 + draws[2], 4 + draws[3] % 26
    cut = crop_resize(sample, (top, left, height, width), (2 * height, 3 * width), min_visibility=0)
    matrix = torch.tensor([[3.0, 0, -3 * left], [0, 2, -2 * top]], dtype=torch.float64)
    mapped = affine(sample, matrix, (2 * height, 3 * width), min_visibility=0)
    for out in (cut, mapped):
        for (x, y, flag), moved in zip(points, out["keypoints"][0].tolist(), strict=True):
            assert moved[:2] == pytest.approx([3 * (x - left), 2 * (y - top)], abs=1e-3)
            inside = left <= x <= left + width and top <= y <= top + height
            assert moved[2] == (flag if inside else 0)
    assert torch.allclose(cut["boxes"], mapped["boxes"], atol=1e-3)


def test_affine_is_the_identity_and_a_quarter_turn():
    sample = sample_of([[10, 5, 2], [30, 20, 1], [59, 39, 2]])
    sample["mask"] = torch.arange(2400).view(40, 60) % 7
    sample["masks"] = (sample["mask"] > 3)[None].to(torch.uint8)
    same = affine(sample, torch.eye(2, 3, dtype=torch.float64), (40, 60))
    for name in ("image", "mask", "masks", "boxes", "keypoints"):
        assert torch.allclose(same[name].float(), sample[name].float(), atol=1e-4), name
    quarter = torch.tensor([[0.0, -1, 40], [1, 0, 0]], dtype=torch.float64)  # x' = 40 - y, y' = x
    turned = affine(sample, quarter, (60, 40))
    assert torch.equal(turned["image"], sample["image"].rot90(-1, (1, 2)))
    assert torch.equal(turned["mask"], sample["mask"].rot90(-1, (0, 1)))
    assert turned["keypoints"][0].tolist() == [[35, 10, 2], [20, 30, 1], [1, 59, 2]]
    assert turned["boxes"].tolist() == [[4, 4, 36, 50]]
    away = affine(sample, torch.tensor([[1.0, 0, 100], [0, 1, 0]], dtype=torch.float64), (40, 60))
    assert (away["image"] == 114).all()
    assert (away["mask"] == 255).all()
    assert away["keypoints"].shape[0] == 0


def test_crops_of_an_object_lead_back_to_its_image():
    points = [[10, 6, 2], [45, 20, 1], [30, 33, 2]]
    crop = keypoint_eval((48, 32))
    out = crop(sample_of(points), torch.Generator())
    assert out["image"].shape == (3, 48, 32)
    region, size = out["region"], torch.tensor([32.0, 48.0])
    back = out["keypoints"][0, :, :2] / size * (region[2:] - region[:2]) + region[:2]
    assert torch.allclose(back, torch.tensor(points)[:, :2].float(), atol=1e-3)
    assert out["truth"]["keypoints"][0].tolist() == points
    assert transform_from(describe_transform(crop)) == crop
    whole = keypoint_eval(32, around="image")(sample_of(points), torch.Generator())
    assert whole["region"].tolist() == [0, -10, 60, 50]
    plain = crop({"image": sample_of(points)["image"], "id": "b"}, torch.Generator())
    assert "keypoints" not in plain
    batch = keypoint_batch([out, out])
    assert batch["keypoints"].shape == (2, 3, 3)
    assert batch["regions"].shape == (2, 4)
    assert len(batch["truths"]) == 2
    assert keypoint_batch([]) == {"ids": []}
    two = {**sample_of(points), "keypoints": torch.zeros(2, 3, 3)}
    with pytest.raises(DataError, match=r"but got those of 2"):
        keypoint_batch([two])
    with pytest.raises(InputError, match=r"per_object"):
        crop({**two, "boxes": torch.zeros(2, 4)}, torch.Generator())


def test_training_crops_turn_around_their_points():
    """A white pixel at each point is where the moved point says, after every turn, scale and mirror."""
    sample = sample_of([[20, 20, 2], [27, 12, 2], [36, 28, 2]])
    sample["image"] = torch.zeros_like(sample["image"])
    for channel, (x, y, _) in enumerate(sample["keypoints"][0].long().tolist()):
        sample["image"][channel, y - 2 : y + 2, x - 2 : x + 2] = 255
    transform = keypoint_train(96, photometric=0)
    walked = 0
    for seed in range(12):
        out = transform(sample, torch.Generator().manual_seed(seed))
        again = transform(sample, torch.Generator().manual_seed(seed))
        assert torch.equal(out["image"], again["image"])
        order = [0, 1, 2]
        if out["keypoints"][0, 1, 1] > out["keypoints"][0, 2, 1]:
            order = [0, 2, 1]  # mirrored: the points of the two sides changed their names
        for channel, (x, y, flag) in zip(order, out["keypoints"][0].tolist(), strict=True):
            weight = out["image"][channel].double()
            weight = torch.where((out["image"] == 114).all(0), 0.0, weight)
            rows, columns = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
            near = (rows - y).hypot(columns - x) < 16
            total = (weight * near).sum()
            assert flag == 2
            assert float((weight * near * columns).sum() / total) == pytest.approx(x, abs=0.6)
            assert float((weight * near * rows).sum() / total) == pytest.approx(y, abs=0.6)
            walked += 1
    assert walked == 36


def test_what_would_move_pixels_alone_is_refused():
    sample = sample_of([[10, 5, 2], [30, 20, 1], [59, 39, 2]])
    with pytest.raises(InputError, match="swap left and right"):
        Keyed(lambda image: image)(sample, torch.Generator())
    with pytest.raises(InputError, match="without keypoints"):
        batch_transform("flip")({"images": sample["image"][None], "keypoints": 0}, torch.Generator())
    with pytest.raises(InputError, match="keypoint_flip"):
        flip({name: value for name, value in sample.items() if name != "keypoint_flip"})
    jitter = LargeScaleJitter(64, scale=(1.0, 1.0))
    out = jitter(sample, torch.Generator().manual_seed(1))
    assert out["keypoints"][0, 1].tolist() == pytest.approx([32, 20 * 43 / 40, 1], abs=0.1)
    for values in ({"scale": 2.0}, {"degrees": 400}, {"flip": 3}, {"padding": 0}, {"around": "x"}):
        with pytest.raises(InputError):
            keypoint_train(32, **values)


def test_pasted_objects_bring_their_points_and_hide_those_below():
    below, above = sample_of([[10, 10, 2], [40, 20, 2], [41, 21, 1]]), sample_of([[38, 18, 2]] * 3)
    for sample, (top, left, side) in ((below, (4, 4, 30)), (above, (14, 34, 12))):
        sample["masks"] = torch.zeros(1, 40, 60, dtype=torch.uint8)
        sample["masks"][0, top : top + side, left : left + side] = 1
        sample["boxes"] = torch.tensor([[left, top, left + side, top + side]]).float()
    paste = CopyPaste([above], Compose(()), probability=1.0)
    pasted = 0
    for seed in range(8):
        out = paste(below, torch.Generator().manual_seed(seed))
        flags = out["keypoints"][:, :, 2].tolist()
        assert len(out["keypoints"]) == len(out["boxes"])
        if len(flags) == 2:
            assert flags == [[2, 1, 1], [2, 2, 2]]
            pasted += 1
    assert pasted > 0
    assert below["keypoints"][0, 1, 2] == 2, "the sample itself stays"


def test_scenes_have_the_outermost_points_of_their_object():
    splits = scenes("keypoints", train=6, val=2, test=2, size=64)
    assert skeleton_of(splits).flip == (0, 3, 2, 1)
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
