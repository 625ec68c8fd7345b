"""Tables: three kinds of target, and every bad row by file, line and field."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from visionkit.data import check_table, image_table
from visionkit.data.formats.dataset_report import check_dataset
from visionkit.errors import DataError, InputError


@pytest.fixture
def table(tmp_path):
    for i in range(10):
        Image.new("RGB", (8, 6), (i, 0, 0)).save(tmp_path / f"{i}.png")

    def write(text):
        file = tmp_path / "data.csv"
        file.write_text(text)
        return file

    return write


def test_one_class_by_name_with_a_split_column(table):
    rows = "".join(f"{i}.png,{'cat' if i % 2 else 'ant'},{'val' if i > 7 else 'train'}\n" for i in range(10))
    splits = image_table(table("path,label,split\n" + rows))
    assert (splits.classes, len(splits.train), len(splits.val)) == (("ant", "cat"), 8, 2)
    assert splits.train.labels == [0, 1] * 4
    sample = splits.val[0]
    assert (sample["id"], int(sample["label"]), sample["label"].dtype) == ("8.png", 0, torch.int64)


def test_several_classes_as_columns_and_as_names(table):
    columns = table("file,red,round\n0.png,1,0\n1.png,0,1\n2.png,1,1\n")
    splits = image_table(columns, kind="multi", held_out=0.34)
    assert splits.classes == ("red", "round")
    assert splits.train[0]["label"].dtype == torch.float32
    names = table("file,tags,split\n0.png,red|round,train\n1.png,,train\n2.png,round,val\n")
    splits = image_table(names, kind="multi", separator="|")
    assert [splits.train[i]["label"].tolist() for i in range(2)] == [[1, 1], [0, 0]]
    assert splits.val[0]["label"].tolist() == [0, 1]


def test_numbers_to_regress(table):
    splits = image_table(
        table("image,x,y\n" + "".join(f"{i}.png,{i}.5,-1e3\n" for i in range(10))), kind="regression"
    )
    assert splits.classes == ("x", "y")
    assert (len(splits.train), len(splits.val)) == (8, 2)
    assert splits.val[0]["label"][1].item() == -1000
    assert "held_out" in splits.facts


BAD = [
    ("path,label\n0.png,a\nnone.png,a\n", "single", "there is none", "line 3", "path"),
    ("path,label\n0.png,a\n../x.png,a\n", "single", "inside", "line 3", "path"),
    ("path,label\n0.png,a\n/etc/passwd,a\n", "single", "inside", "line 3", "path"),
    ("path,label\n0.png,a\n1.png,\n", "single", "empty", "line 3", "label"),
    ("path,label,split\n0.png,cat,train\n1.png,cta,val\n", "single", "Did you mean 'cat'", "line 3", "label"),
    (
        "path,label,split\n0.png,0,train\n1.png,1,train\n2.png,7,val\n",
        "single",
        "They are: 0, 1",
        "line 4",
        "label",
    ),
    ("path,label,split\n0.png,0,train\n1.png,-1,val\n", "single", "They are: 0", "line 3", "label"),
    ("path,label,split\n0.png,a,tarin\n", "single", "train, val or test", "line 2", "split"),
    ("path,label\n0.png,a,b\n", "single", "2 values", "line 2", None),
    ("path,y\n0.png,1\n1.png,nan\n", "regression", "finite", "line 3", "y"),
    ("path,y\n0.png,1\n1.png,inf\n", "regression", "finite", "line 3", "y"),
    ("path,y\n0.png,1\n1.png,\n", "regression", "finite", "line 3", "y"),
    ("path,a,b\n0.png,1,0\n1.png,2,0\n", "multi", "0 or 1", "line 3", "a"),
    ("path,label\n", "single", "empty", None, None),
    ("path,label,label\n0.png,1,1\n", "single", "twice", "line 1", None),
]


def test_every_bad_row_is_named(table):
    for text, kind, said, record, field in BAD:
        file = table(text)
        with pytest.raises(DataError, match=said) as caught:
            image_table(file, kind=kind)
        assert (caught.value.path, caught.value.record, caught.value.field) == (str(file), record, field)
    assert len(BAD) == 15


def test_wrong_questions_are_refused(table):
    file = table("path,kind,more\n0.png,a,b\n")
    with pytest.raises(InputError, match="one column of classes"):
        image_table(file)
    with pytest.raises(InputError, match="Did you mean 'kind'"):
        image_table(file, target="kid")
    with pytest.raises(InputError, match="single"):
        image_table(file, kind="sinlge")
    with pytest.raises(InputError, match="no separator"):
        image_table(file, kind="multi", target="kind")
    with pytest.raises(InputError, match="column of paths"):
        image_table(table("where,label\n0.png,a\n"))
    with pytest.raises(DataError, match="none by this name"):
        image_table(file.parent / "no.csv")
    (file.parent / "latin.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(DataError, match="UTF-8"):
        image_table(file.parent / "latin.csv")


def test_check_reports_every_row_at_once(table):
    file = table("path,label\n0.png,a\nnone.png,a\n1.png,\n2.png,a\n")
    (file.parent / "2.png").write_bytes(b"")
    faults = check_table(file)
    assert [fault.record for fault in faults] == ["line 3", "line 4", "line 5"]
    report = check_dataset(file)[0]
    assert (report.format, report.sizes, len(report.errors)) == ("a table of images", None, 3)
    assert len(check_dataset(file.parent)[0].errors) == 3
    with pytest.raises(DataError, match="1 more rows"):
        image_table(file)


def test_an_image_that_breaks_later_names_the_line(table):
    splits = image_table(table("path,label,split\n0.png,a,train\n1.png,a,val\n"))
    (splits.train.reader.table.root / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty \(0 bytes\)") as caught:
        splits.train[0]
    assert caught.value.record == "line 2"
