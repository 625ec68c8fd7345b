"""Faces and whales: run on made-up individuals, and on the photographs where they are."""

from __future__ import annotations

import csv
import importlib
import json
import sys

import numpy as np
import pytest
from PIL import Image

from visionkit.data import OpenOptions, open_dataset
from visionkit.errors import InputError
from visionkit.run.requests import asking
from visionkit.task_config import EmbeddingHead, RetrievalConfig

QUICK = {"accelerator": "cpu", "precision": "32-true", "progress": False, "jobs": 1}


@pytest.fixture(scope="module")
def apps(root):
    sys.path.insert(0, str(root / "recipes" / "apps"))
    return {name: importlib.import_module(name) for name in ("faces", "whales")}


@pytest.fixture
def _quick_baselines(monkeypatch):
    """Without the network off the shelf, whose weights no small backbone has."""
    monkeypatch.setattr("visionkit.retrieval.baselines.BASELINES", ("eigenimages", "pixels"))


def individuals(folder, names, images):
    """Individuals with stripes of their own, and noise."""
    for name in names:
        (folder / name).mkdir(parents=True)
        draw = np.random.default_rng(int(name[1:]))
        stripes = np.kron(draw.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1)))
        for number in range(images):
            pixels = np.clip(stripes + draw.normal(0, 40, stripes.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.usefixtures("_quick_baselines")
def test_faces_are_scored_beside_what_is_not_trained(apps, tmp_path, capsys):
    faces = apps["faces"]
    people = individuals(tmp_path / "people", [f"p{i}" for i in range(10)], 4)
    config = faces.Config(
        data=str(people), image_size=32, batch_size=8, images_per_class=2, epochs=1, folds=[5, 0, 3],
        init="scratch", backbone="timm/test_resnet",
        out=str(tmp_path / "out"), **QUICK,
    )  # fmt: skip
    out = faces.main(config)
    scores = json.loads((out / "scores.json").read_text())
    assert {name: len(runs) for name, runs in scores.items()} == {"eigenimages": 2, "pixels": 2, "scratch": 2}
    for fold, run in zip((0, 3), scores["scratch"], strict=True):
        metrics = json.loads((out / f"scratch-f1-s0-k{fold}" / "result.json").read_text())["metrics"]
        assert run == {name: metrics[f"test/{name}"] for name in run}
    assert all(run["pair_auc"] == 1.0 for run in scores["pixels"]), "the stripes tell them apart"
    assert "| eigenimages | 2 | 1.000 ± 0.000 |" in capsys.readouterr().out
    with pytest.raises(InputError, match="Expected --data"):
        faces.main(faces.Config())


@pytest.mark.usefixtures("_quick_baselines")
def test_whales_are_known_or_new(apps, tmp_path, capsys):
    whales = apps["whales"]
    data = tmp_path / "whales"
    individuals(data / "train", [f"w{i}" for i in range(10)], 5)
    individuals(data / "test", [f"w{i}" for i in range(10, 16)], 3)
    config = whales.Config(
        data=str(data), image_size=32, batch_size=8, images_per_class=2, epochs=1, init="scratch",
        backbone="timm/test_resnet", head=EmbeddingHead(dim=0),
        out=str(tmp_path / "out"), **QUICK,
    )  # fmt: skip
    out = whales.main(config)
    with (out / "known.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["id"] for row in rows}) == 8, "a fifth of ten is new in validation"
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "val", "test")}
    assert counts == {"train": 26, "val": 6, "test": 8}
    assert len({row["image"] for row in rows}) == 40
    assert all((data / "train" / row["image"]).is_file() for row in rows)
    scores = json.loads((out / "scores.json").read_text())
    assert set(scores) == {"eigenimages", "pixels", "scratch"}
    (pixels,) = scores["pixels"]
    assert pixels["known/top1"] == pixels["new/top1"] == pixels["new/map_at_5"] == 1.0
    assert pixels["open/map_at_5"] > 0.9, "stripes of a new whale are far from those of all others"
    mixed = pixels["open_known/top1"] * 8 + pixels["open_new/top1"] * 18
    assert pixels["open/top1"] == pytest.approx(mixed / 26)
    assert "| pixels | 1 | 1.000 |" in capsys.readouterr().out
    for changes, match in (({}, "Expected --data"), ({"data": str(data), "folds": [5]}, "no --folds")):
        with pytest.raises(InputError, match=match):
            whales.main(whales.Config(**changes))
    alone = open_dataset(data / "train", "classification", OpenOptions(unseen_classes=False))
    with pytest.raises(InputError, match="individuals of the test alone"):
        whales.write_known(alone, tmp_path / "known.csv")
    individuals(tmp_path / "few" / "train", [f"w{i}" for i in range(10)], 2)
    individuals(tmp_path / "few" / "test", ["w10", "w11"], 2)
    with pytest.raises(InputError, match=r"5 known individuals and 5 that are new .* but got 8 and 2"):
        whales.main(whales.Config(data=str(tmp_path / "few"), out=str(tmp_path / "none")))


@pytest.mark.parametrize(("rank", "dry_run"), [("0", False), ("1", False), ("0", True)])
def test_the_first_process_scores_what_a_command_trained(apps, rank, dry_run, tmp_path, monkeypatch):
    faces, whales, scored = apps["faces"], apps["whales"], []
    (tmp_path / "comparison.json").write_text("{}")  # of an earlier command
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("visionkit.run.sweep.arms.run_recipe", lambda config, train, paths: tmp_path)
    monkeypatch.setattr(faces.embed, "score_baselines", lambda config, out: scored.append("faces"))
    monkeypatch.setattr("visionkit.retrieval.baselines.compared_runs", lambda out: {})
    monkeypatch.setattr(
        "visionkit.retrieval.baselines.write_scores", lambda out, rows, columns: scored.append("whales")
    )
    individuals(tmp_path / "whales" / "train", [f"w{i}" for i in range(10)], 3)
    individuals(tmp_path / "whales" / "test", [f"w{i}" for i in range(10, 15)], 2)
    with asking(dry_run=dry_run):
        faces.main(faces.Config(data="people", out=str(tmp_path)))
        monkeypatch.setattr(whales.embed, "main", lambda config: tmp_path)
        retrieval = RetrievalConfig(gallery="train")
        data = str(tmp_path / "whales")
        whales.main(whales.Config(data=data, out=str(tmp_path), retrieval=retrieval))
    assert scored == (["faces", "whales"] if rank == "0" and not dry_run else [])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faces", "whales"])
def test_photographs(apps, name, shared_data, tmp_path):
    data = shared_data / {"faces": "orl"}.get(name, name)
    settings = {"image_size": 48, "epochs": 1, "init": "pretrained", "out": str(tmp_path / "out"), **QUICK}
    settings |= {"folds": [5, 0]} if name == "faces" else {}
    out = apps[name].main(apps[name].Config(data=str(data), **settings))
    scores = json.loads((out / "scores.json").read_text())
    chance = {"faces": ("pair_auc", 0.5), "whales": ("known/top1", 0.01)}
    score, lowest = chance[name]
    for baseline in ("off_the_shelf", "pixels"):
        assert scores[baseline][0][score] > 1.5 * lowest
