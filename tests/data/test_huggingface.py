"""Hugging Face image folders: the metadata rows that classes and captions are read from."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from visionkit.data.formats.huggingface import metadata_columns, metadata_files, read_metadata
from visionkit.errors import DataError


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
    assert (found.columns, found.faults) == (("text", "label"), ())


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
    assert len(found.faults) == len(said) == 8
    lines = [2, 3, 4, 5, 6, 7, 9, 10]
    for fault, words, line in zip(found.faults, said, lines, strict=True):
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
