"""One way to open a data set: `open_dataset`, `check` and `pack` take every format alike."""

from __future__ import annotations

import importlib
import io
import json
from collections import Counter

import pytest
from PIL import Image

from visionkit import cli
from visionkit.data import (
    FORMATS,
    TASKS,
    OpenOptions,
    SceneSizes,
    check_dataset,
    check_folder,
    detect_formats,
    open_dataset,
    open_pack,
)
from visionkit.data.pack.tar import END, tar_member
from visionkit.errors import DataError, InputError

read_image_module = importlib.import_module(
    "visionkit.data.read_image"
)  # the package has a function of that name


def draw(folder, *names, size=(24, 16), value=0):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", size, (value, 9, 9)).save(folder / name)


def class_folders(root):
    for name in ("cat", "dog"):
        draw(root / name, "1.jpg", "2.jpg", "3.jpg")


def table(root):
    draw(root, "1.jpg", "2.jpg", "3.jpg")
    (root / "labels.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n3.jpg,a\n")


def coco(root):
    draw(root / "images", *(f"{number}.jpg" for number in range(4)))
    for split, numbers in {"train": (0, 1, 2), "val": (3,)}.items():
        content = {
            "images": [{"id": n, "file_name": f"{n}.jpg", "width": 24, "height": 16} for n in numbers],
            "annotations": [
                {"id": n + 1, "image_id": n, "category_id": 1, "bbox": [2, 2, 8, 8], "area": 64, "iscrowd": 0,
                 "keypoints": [4, 4, 2, 8, 8, 1], "num_keypoints": 2,
                 "segmentation": [[2, 2, 10, 2, 10, 10, 2, 10]]} for n in numbers
            ],
            "categories": [{"id": 1, "name": "cat", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}],
        }  # fmt: skip
        (root / f"{split}.json").write_text(json.dumps(content))


def voc(root):
    draw(root / "JPEGImages", "a.jpg", "b.jpg", "c.jpg")
    (root / "Annotations").mkdir()
    (root / "ImageSets/Main").mkdir(parents=True)
    for name in "abc":
        box = "<xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
        (root / f"Annotations/{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>24</width><height>16</height></size>"
            f"<object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
        )
    (root / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (root / "ImageSets/Main/val.txt").write_text("c\n")


def masks(root, train="training", val="validation"):
    for split in (train, val):
        draw(root / split / "images", "1.jpg", "2.jpg")
        (root / split / "masks").mkdir()
        for name in ("1.png", "2.png"):
            mask = Image.new("L", (24, 16), 0)
            mask.paste(1, (2, 2, 9, 9))
            mask.save(root / split / "masks" / name)
    (root / "classes.txt").write_text("background\nroad\n")


def captions(root):
    draw(root / "Images", *(f"{number}.jpg" for number in range(12)))
    lines = "".join(f"{number}.jpg,a dog runs\n" for number in range(12))
    (root / "captions.txt").write_text("image,caption\n" + lines)


def huggingface(root):
    draw(root / "train", "1.jpg", "2.jpg", "3.jpg")
    rows = [{"file_name": f"{number}.jpg", "label": "ab"[number % 2]} for number in (1, 2, 3)]
    (root / "train/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def yolo(root):
    for split in ("train", "val"):
        draw(root / "images" / split, "1.jpg", "2.jpg")
        (root / "labels" / split).mkdir(parents=True)
        for name in ("1.txt", "2.txt"):
            (root / "labels" / split / name).write_text("0 0.5 0.5 0.25 0.25\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")


def labelme(root):
    draw(root, *(f"{number}.jpg" for number in range(4)))
    for number in range(4):
        shape = {"label": "cat", "shape_type": "rectangle", "points": [[2, 2], [9, 9]]}
        content = {"imagePath": f"{number}.jpg", "imageWidth": 24, "imageHeight": 16, "shapes": [shape]}
        (root / f"{number}.json").write_text(json.dumps(content))


def huggingface_boxes(root):
    for split in ("train", "validation"):
        draw(root / split, "1.jpg", "2.jpg")
        objects = {"bbox": [[2, 2, 8, 8]], "categories": [0]}
        rows = [{"file_name": f"{number}.jpg", "objects": objects} for number in (1, 2)]
        (root / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def supervisely(root):
    for split in ("train", "val"):
        draw(root / split / "img", "1.jpg", "2.jpg")
        (root / split / "ann").mkdir()
        points = {"exterior": [[2, 2], [9, 9]], "interior": []}
        thing = {"classTitle": "cat", "geometryType": "rectangle", "points": points}
        for name in ("1.jpg", "2.jpg"):
            content = {"size": {"height": 16, "width": 24}, "objects": [thing]}
            (root / split / f"ann/{name}.json").write_text(json.dumps(content))
    (root / "meta.json").write_text('{"classes": [{"title": "cat"}]}')


def points(root):
    draw(root, *(f"{number}.jpg" for number in range(4)))
    rows = "".join(f"{number}.jpg,2,3,9,8\n" for number in range(4))
    (root / "points.csv").write_text(f"path,nose_x,nose_y,tail_x,tail_y\n{rows}")


def shards(root):
    image, mask = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (24, 16), (0, 9, 9)).save(image, "JPEG")
    Image.new("L", (24, 16), 1).save(mask, "PNG")
    facts = {"boxes": [[2, 2, 9, 9]], "labels": [0]}
    parts = {"jpg": image.getvalue(), "cls": b"1", "txt": b"a dog", "json": json.dumps(facts).encode()}
    parts["mask.png"] = mask.getvalue()
    for split in ("train", "val"):
        samples = [parts | {"cls": b"%d" % (n % 2)} for n in range(3)]
        content = [
            tar_member(f"{n}.{name}", data) for n, of in enumerate(samples) for name, data in of.items()
        ]
        (root / f"{split}-000.tar").write_bytes(b"".join(content) + END)
    (root / "classes.txt").write_text("background\nroad\n")


CASES = {
    "WebDataset shards": shards,
    "a table of points": points,
    "a folder for each class": class_folders,
    "a table of images": table,
    "COCO objects": coco,
    "Pascal VOC boxes": voc,
    "images and masks": masks,
    "YOLO boxes": yolo,
    "labelme shapes": labelme,
    "a Supervisely project": supervisely,
    "a Hugging Face folder of boxes": huggingface_boxes,
    "captions": captions,
    "a Hugging Face folder of classes": huggingface,
}


FIELDS = {
    "classification": "label",
    "detection": "boxes",
    "segmentation": "mask",
    "captioning": "captions",
    "keypoints": "keypoints",
}
PAIRS = [(each.name, task) for each in FORMATS if each.name != "a pack" for task in each.tasks]


def test_every_format_has_a_case() -> None:
    assert set(CASES) | {"a pack"} == {each.name for each in FORMATS}
    assert len(FORMATS) == len({each.name for each in FORMATS}) == 14
    assert len(PAIRS) == 19


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_a_format_is_detected_opened_checked_and_packed_for_each_task(name, task, tmp_path, capsys) -> None:
    make, field = CASES[name], FIELDS[task]
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    detected = [each.name for each in detect_formats(root)]
    others = ["a table of images"] if name == "a table of points" else []  # it is one of numbers, too
    assert detected == [name, *others]
    splits = open_dataset(root, task)
    assert len(splits.train) >= 1
    assert len(splits.val) >= 1
    assert field in splits.train[0]
    assert splits.notices == ()
    assert cli.main(["check", str(root)]) == 0
    assert f"{root}: {name}, {len(splits.train)} train" in capsys.readouterr().out
    assert cli.main(["pack", str(root), "--task", task]) == 0
    packed = open_dataset(f"{root}.pack", task)
    assert packed.classes == splits.classes
    assert len(packed.train) == len(splits.train)
    first, again = splits.train[0], packed.train[0]
    assert set(first) <= set(again)
    value = first[field]
    assert value == again[field] if isinstance(value, list) else value.equal(again[field])


@pytest.mark.parametrize("given", ["data", "data/", "."])
@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_a_relative_path_is_checked_opened_and_packed_as_the_whole_one(
    name, task, given, tmp_path, monkeypatch
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    CASES[name](root)
    whole = open_dataset(root, task)
    monkeypatch.chdir(root if given == "." else tmp_path)
    splits = open_dataset(given, task)
    for one, other in ((splits.train, whole.train), (splits.val, whole.val)):
        assert [sample["id"] for sample in one] == [sample["id"] for sample in other]
    assert (splits.classes, splits.notices) == (whole.classes, ())
    assert cli.main(["check", given]) == 0
    assert cli.main(["pack", given, "--task", task, "--out", str(tmp_path / "packed")]) == 0
    assert len(open_dataset(tmp_path / "packed", task).train) == len(whole.train)


def test_check_folder_takes_a_relative_path(tmp_path, monkeypatch) -> None:
    class_folders(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert check_folder("data") == []


@pytest.mark.parametrize("name", ["COCO objects", "labelme shapes"])
def test_outlines_are_packed_with_the_boxes(name, tmp_path) -> None:
    CASES[name](tmp_path / "data")
    assert cli.main(["check", str(tmp_path / "data"), "--masks"]) == 0
    assert cli.main(["pack", str(tmp_path / "data"), "--masks"]) == 0
    packed = open_dataset(tmp_path / "data.pack", "detection", OpenOptions(masks=True))
    masks = open_dataset(tmp_path / "data", "detection", OpenOptions(masks=True)).train[0]["masks"]
    assert packed.train[0]["masks"].equal(masks)


@pytest.mark.parametrize(
    "name", [each.name for each in FORMATS if each.name not in ("a pack", "WebDataset shards")]
)
def test_check_decodes_each_image_once(name, tmp_path, monkeypatch) -> None:
    """Images are decoded for the list of errors only, and each of them once."""
    opened: Counter[str] = Counter()
    root = tmp_path / "data"
    root.mkdir()
    CASES[name](root)
    images = {".jpg", ".png"}
    files = [file for file in root.rglob("*") if file.suffix in images and "mask" not in file.parts[-2]]

    def count(path, *args, **kwargs):
        opened[str(path)] += 1
        return decoded(path, *args, **kwargs)

    decoded = read_image_module._decoded
    monkeypatch.setattr(read_image_module, "_decoded", count)
    (report,) = check_dataset(root)
    assert (report.errors, len(files) > 0) == ((), True)
    assert opened == Counter(map(str, files))


def test_a_data_set_of_another_task_is_refused_by_the_name_of_its_format(tmp_path) -> None:
    coco(tmp_path)
    with pytest.raises(InputError, match=r"holds COCO objects, which is for detection and segmentation"):
        open_dataset(tmp_path, "classification")
    class_folders(tmp_path / "other")
    with pytest.raises(InputError, match=r"holds a folder for each class(.|\n)*captions.txt"):
        open_dataset(tmp_path / "other", "captioning")


def test_a_fault_of_a_coco_layout_is_told_as_one(tmp_path) -> None:
    (tmp_path / "annotations").mkdir()
    for year in (2014, 2017):
        (tmp_path / f"annotations/instances_train{year}.json").write_text(
            '{"images": [], "annotations": [], "categories": []}'
        )
    with pytest.raises(DataError, match=r"one COCO file of the split train(.|\n)*2014(.|\n)*2017"):
        open_dataset(tmp_path, "detection")


def test_a_table_of_several_labels_is_checked_packed_and_opened_by_its_flags(tmp_path, capsys) -> None:
    draw(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    table = tmp_path / "tags.csv"
    table.write_text("path,tags,note\n1.jpg,A|B,x\n2.jpg,B,x\n3.jpg,A,x\n")
    flags = ["--target", "multi", "--table.target", "tags", "--table.separator", "|"]
    assert cli.main(["check", str(table), *flags]) == 0
    assert cli.main(["pack", str(table), *flags, "--out", str(tmp_path / "p")]) == 0
    assert open_pack(tmp_path / "p").classes == ("A", "B")


@pytest.mark.parametrize("task", TASKS)
def test_what_is_no_data_set_is_answered_with_the_formats_of_the_task(task, tmp_path) -> None:
    with pytest.raises(DataError, match="nothing by this name"):
        open_dataset(tmp_path / "nowhere", task)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"Expected"):
        open_dataset(tmp_path, task)
    with pytest.raises(DataError, match="a file of another kind"):
        open_dataset(tmp_path / "notes.txt", task)


def test_scenes_are_opened_by_name_at_the_sizes_given() -> None:
    splits = open_dataset("scenes", "detection", OpenOptions(scenes=SceneSizes(64, 12, 5)))
    assert (len(splits.train), len(splits.val), splits.facts["size"]) == (12, 5, 64)


def test_notices_outlive_a_pack(tmp_path) -> None:
    """A pack repeats what its source left out."""
    from dataclasses import replace

    from visionkit.data import Notice, pack

    class_folders(tmp_path / "data")
    splits = open_dataset(tmp_path / "data", "classification")
    notice = Notice("files that are no images ignored", 3, 20, "a.xyz")
    pack(replace(splits, notices=(notice,)), tmp_path / "p")
    assert [each.as_dict() for each in open_pack(tmp_path / "p").notices] == [notice.as_dict()]


def test_what_is_no_path_or_task_is_refused_and_nothing_raises_when_formats_are_told(tmp_path) -> None:
    with pytest.raises(InputError, match=r"Unknown task 'classify'. Did you mean 'classification'"):
        open_dataset(tmp_path, "classify")
    for root in ("", None, b"photos"):
        with pytest.raises(InputError, match="Expected the data set to be the path"):
            open_dataset(root, "classification")
    for name in ("a\0b", "a" * 5000):
        assert detect_formats(name) == []
        with pytest.raises(DataError, match="nothing by this name"):
            open_dataset(name, "classification")
    class_folders(tmp_path / "c")
    (tmp_path / "c/cat/loop").symlink_to("loop")
    assert [each.name for each in detect_formats(tmp_path / "c")] == ["a folder for each class"]
    assert len(open_dataset(tmp_path / "c", "classification").train) >= 1


@pytest.mark.parametrize("text", ["", "[1, 2]"])
def test_a_json_file_of_something_else_holds_no_coco_objects(text, tmp_path) -> None:
    (tmp_path / "x.json").write_text(text)
    assert detect_formats(tmp_path / "x.json") == []
    with pytest.raises(DataError, match=r"x\.json"):
        open_dataset(tmp_path / "x.json", "detection")


def test_one_image_is_a_fault_that_names_the_file(tmp_path, capsys) -> None:
    draw(tmp_path, "1.jpg")
    (tmp_path / "one.csv").write_text("path,label\n1.jpg,a\n")
    draw(tmp_path / "c/cat", "1.jpg")
    for root in (tmp_path / "one.csv", tmp_path / "c"):
        with pytest.raises(DataError, match=r"(one\.csv|/c): Expected the number of samples.*at least 2"):
            open_dataset(root, "classification")
        assert cli.main(["check", str(root)]) == 2
        assert f"{root}: Expected the number of samples" in capsys.readouterr().out


def test_check_says_how_it_read_a_table_and_pack_reads_it_alike(tmp_path, capsys) -> None:
    draw(tmp_path, *(f"{number}.jpg" for number in range(24)))
    rows = [f"{number}.jpg,{'a|b' if number == 3 else 'ab'[number % 2]}\n" for number in range(24)]
    table = tmp_path / "t.csv"
    table.write_text("path,label\n" + "".join(rows))
    assert cli.main(["check", str(table)]) == 0
    told = "read as several labels separated by '|': train with --target multi --table.separator '|'"
    assert told in capsys.readouterr().out.splitlines()[0]
    assert cli.main(["pack", str(table), "--out", str(tmp_path / "p")]) == 0
    assert told in capsys.readouterr().err
    assert open_pack(tmp_path / "p").classes == ("a", "b")
    (notice,) = open_dataset(table, "classification").notices
    assert str(notice).startswith("labels that may be several names: 1 of 24")


def test_what_a_reader_leaves_out_within_its_limit_is_a_notice_and_no_fault(tmp_path, capsys) -> None:
    voc(tmp_path)
    file = tmp_path / "Annotations/a.xml"
    thing = "<object><name>cat</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>{}</xmax>"
    thing += "<ymax>9</ymax></bndbox></object>"
    sound = file.read_text()
    file.write_text(sound.replace("</annotation>", thing.format(9) * 12 + thing.format(2) + "</annotation>"))
    assert cli.main(["check", str(tmp_path)]) == 0
    assert "0 errors, 1 notice\n" in capsys.readouterr().out
    file.write_text(sound.replace("</annotation>", thing.format(9) + thing.format(2) + "</annotation>"))
    assert cli.main(["check", str(tmp_path)]) == 2
    assert "2 errors" in capsys.readouterr().out
