"""Tables as people have them: delimiters, numbers as classes, columns, folders, images named twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from visionkit.config import TableConfig
from visionkit.data import check_table, image_table
from visionkit.data.formats.csv.delimited import DELIMITERS, read_delimited
from visionkit.data.formats.csv.rows import is_image_table, read_table
from visionkit.data.formats.csv.targets import table_kind
from visionkit.data.formats.dataset_report import check_dataset
from visionkit.data.formats.open import detect_formats, open_dataset
from visionkit.data.formats.options import OpenOptions
from visionkit.errors import DataError, InputError


@pytest.fixture
def table(tmp_path):
    for i in range(10):
        Image.new("RGB", (8, 6), (i, 0, 0)).save(tmp_path / f"{i}.png")

    def write(text, name="data.csv", encoding="utf-8"):
        file = tmp_path / name
        file.write_text(text, encoding=encoding)
        return file

    return write


def rows(header, values):
    return header + "\n" + "".join(f"{i % 10}.png,{value}\n" for i, value in enumerate(values))


def said(splits):
    return " / ".join(str(notice) for notice in splits.notices)


NUMBERS = [
    (["1", "2", "3"], ("1", "2", "3")),
    (["104523", "733412"], ("104523", "733412")),
    (["10", "9", "2004"], ("9", "10", "2004")),
    (["-1", "1"], ("-1", "1")),
    (["1.0", "0.0"], ("0.0", "1.0")),
    (["01", "1", "2"], ("1", "2")),
    (["00015", "00002"], ("00002", "00015")),
    (["0", "1", "2"], ("0", "1", "2")),
    (["a", "2", "10"], ("10", "2", "a")),
]


def test_classes_are_the_numbers_that_occur(table):
    for values, classes in NUMBERS:
        splits = image_table(table(rows("path,label", values * 3)))
        assert splits.classes == classes
        labels = {*splits.train.labels, *splits.val.labels}
        assert labels == set(range(len(classes)))
        tags = table(rows("path,tags", ["|".join(values)] * 4))
        assert image_table(tags, kind="multi", separator="|").classes == classes
    assert len(NUMBERS) == 9


@given(numbers=st.lists(st.integers(-50, 10**9), min_size=1, max_size=8))
def test_each_number_keeps_its_meaning(numbers):
    from collections import Counter
    from pathlib import Path

    from visionkit.data.formats.csv.targets import Row, target_parser
    from visionkit.notices import NoticeCounter

    made = [Row(Path("t.csv"), i, "x", "train", (str(number),)) for i, number in enumerate(numbers)]
    names, parse = target_parser(
        Path("t.csv"), "single", ("label",), None, None, made, NoticeCounter(max_fraction=None)
    )
    assert [int(name) for name in names] == sorted(Counter(numbers))
    for row, number in zip(made, numbers, strict=True):
        assert int(names[parse(row)]) == number


def test_given_classes_keep_the_meaning_of_indices(table):
    file = table(rows("path,label", ["0", "2", "1"] * 3))
    splits = image_table(file, classes=("ant", "bee", "cat"))
    assert sorted({*splits.train.labels, *splits.val.labels}) == [0, 1, 2]
    with pytest.raises(DataError, match=r"in 0 \.\. 1"):
        image_table(file, classes=("ant", "bee"))
    # Names that are numbers are names, and no other number is an index into them.
    with pytest.raises(DataError, match="Expected one of the 2 classes"):
        image_table(file, classes=("1", "2"))


def test_the_delimiter_is_told_by_the_header(table):
    for mark in DELIMITERS:
        text = rows("path,label", ["b|c" if mark != "|" else "b", "a"] * 4).replace(",", mark)
        for name in ("a.CSV", "a.tsv"):
            file = table(text, name, "utf-8-sig")
            assert is_image_table(file)
            splits = image_table(file)
            assert splits.classes[0] == "a"
            assert len(splits.train) + len(splits.val) == 8
    assert read_delimited(table(rows("path,a;b", ["1", "2"])), known=("path",)).delimiter == ","
    with pytest.raises(DataError, match="2 with the comma, 2 with the semicolon"):
        read_delimited(table("a,b;c\n1,2;3\n"), known=("path",))


def test_encodings_and_open_quotes_are_named(table):
    excel = table(rows("path\tlabel", ["a", "b"]).replace(",", "\t"), encoding="utf-16")
    assert is_image_table(excel)
    assert image_table(excel, held_out=0.5).classes == ("a", "b")
    with pytest.raises(DataError, match=r"line 2 holds the byte 0xe9"):
        image_table(table(rows("path,label", ["\xe9"]), encoding="latin-1"))
    with pytest.raises(DataError, match="quotation mark") as caught:
        image_table(table('path,label\n0.png,"a\n'))
    assert caught.value.record == "line 2"


def test_columns_that_are_not_needed_are_named(table):
    splits = image_table(table(",path,label,age\n0,0.png,a,3\n1,1.png,b,4\n"))
    assert splits.classes in (("a",), ("b",), ("a", "b"))
    assert "columns not read: " in said(splits)
    assert "'age': 'label' is taken" in said(splits)
    text = "path,label,subset\n0.png,a,train\n1.png,b,valid\n2.png,a,train\n"
    assert "'subset' holds train, valid: call it 'split'" in said(image_table(table(text)))
    with_case = image_table(table("Path,Label,Split\n0.png,a,Train\n1.png,a,VALID\n"))
    assert (len(with_case.train), len(with_case.val)) == (1, 1)


def test_decimals_are_no_classes(table):
    file = table(rows("path,age", ["3.5", "4.25", "3.5"]))
    with pytest.raises(DataError, match=r"numbers with decimals \(3\.5\)(.|\n)*--target regression"):
        image_table(file)
    assert image_table(file, classes=("3.5", "4.25")).classes == ("3.5", "4.25")
    for i in range(10, 30):
        Image.new("L", (8, 6)).save(file.parent / f"{i}.png")
    years = table("path,year\n" + "".join(f"{i}.png,{1900 + i}\n" for i in range(30)))
    assert "classes with one training row: 30. First" in said(image_table(years))
    with pytest.raises(DataError, match="Write a point for the comma"):
        image_table(table("path;age\n0.png;0,5\n1.png;1,5\n"), kind="regression")


KINDS = [
    ([["a"], ["b"]], ("single", None)),
    ([["1"], ["7"]], ("single", None)),
    ([["a|b"], ["b"], [""]], ("multi", "|")),
    ([["x; y"], ["y"], ["x"]], ("multi", ";")),
    ([["Smith, J"], ["Miller, A"]], ("single", None)),
    ([["3.5"], ["4"]], ("regression", None)),
    ([["1", "0"], ["0", "0"]], ("multi", None)),
    ([["1", "0.5"], ["0", "7"]], ("regression", None)),
    ([["a", "0"], ["b", "1"]], ("single", None)),
]


def test_the_kind_is_told_by_the_cells(table):
    for cells, kind in KINDS:
        assert table_kind(cells) == kind
    assert len(KINDS) == 9
    flags, ages = rows("path,red,round", ["1,0", "0,1"]), rows("path,age", ["3.5", "2"])
    for text in (flags, ages, rows("path,tags", ["A|B", "B|A"])):
        assert check_table(table(text)) == []
        assert check_dataset(table(text))[0].ok
    assert read_table(table(flags), kind=None).kind == "multi"


def test_paths_are_completed_and_found_below(table):
    folder = table("").parent
    (folder / "train").mkdir()
    for i in range(4):
        Image.new("RGB", (8, 6)).save(folder / "train" / f"k{i}.JPG", format="JPEG")
    splits = image_table(table("Id,breed\nk0,pug\nk1,lab\nk2,pug\nk3,lab\n", "labels.csv"))
    assert sorted([*splits.train.ids, *splits.val.ids]) == ["k0.JPG", "k1.JPG", "k2.JPG", "k3.JPG"]
    assert splits.train[0]["image"].shape == (3, 6, 8)
    assert "image names completed by their ending: 4 of 4" in said(splits)
    assert "folders of images found below the table's: " in said(splits)
    case = image_table(table("path,label\ntrain/K0.jpg,a\nTrain/k1.jpg,b\n"), held_out=0.5)
    assert sorted([*case.train.ids, *case.val.ids]) == ["train/k0.JPG", "train/k1.JPG"]
    assert "image names in other case or spelling: 2 of 2" in said(case)
    windows = image_table(table("path,label\ntrain\\k0.JPG,a\ntrain\\k1.JPG,b\n"))
    assert windows.train.ids[0].startswith("train/k")
    (folder / "other").mkdir()
    Image.new("RGB", (8, 6)).save(folder / "train" / "k0.png")
    Image.new("RGB", (8, 6)).save(folder / "other" / "far.png")
    for name, what in {
        "train/k0": r"found k0\.JPG, k0\.png",
        "train/k1.png": r"There is 'train/k1\.JPG'",
        "12.png": r"Did you mean '\d\.png'",
        "far.png": r"There is one in .*other",
    }.items():
        with pytest.raises(DataError, match=what) as caught:
            image_table(table(f"path,label\n0.png,a\n{name},a\n"))
        assert (caught.value.record, caught.value.field) == ("line 3", "path")


def test_images_named_twice_are_said_or_refused(table):
    splits = image_table(table(rows("path,label", ["a", "b"] * 10)), held_out=0.3)
    ids = [*splits.train.ids, *splits.val.ids]
    assert len(set(ids)) == 20
    images = [{name.split(" ")[0] for name in part.ids} for part in (splits.train, splits.val)]
    assert not images[0] & images[1]
    assert "images named again in their split: 10 of 20" in said(splits)
    assert "5.png (line 17)" in ids
    with pytest.raises(DataError, match=r"images with two classes: 1 of 3(.|\n)*line 2 and line 4"):
        image_table(table("path,label\n0.png,a\n1.png,b\n./0.png,b\n"))
    with pytest.raises(DataError, match="images that are in two splits: 1 of 1"):
        image_table(table("path,label,split\n0.png,a,train\n1.png,a,train\n0.png,a,test\n"))
    faults = check_table(table("path,label,split\n0.png,a,train\n1.png,a,train\n0.png,a,test\n"))
    assert "two splits" in str(faults[0])
    assert len(image_table(table("path,y\n0.png,1\n0.png,2\n1.png,3\n"), kind="regression").notices) == 1


def test_other_tables_are_none(table):
    assert not is_image_table(table("image,caption\n0.png,a dog\n"))
    assert not is_image_table(table("image,xmin,ymin,xmax,ymax,label\n"))
    assert not is_image_table(table("a,b\n"))
    assert not is_image_table(table("path\n"))
    assert not is_image_table(table("path,label\n", "data.txt"))
    assert not is_image_table("nothing.csv")
    with pytest.raises(InputError, match="Did you mean 'label'"):
        image_table(table("path,label\n0.png,a\n"), target="lable")


def test_real_tables_have_no_fault(shared_data):
    whales = read_table(shared_data / "whales/labels.csv")
    assert (len(whales.classes), len(whales.rows), whales.notices) == (208, 1353, ())
    assert "classes of the training rows" in whales.errors[0].message  # the test individuals are others
    votes = image_table(shared_data / "galaxies/votes.csv", kind="regression")
    assert (len(votes.classes), len(votes.train) + len(votes.val), len(votes.test)) == (4, 376, 94)
    assert [notice.what for notice in votes.notices] == ["folders of images found below the table's"]
    assert read_table(shared_data / "galaxies/votes.csv", kind=None).kind == "regression"


def test_what_the_page_on_own_data_shows_is_opened_as_it_says(table):
    folder = table(rows("path,label", ["dark", "light"] * 5), "labels.csv").parent
    (folder / "tags.csv").write_text(rows("path,tags", ["dark|round", "dark", "round|dark"] * 3))
    (folder / "ages.csv").write_text(rows("path,age", ["3.5", "4"] * 3))
    multi = OpenOptions(target="multi", table=TableConfig(separator="|"))
    assert open_dataset(folder / "tags.csv", "classification", multi).classes == ("dark", "round")
    assert "'dark|round' is one class" in said(open_dataset(folder / "tags.csv", "classification"))
    chosen = OpenOptions(table=TableConfig(image="path", target=["label"], root=str(folder)))
    assert open_dataset(folder / "labels.csv", "classification", chosen).classes == ("dark", "light")
    told = OpenOptions(target=None)
    for name, classes in (("tags", ("dark", "round")), ("ages", ("age",)), ("labels", ("dark", "light"))):
        file = folder / f"{name}.csv"
        (form,) = detect_formats(file)
        assert form.read(file, "classification", told).errors(True) == []
        assert open_dataset(file, "classification", told).classes == classes
    assert detect_formats(folder) == []  # three tables: which one is meant?
    (folder / "tags.csv").unlink()
    (folder / "ages.csv").unlink()
    assert [form.name for form in detect_formats(folder)] == ["a table of images"]
    for i in range(4):
        (folder / f"{i % 2}").mkdir(exist_ok=True)
        Image.new("L", (8, 6)).save(folder / f"{i % 2}" / f"x{i}.png")
    assert [form.name for form in detect_formats(folder)] == ["a folder for each class"]
    with pytest.raises(DataError, match="outside of the class folders"):
        open_dataset(folder, "classification")
    loose = open_dataset(folder, "classification", OpenOptions(max_dropped=0.9))
    assert "tables of images beside the class folders not read: " in said(loose)
