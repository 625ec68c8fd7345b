"""Pascal VOC: real cell photographs, and every fault of an annotation by file and field."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from visionkit.data.formats.voc.reader import VocReader, check_voc, is_voc, voc
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
    for name, objects in {**annotations, "held": _object((1, 1, 20, 30))}.items():
        Image.new("RGB", (60, 40), (9, 99, 9)).save(root / "JPEGImages" / f"{name}.jpg")
        text = objects if objects.startswith("<?") else XML.format(name=name, objects=objects)
        (root / "Annotations" / f"{name}.xml").write_text(text)
    (root / "ImageSets/Main/train.txt").write_text("\n".join(annotations))
    (root / "ImageSets/Main/val.txt").write_text("held")
    return root


def test_real_cells_read_whole_and_the_two_boxes_without_area_are_named(shared_data):
    splits = voc(shared_data / "bccd")
    assert splits.classes == ("Platelets", "RBC", "WBC")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (205, 87, 72)
    said = [(each.what, each.count) for each in splits.notices]
    assert said == [(f"{split}: boxes that cannot be right, left out", 1) for split in ("train", "val")]
    assert all("with an area" in each.first and ".xml, record" in each.first for each in splits.notices)
    boxes = [len(e.boxes) for r in (splits.train, splits.val, splits.test) for e in r._entries]
    assert all(e.boxes == e.full for e in splits.val._entries)
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
    assert sample["truth"]["boxes"].tolist() == [[1, 1, 20, 30], [5, 5, 61, 40]]
    assert sample["truth"]["iscrowd"].tolist() == [0, 1]
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
    "unknown encoding": ("<?xml version='1.0' encoding='klingon-8'?><annotation/>", "encoding", "declares"),
    "no text encoding": ("<?xml version='1.0' encoding='zlib'?><annotation/>", "encoding", "declares 'zlib'"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_faults_are_named_by_file_and_field(tmp_path, fault):
    text, field, words = fault
    root = _folder(tmp_path, {"good": _object((1, 1, 20, 30)), "bad": text})
    found = check_voc(root)
    assert [fault.field for fault in found] == [field]
    with pytest.raises(DataError, match=words) as caught:
        VocReader(root, ["good", "bad"], bad_boxes="raise")
    assert "bad" in str(caught.value) or field == "path"


def test_a_wrong_size_a_missing_image_and_a_missing_list_are_named(tmp_path):
    root = _folder(tmp_path, {"a": _object((1, 1, 20, 30)), "b": ""})
    Image.new("RGB", (50, 40)).save(root / "JPEGImages/a.jpg")
    (root / "JPEGImages/b.jpg").unlink()
    assert sorted(str(fault.field) for fault in check_voc(root)) == ["image", "size"]
    with pytest.raises(DataError, match=r"annotations without an image, left out: 1 of 2 .*called b\.jpg"):
        voc(root)
    with pytest.raises(DataError, match="60 x 40 pixels, as the annotation says, but it is 50 x 40"):
        voc(root, max_dropped=0.5).train[0]
    (root / "ImageSets/Main/train.txt").unlink()
    with pytest.raises(DataError, match="Expected the list of training images"):
        voc(root)
    with pytest.raises(DataError, match="JPEGImages is missing"):
        voc(tmp_path / "nowhere")


def _side_by_side(folder: Path, names, *, images: str = ".", annotations: str = ".") -> Path:
    for number, name in enumerate(names):
        for part in (images, annotations):
            (folder / part).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (9 * number, 9, 9)).save(folder / images / f"{name}.png")
        text = XML.format(name=name, objects=_object((1, 1, 20, 30)))
        (folder / annotations / f"{name}.xml").write_text(text)
    return folder


LAYOUTS = {
    "labelImg": ((".", "."),),
    "folders": (("images", "annotations"),),
    "other names": (("JPEGImages", "Annotations"),),
    "beside a folder": ((".", "xmls"),),
    "roboflow": (("train", "train"), ("valid", "valid"), ("test", "test")),
    "split folders": (("train/images", "train/annotations"), ("Validation/images", "Validation/annotations")),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_annotations_without_lists_are_read(tmp_path, layout):
    root = tmp_path / "set"
    for images, texts in layout:
        _side_by_side(root, [f"a {i}" for i in range(5)], images=images, annotations=texts)
    assert is_voc(root)
    splits = voc(root)
    if len(layout) == 1:
        assert (len(splits.train), len(splits.val), splits.test) == (4, 1, None)
        assert "held out" in splits.facts["held_out"]
        assert voc(root).val.ids == splits.val.ids
    else:
        assert (len(splits.train), len(splits.val)) == (5, 5)
        assert (splits.test is None) == (len(layout) == 2)
    assert splits.notices == ()
    assert splits.train[0]["boxes"].tolist() == [[1, 1, 20, 30]]
    assert check_voc(root) == []
    images = root / layout[0][0]
    Image.new("RGB", (60, 40)).save(images / "unlabelled.jpg")
    (notice,) = voc(root).notices
    assert (notice.what, notice.count) == ("train: images without an annotation file, left out", 1)


def test_what_is_no_voc_folder_is_told_with_all_layouts(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "cat/1.jpg")
    (tmp_path / "cat/1.jpg.aux.xml").write_text("<PAMDataset/>")
    for place in (tmp_path, tmp_path / "cat", tmp_path / "nowhere"):
        assert not is_voc(place)
        with pytest.raises(DataError, match="side by side"):
            voc(place)


def test_the_image_of_an_annotation_is_the_one_of_its_name(tmp_path):
    root = _folder(tmp_path, {f"{i}": _object((1, 1, 20, 30)) for i in range(4)})
    for number in range(4):
        Image.new("RGB", (60, 40), (0, 0, 60 * number)).save(root / "JPEGImages" / f"{number}.png")
        (root / "JPEGImages" / f"{number}.jpg").unlink()
    (root / "JPEGImages/1.png").rename(root / "JPEGImages/1.PNG")

    def filename(number: int, said: str) -> None:
        text = XML.format(name="x", objects=_object((1, 1, 20, 30))).replace("x.jpg", said)
        (root / "Annotations" / f"{number}.xml").write_text(text)

    # Stale names, names of no file and names out of the folder are not needed.
    filename(1, "IMG_2034.JPG")
    filename(2, "C:\\Users\\me\\2.bmp")
    filename(3, "../../../etc/passwd.jpg")
    splits = voc(root)
    assert splits.notices == ()
    assert check_voc(root) == []
    assert [int(splits.train[i]["image"][2, 0, 0]) for i in range(4)] == [0, 60, 120, 180]
    # The name of another image that is there: one of the two is wrong.
    filename(2, "0.png")
    assert [
        (fault.field, "Expected <filename> to be '2.png'" in str(fault)) for fault in check_voc(root)
    ] == [("filename", True)]
    with pytest.raises(DataError, match=r"is another image.*: 1 of 4"):
        voc(root)
    assert int(voc(root, max_dropped=0.3).train[2]["image"][2, 0, 0]) == 120
    # No image of that name, but one that <filename> names.
    (root / "JPEGImages/2.png").rename(root / "JPEGImages/other.png")
    filename(2, "other.png")
    splits = voc(root)
    assert {each.what.split(": ")[1][:45] for each in splits.notices} == {
        "annotations without an image of their own nam"
    }
    assert int(splits.train[2]["image"][2, 0, 0]) == 120
    (root / "JPEGImages/3.png").unlink()
    with pytest.raises(DataError, match="Expected a file inside"):
        voc(root)


def test_lines_of_lists_may_hold_spaces_marks_suffixes_and_repeats(tmp_path):
    names = ["my photo 1", "my photo 2", "other", "last"]
    root = _folder(tmp_path, {name: _object((1, 1, 20, 30)) for name in names})
    lines = "\ufeffmy photo 1\nmy photo 2  1\nother -1\nJPEGImages/last.jpg\n"
    (root / "ImageSets/Main/train.txt").write_text(lines, encoding="utf-8")
    splits = voc(root)
    assert splits.train.ids == names
    assert splits.notices == ()
    (root / "ImageSets/Main/train.txt").write_text(lines + "last\nnone 1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"without an annotation file, left out: 1 of 6 .*none\.xml"):
        voc(root)
    splits = voc(root, max_dropped=0.2)
    assert splits.train.ids == names
    assert {each.what: each.count for each in splits.notices} == {
        "train: images of a list without an annotation file, left out": 1,
        "train: names listed twice": 1,
    }
    (root / "ImageSets/Main/train.txt").rename(root / "ImageSets/Main/trainval.txt")
    (root / "ImageSets/Main/val.txt").unlink()
    splits = voc(root, max_dropped=0.2)
    assert (len(splits.train), len(splits.val)) == (3, 1)


ENCODINGS = {
    "gb2312": "猫",
    "GBK": "貓朶",
    "big5": "貓",
    "euc-kr": "고양이",
    "Shift_JIS": "猫",
    "utf-16": "猫",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_annotations_in_the_encodings_of_their_countries(tmp_path, encoding):
    root, name = _folder(tmp_path, {"a": ""}), ENCODINGS[encoding]
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + XML.format(
        name="a", objects=_object((1, 1, 20, 30), name=name)
    )
    (root / "Annotations/a.xml").write_bytes(text.encode(encoding))
    assert voc(root).classes == ("cat", name)
    entity = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "{name}">]><annotation>&b;'
    (root / "Annotations/a.xml").write_bytes(f"{entity}</annotation>".encode(encoding))
    with pytest.raises(DataError, match="XML without entities"):
        voc(root)
    if encoding == "euc-kr":
        (root / "Annotations/a.xml").write_bytes(text.encode(encoding)[:-40] + b"\xff\xff")
        with pytest.raises(DataError, match="as the file declares, but byte"):
            voc(root)


def test_a_box_over_the_border_is_cut_for_training_and_whole_for_scores(tmp_path):
    both = _object((40, 20, 66, 45)) + _object((1, 1, 20, 30))
    root = _folder(tmp_path, {"a": both, "b": both})
    for split, name in (("train", "a"), ("val", "b")):
        (root / "ImageSets/Main" / f"{split}.txt").write_text(name)
    splits = voc(root)
    assert [each.what for each in splits.notices] == [
        f"{split}: boxes that reach over the border of their images, cut there" for split in ("train", "val")
    ]
    assert splits.val[0]["boxes"].tolist() == [[40, 20, 60, 40], [1, 1, 20, 30]]
    assert splits.val[0]["truth"]["boxes"].tolist() == [[40, 20, 66, 45], [1, 1, 20, 30]]
    with pytest.raises(DataError, match="reaches beyond"):
        voc(root, bad_boxes="raise")


@pytest.mark.parametrize("text", ["", "b"])
def test_a_validation_list_with_nothing_to_score_is_refused(tmp_path, text):
    root = _folder(tmp_path, {"a": _object((1, 1, 20, 30)), "b": ""})
    (root / "ImageSets/Main/val.txt").write_text(text)
    with pytest.raises(DataError, match="nothing to score" if text else "validation list, but it is empty"):
        voc(root)
    (root / "ImageSets/Main/val.txt").unlink()
    (root / "ImageSets/Main/train.txt").write_text("a")
    with pytest.raises(DataError, match="at least 2 training images, but got 1"):
        voc(root)


@pytest.mark.parametrize("width", ["nan", "inf", "60.9"])
def test_sizes_are_whole_numbers(tmp_path, width):
    text = XML.format(name="a", objects=_object((1, 1, 20, 30))).replace("60", width)
    root = _folder(tmp_path, {"a": "<?xml version='1.0'?>" + text})
    with pytest.raises(DataError, match="Expected a whole number") as caught:
        voc(root)
    assert caught.value.field == "size"
    (fault,) = check_voc(root)
    assert fault.field == "size"
