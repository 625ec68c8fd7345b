"""COCO files as tools write them: what is read, what is counted, and AP as pycocotools has it on each."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.coco_folder import document, write
from tests.metrics.detections import reference_scores
from visionkit.data.formats.coco.boxes import check_coco, coco
from visionkit.data.formats.coco.class_maps import coco_class_maps
from visionkit.data.formats.coco.layout import coco_files, is_coco
from visionkit.data.formats.coco.reader import CocoReader
from visionkit.errors import DataError
from visionkit.metrics.detection import CocoAP

SIDE = 64


def _write(root, content, name="train.json"):
    write(root, document())
    (root / "train.json").unlink()
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def _said(splits):
    return {notice.what.split(": ")[-1]: notice.count for notice in splits.notices}


def test_boxes_of_texts_are_read_and_boxes_of_nonsense_refused(tmp_path):
    content = document()
    for each in content["annotations"]:
        each["bbox"] = [str(float(value)) for value in each["bbox"]]
    splits = coco(_write(tmp_path, content))
    assert _said(splits) == {"boxes of texts, read as numbers": 4}
    reader = CocoReader(tmp_path / "train.json", tmp_path / "images")
    assert reader[0]["boxes"].tolist() == [[1, 2, 21, 22], [30, 4, 38, 12], [10, 0, 30, 40]]
    for each in content["annotations"]:
        each["bbox"] = ["1,5", "2", "3", "4"]
    _write(tmp_path, content)
    for open_it in (coco, lambda path: CocoReader(path, tmp_path / "images")):
        with pytest.raises(DataError, match=r"left out: 4 of 4 \(100\.00%\)\. First: .*four numbers"):
            open_it(tmp_path / "train.json")
    with pytest.raises(DataError, match="Expected objects to learn"):
        coco(tmp_path / "train.json", max_dropped=1.0)


def test_a_box_over_the_border_is_cut_for_training_and_whole_for_scores(tmp_path):
    content = document()
    content["annotations"][1]["bbox"] = [50, 20, 14, 30]  # of an image of 60 x 40
    splits = coco(_write(tmp_path, content))
    assert _said(splits) == {"boxes that reach over the border of their images, cut there": 1}
    sample = CocoReader(tmp_path / "train.json", tmp_path / "images")[0]
    assert sample["boxes"][0].tolist() == [50, 20, 60, 40]
    assert sample["truth"]["boxes"][0].tolist() == [50, 20, 64, 50]
    # Corners in place of width and height are over the border everywhere: refused.
    for each in content["annotations"]:
        each["bbox"] = [20, 15, 50, 29]
    with pytest.raises(DataError, match=r"at most 50\.0% .* cut there: 4 of 4"):
        coco(_write(tmp_path, content))


boxes = st.tuples(
    st.floats(-20, SIDE + 10, width=32),
    st.floats(-20, SIDE + 10, width=32),
    st.sampled_from([0.0, 5.0, 17.5, 32.0, 40.0, 70.0]),
    st.sampled_from([0.0, 5.0, 17.5, 32.0, 40.0, 70.0]),
)


@settings(max_examples=60)
@given(
    truths=st.lists(
        st.tuples(st.integers(0, 2), boxes, st.integers(0, 1), st.booleans(), st.booleans(), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    shift=st.floats(0, 3),
    data=st.data(),
)
def test_ap_is_that_of_pycocotools_on_any_valid_file(tmp_path_factory, truths, shift, data):
    """Boxes over the border, outside, without an area; crowds; areas given or not; scores that tie."""
    root = tmp_path_factory.mktemp("ap")
    images = [{"id": 30 - 10 * i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(3)]
    annotations = []
    for number, (image, box, label, crowd, plain, _) in enumerate(truths, 1):
        record = {
            "id": number,
            "image_id": images[image]["id"],
            "category_id": (9, 4)[label],
            "bbox": list(box),
        }
        area = box[2] * box[3] * (1.0 if plain else 0.6)
        annotations.append(record | {"area": area, "iscrowd": int(crowd)})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 9, "name": "a"}]}
    content["categories"].append({"id": 4, "name": "b"})
    given = json.loads(json.dumps(content))
    for record, (*_, plain, leave) in zip(given["annotations"], truths, strict=True):
        if plain and leave and record["area"] > 0:
            del record["area"]  # COCO's own evaluation needs it; ours takes the box's
    (root / "train.json").write_text(json.dumps(given))
    reader = CocoReader(root / "train.json", root, max_dropped=1.0)
    results, found = [], {i: {"boxes": [], "scores": [], "labels": []} for i in range(3)}
    for image, box, label, *_, hit in truths:
        if hit or data.draw(st.booleans()):
            score = data.draw(st.sampled_from([0.25, 0.5, 0.75]))
            x, y, w, h = (float(v) for v in (box[0] + shift, box[1], max(box[2], 1.0), max(box[3], 1.0)))
            corners = torch.tensor([x, y, x + w, y + h])
            found[image]["boxes"].append(corners)
            found[image]["scores"].append(score)
            found[image]["labels"].append(1 - label)  # by rising category id: 4, 9
            x1, y1, x2, y2 = corners.double().tolist()
            results.append(
                {
                    "image_id": images[image]["id"],
                    "category_id": (9, 4)[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    metric = CocoAP(reader.classes)
    metric.update(
        [
            {
                "boxes": torch.stack(each["boxes"]) if each["boxes"] else torch.zeros(0, 4),
                "scores": torch.tensor(each["scores"], dtype=torch.float64),
                "labels": torch.tensor(each["labels"], dtype=torch.int64),
            }
            for each in found.values()
        ],
        [reader.truth(i) for i in range(3)],
        reader.ids,
    )
    want, _ = reference_scores(content, results)
    got = metric.result().values
    assert len(want) == 12
    assert {name: got[name] for name in want} == pytest.approx(want, abs=1e-9)


def test_masks_of_the_truth_are_the_references(tmp_path):
    content = document()
    content["annotations"][0]["segmentation"].append([7, 7, 9, 9])  # a part of two points
    splits = coco(_write(tmp_path, content), masks=True, max_dropped=0.3)
    assert _said(splits) == {"outlines with polygons of fewer than three points, which are left out": 1}
    reader = CocoReader(tmp_path / "train.json", tmp_path / "images", masks=True, max_dropped=0.3)
    from pycocotools import mask as coco_mask

    compared = 0
    for index in range(len(reader)):
        sample = reader[index]
        for dense, runs in zip(sample["masks"].numpy(), sample["truth"]["masks"], strict=True):
            assert (coco_mask.decode(runs) == dense).all()
            compared += 1
    assert compared == 4


def test_values_that_are_not_needed_or_can_be_told_are_no_reason_to_refuse(tmp_path):
    content = document()
    content["images"][0] |= {"height": 40.0, "id": "7"}
    content["annotations"][1] |= {"id": 0, "area": None, "image_id": 7.0, "iscrowd": None}
    content["annotations"][2] |= {"id": 0, "area": -3, "category_id": "90", "iscrowd": "0"}
    content["annotations"][3] |= {"id": 0, "iscrowd": True}
    content["images"].append(dict(content["images"][2]))
    splits = coco(_write(tmp_path, content))
    said = _said(splits)
    assert said == {
        "ids and sizes that are no whole numbers, read as such": 3,
        "objects without an area, for which that of their box or mask is taken": 2,
        "values of iscrowd that are no number, read as 0 or 1": 2,
        "images listed again, word for word": 1,
    }
    reader = CocoReader(tmp_path / "train.json", tmp_path / "images")
    assert len(reader) == 3
    assert reader[0]["labels"].tolist() == [0, 2, 0]
    assert reader[0]["iscrowd"].tolist() == [0, 0, 1]
    assert reader[0]["area"].tolist() == [400, 64, 800]


def test_parents_and_the_background_are_no_classes(tmp_path):
    content = document()
    content["categories"] += [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 1, "name": "animals", "supercategory": "none"},
        {"id": 100, "name": "background"},
    ]
    for each in content["categories"][:2]:
        each["supercategory"] = "animals"
    content["categories"][1]["supercategory"] = "cat"  # as Roboflow: a parent that is named like its class
    content["categories"][0]["supercategory"] = "animals"
    splits = coco(_write(tmp_path, content))
    assert splits.classes == ("cat", "emu", "dog")
    assert _said(splits) == {
        "categories without annotations that stand above others or for the background, left out": 3
    }
    assert coco_class_maps(tmp_path / "train.json").classes == ("background", "cat", "emu", "dog")
    content = document()
    content["categories"][1]["name"] = "background"  # annotated: a class of boxes, the background of maps
    path = _write(tmp_path, content)
    assert coco(path).classes == ("background", "emu", "dog")
    maps = coco_class_maps(path)
    assert maps.classes == ("background", "emu", "dog")
    # A parent that is annotated in one split is a class of all.
    content = document()
    content["categories"][0]["supercategory"] = "emu"
    _write(tmp_path, content)
    assert coco(tmp_path / "train.json").classes == ("cat", "dog")
    content["annotations"][0]["category_id"] = 40
    _write(tmp_path, document() | {"categories": content["categories"]})
    (tmp_path / "val.json").write_text(json.dumps(content))
    assert coco(tmp_path, max_dropped=1.0).classes == ("cat", "emu", "dog")


def _relayout(root, file, folder, name):
    """Lay the small folder out as a tool does."""
    content = document()
    for each in content["images"]:
        each["file_name"] = name.format(each["file_name"])
    _write(root, content, file)
    if folder != "images":
        shutil.move(root / "images", root / "moved")
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root / "moved", root / folder)
    return root


LAYOUTS = {
    "label studio": ("result.json", "images", "images/{}"),
    "label studio on windows": ("result.json", "images", "images\\{}"),
    "fiftyone": ("labels.json", "data", "{}"),
    "cvat": ("annotations/instances_default.json", "images", "{}"),
    "cvat subset": ("annotations/instances_Train.json", "images/Train", "{}"),
    "cvat subset, path": ("annotations/instances_Train.json", "images/Train", "Train/{}"),
    "coco": ("annotations/instances_train2017.json", "train2017", "{}"),
    "coco, path": ("annotations/instances_train2017.json", "train2017", "train2017/{}"),
    "training": ("training.json", "images", "./{}"),
    "roboflow": ("train/_annotations.coco.json", "train/x", "x/{}"),
    "fiftyone by split": ("train/labels.json", "train/data", "{}"),
    "other case": ("Train.JSON", "Images", "{}"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts_of_tools_are_read(tmp_path, layout):
    root = _relayout(tmp_path / "set", *layout)
    assert is_coco(root)
    for place in (root, next(root.rglob("*.[jJ][sS][oO][nN]"))):
        splits = coco(place)
        assert len(splits.train) + len(splits.val) == 3
        assert splits.train[0]["image"].shape[0] == 3
    assert check_coco(root) == (4, [])


@pytest.mark.parametrize("name", ["images/{}", "./images/{}", "{}"])
def test_a_path_from_the_annotation_file_is_no_other_spelling(tmp_path, name):
    """As Label Studio writes it: `result.json` names `images/0.png`."""
    assert _said(coco(_relayout(tmp_path, "result.json", "images", name))) == {}


def test_missing_images_and_other_spellings_are_counted_when_the_file_is_opened(tmp_path):
    root = _relayout(tmp_path, "train.json", "images", "{}")
    (root / "images/0.png").rename(root / "images/0.PNG")
    assert _said(coco(root)) == {"images found under another spelling of their name": 1}
    (root / "images/2.png").unlink()
    with pytest.raises(DataError, match=r"images that are missing, left out: 1 of 3 .*'2\.png'"):
        coco(root)
    splits = coco(root, max_dropped=0.4)
    assert len(splits.train) + len(splits.val) == 2


def test_faults_of_a_coco_layout_are_told_as_such(tmp_path):
    for year in ("2014", "2017"):
        _write(tmp_path, document(), f"annotations/instances_train{year}.json")
    assert is_coco(tmp_path)
    with pytest.raises(DataError, match="one COCO file of the split train, but there are"):
        coco_files(tmp_path)
    assert not is_coco(tmp_path / "images")
    assert not is_coco(tmp_path / "nowhere")
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset_flickr8k.json").write_text('{"images": [{"filename": "1.jpg", "sentences": []}]}')
    (other / "captions.json").write_text('{"images": [{"file_name": "1.jpg"}], "annotations": []}')
    assert not is_coco(other)


def test_a_test_file_without_annotations_is_left_out_with_a_word(tmp_path):
    _write(tmp_path, document())
    content = document()
    del content["annotations"]
    (tmp_path / "test.json").write_text(json.dumps(content))
    splits = coco(tmp_path)
    assert splits.test is None
    assert _said(splits) == {"test files without annotations, left out": 1}


@pytest.mark.parametrize("name", ["mouse", "lsp"])
def test_real_files_of_keypoints_give_boxes_without_a_notice(shared_data, name):
    splits = coco(shared_data / name)
    assert splits.notices == ()
    assert len(splits.train) + len(splits.val) == {"mouse": 93, "lsp": 1100}[name]
    assert splits.test is not None


def test_an_image_of_another_case_in_a_folder(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "A.JPG", "JPEG")
    content = document()
    content["images"] = [{"id": 7, "file_name": "a.jpg", "width": 60, "height": 40}]
    content["annotations"] = content["annotations"][1:3]
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert CocoReader(tmp_path / "train.json", tmp_path)[0]["image"].shape == (3, 40, 60)
