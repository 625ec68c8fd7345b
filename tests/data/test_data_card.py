"""The data card: counts of real and made data sets, sizes, and files that are in two splits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from visionkit import cli
from visionkit.compare.data_tables import card_lines, data_tables, read_card, tables_text
from visionkit.data import OpenOptions, SceneSizes, data_card, open_dataset, subset
from visionkit.data.formats.voc import reader as voc_reader
from visionkit.run.training.reader_files import write_data_file


def photos(root: Path) -> Path:
    """Two classes in three splits; one training image is in the test split too, under another name."""
    for split, per_class in (("train", 6), ("val", 2), ("test", 2)):
        for name, count in (("cat", per_class), ("dog", per_class // 2)):
            (root / split / name).mkdir(parents=True)
            for idx in range(count):
                pixels = np.random.default_rng([len(split), idx, len(name), ord(name[0])]).integers(
                    0, 255, (20, 30 + idx, 3)
                )
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{idx}.png")
    shutil.copy(root / "train" / "cat" / "3.png", root / "test" / "dog" / "copy.png")
    return root


def test_a_folder_of_photos(tmp_path, capsys) -> None:
    root = photos(tmp_path / "photos")
    card = data_card(open_dataset(root, "classification"))
    assert json.loads(json.dumps(card)) == card
    assert card["splits"]["train"]["classes"]["counts"] == {"cat": 6, "dog": 3}
    assert card["splits"]["train"]["sizes"]["width"] == [30, 30, 31, 32, 33, 34.6, 35]
    assert card["splits"]["test"]["images"] == 4
    (pair,) = card["duplicates"]["pairs"]
    assert (pair["splits"], pair["images"], pair["of"]) == (["train", "test"], 1, 4)
    assert pair["examples"] == [["cat/3.png", "dog/copy.png"]]
    assert card["duplicates"]["looked"] == "all 16 files"
    few = data_card(open_dataset(root, "classification"), max_samples=2, max_digests=1)
    assert few["splits"]["train"]["sizes"]["read"] == 2
    assert few["duplicates"]["looked"].startswith("1 of the ")
    assert "Measured on 2 of 9 training images" in tables_text(few)
    assert cli.main(["check", str(root), "--stats"]) == 0
    out = capsys.readouterr().out
    assert "6 (66.7%)" in out
    assert "1 of 4 test images are also training images, byte for byte: dog/copy.png is cat/3.png." in out


def test_a_run_copies_the_card_of_the_run_beside_it(tmp_path, monkeypatch) -> None:
    splits = open_dataset(photos(tmp_path / "photos"), "classification")
    runs = [tmp_path / "runs" / name for name in ("a", "b", "c")]
    for run in runs:
        run.mkdir(parents=True)
    assert write_data_file(runs[0], splits) == ""
    monkeypatch.setattr("visionkit.run.training.reader_files.data_card", None)
    assert write_data_file(runs[1], splits) == ""
    assert read_card(runs[1]) == read_card(runs[0]) != {}
    (tmp_path / "photos" / "train" / "cat" / "0.png").unlink()
    other = open_dataset(tmp_path / "photos", "classification")
    assert write_data_file(runs[2], other).startswith("The data card failed: TypeError")
    for damaged in ("{", "[]", '{"splits": {"train": {}}}'):
        (runs[0] / "data.json").write_text(damaged)
        assert read_card(runs[0]) == {}


def test_real_boxes_are_counted_without_opening_the_images(shared_data, monkeypatch) -> None:
    splits = open_dataset(shared_data / "bccd", "detection")
    opened = []
    read = voc_reader.read_image
    monkeypatch.setattr(
        voc_reader, "read_image", lambda *args, **kw: opened.append(args) or read(*args, **kw)
    )
    card = data_card(splits)
    assert len(opened) == 3  # one of each split, to see what a sample has
    counts = [part["classes"]["counts"] for part in card["splits"].values()]
    total = {name: sum(each[name] for each in counts) for name in splits.classes}
    assert total == {"RBC": 4153, "WBC": 372, "Platelets": 361}  # 4,155 less the two boxes without an area
    boxes = card["splits"]["train"]["boxes"]
    assert boxes["small"] + boxes["medium"] + boxes["large"] == boxes["objects"] == sum(counts[0].values())
    assert card_lines(card) == ["No file is in two splits, byte for byte (all 364 files)."]
    half = data_card(replace(splits, train=subset(splits.train, 0.5, seed=0)))["splits"]["train"]
    assert half["boxes"]["read"] == half["images"] == 102


def test_scenes_of_every_kind() -> None:
    sizes = OpenOptions(scenes=SceneSizes(32, 6, 4))
    titles = {
        task: [table.title for table in data_tables(data_card(open_dataset("scenes", task, sizes)))]
        for task in ("classification", "detection", "segmentation", "captioning")
    }
    assert titles["classification"] == ["Images", "Images of each class"]
    assert titles["detection"] == titles["captioning"] == ["Images", "Objects of each class"]
    assert titles["segmentation"] == ["Images", "Pixels of each class"]
    card = data_card(open_dataset("scenes", "captioning", sizes))
    assert card["splits"]["train"]["captions"]["sentences"] >= 6
    assert card_lines(card) == ["Duplicates between splits were not looked for (the images are not files)."]
