"""Hugging Face image folders: the metadata rows that classes and captions are read from."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from visionkit.data.formats.huggingface.classes import (
    check_huggingface_classes,
    huggingface_classes,
    is_huggingface_classes,
)
from visionkit.data.formats.huggingface.reader import metadata_columns, metadata_files, read_metadata
from visionkit.errors import DataError, InputError


def _image(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(file)


def _lines(file, rows):
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8-sig")


def test_metadata_in_the_folder_names_splits_by_the_path(tmp_path):
    for name in ("data/train/a.png", "data/validation/b.png"):
        _image(tmp_path / name)
    rows = [
        {"file_name": "data/train/a.png", "text": "one\u2028line", "label": 3},
        {"file_name": "data\\validation\\b.png", "text": "two", "label": None},
    ]
    _lines(tmp_path / "metadata.jsonl", rows)
    found = read_metadata(tmp_path)
    assert metadata_columns(tmp_path) == ("file_name", "text", "label")
    assert [(row.image, row.split, dict(row.values)) for row in found.rows] == [
        ("data/train/a.png", "train", {"text": "one\u2028line", "label": 3}),
        ("data/validation/b.png", "val", {"text": "two", "label": None}),
    ]
    assert (found.columns, found.errors) == (("text", "label"), ())


def test_metadata_in_each_split_and_as_csv(tmp_path):
    for split in ("train", "test"):
        _image(tmp_path / split / "x 1.png")
        text = 'image_file_name;text\nx 1.png;"a dog; and\n a cat"\n'
        (tmp_path / split / "metadata.csv").write_text(text, encoding="utf-8-sig")
    found = read_metadata(tmp_path)
    assert [(row.image, row.split, row.values["text"]) for row in found.rows] == [
        ("test/x 1.png", "test", "a dog; and\n a cat"),
        ("train/x 1.png", "train", "a dog; and\n a cat"),
    ]
    assert len(metadata_files(tmp_path)) == 2


def test_every_row_at_fault_is_named(tmp_path):
    _image(tmp_path / "a.png")
    _image(tmp_path.parent / "outside.png")
    text = ['{"file_name": "a.png"}', "{", "[1]", '{"filename": "a.png"}', '{"file_name": 7}']
    text += ['{"file_name": "none.png"}', '{"file_name": "../outside.png"}', "", '{"file_name": "./a.png"}']
    text += ["[" * 100_000]
    (tmp_path / "metadata.jsonl").write_text("\n".join(text))
    found = read_metadata(tmp_path)
    assert [row.image for row in found.rows] == ["a.png"]
    said = ["JSON object", "a JSON object", "Did you mean it by 'filename'", "the path of an image"]
    said += ["there is none", "inside", "line 1 of", "JSON object"]
    assert len(found.errors) == len(said) == 8
    lines = [2, 3, 4, 5, 6, 7, 9, 10]
    for fault, words, line in zip(found.errors, said, lines, strict=True):
        assert words in str(fault)
        assert fault.record == f"line {line}"


def test_other_folders_are_none(tmp_path):
    assert metadata_columns(tmp_path / "nothing") == ()
    (tmp_path / "metadata.jsonl").write_bytes(b"\xff\xfe{")
    assert metadata_columns(tmp_path) == ()
    with pytest.raises(DataError, match="UTF-8"):
        read_metadata(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"image": 1}\n')
    assert metadata_columns(tmp_path) == ()
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="Parquet is not read"):
        read_metadata(tmp_path)


def _labelled(root, values, column="label", folder="train"):
    for number in range(len(values)):
        _image(root / folder / f"{number}.png")
    rows = [{"file_name": f"{n}.png", column: value, "text": "x"} for n, value in enumerate(values)]
    _lines(root / folder / "metadata.jsonl", rows)
    return root


def test_classes_of_a_hugging_face_folder(tmp_path, monkeypatch):
    root = _labelled(tmp_path / "names", ["b", "a"] * 5)
    _labelled(root, ["a", "b"], folder="validation")
    assert is_huggingface_classes(root)
    splits = huggingface_classes(root)
    assert (splits.classes, len(splits.train), len(splits.val), splits.notices) == (("a", "b"), 10, 2, ())
    assert int(splits.train[0]["label"]) == 1
    assert splits.val[1]["id"] == "validation/1.png"
    assert check_huggingface_classes(root) == []
    monkeypatch.chdir(tmp_path)
    assert len(huggingface_classes("names").train) == 10
    numbers = huggingface_classes(_labelled(tmp_path / "numbers", [10, 9, 2] * 3))
    assert numbers.classes == ("2", "9", "10")
    several = _labelled(tmp_path / "several", [["a", "b"], [], ["b"], ["a"], ["c"]])
    splits = huggingface_classes(several, kind="multi")
    assert splits.classes == ("a", "b", "c")
    samples = [part[index] for part in (splits.train, splits.val) for index in range(len(part))]
    labels = {sample["id"]: sample["label"].tolist() for sample in samples}
    assert (len(labels), labels["train/0.png"], labels["train/1.png"]) == (5, [1, 1, 0], [0, 0, 0])
    assert check_huggingface_classes(several) == []
    ages = huggingface_classes(
        _labelled(tmp_path / "ages", [1.5] * 9, "age"), kind="regression", target="age"
    )
    assert float(ages.train[0]["label"][0]) == 1.5


def test_faults_of_a_hugging_face_folder(tmp_path):
    root = _labelled(tmp_path / "some", ["a", None, {"x": 1}, "b", "a"])
    faults = check_huggingface_classes(root)
    assert [fault.record for fault in faults] == ["line 3", "line 2"]
    with pytest.raises(DataError, match="a class, a number or a list"):
        huggingface_classes(root)
    root = _labelled(tmp_path / "rest", ["a"] * 4)
    _image(root / "train" / "more.png")
    with pytest.raises(DataError, match=r"without metadata left out: 1 of 4(.|\n)*more\.png"):
        huggingface_classes(root)
    assert "more.png" in str(check_huggingface_classes(root)[0])
    with pytest.raises(DataError, match="use kind='multi'"):
        huggingface_classes(_labelled(tmp_path / "lists", [["a"], ["b"]]))
    captions = _labelled(tmp_path / "captions", ["a"], "text2")
    assert not is_huggingface_classes(captions)
    with pytest.raises(DataError, match=r"one column of classes(.|\n)*--table\.target"):
        huggingface_classes(captions)
    with pytest.raises(InputError, match="Did you mean 'text'"):
        huggingface_classes(captions, target="txt")
