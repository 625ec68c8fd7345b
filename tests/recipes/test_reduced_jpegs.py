"""`--reduced_jpegs` from the flag to the report, the checkpoint and its evaluation."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.run.make_runs import make_run
from visionkit import cli
from visionkit.compare import compare
from visionkit.compare.report.held_equal import equal_sentences
from visionkit.data import KeyedDataset, image_folder
from visionkit.errors import InputError
from visionkit.predict import load
from visionkit.run.command_line import parse


@pytest.fixture
def recipe(root):
    """Return a function that imports a recipe."""
    sys.path.insert(0, str(root / "recipes"))
    return importlib.import_module


def photographs(root):
    """Two classes of JPEGs that are six times as large as the network's input."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 6)):
        for index in range(count):
            folder = root / split / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            small = draw.integers(0, 200, (24, 24, 3), dtype=np.uint8) + np.uint8(50 * (index % 2))
            Image.fromarray(small).resize((200, 192)).save(folder / f"{index}.jpg", quality=90)
    return root


def test_a_run_its_checkpoint_and_its_evaluation_read_alike(recipe, tmp_path):
    classify, data, out = recipe("classify"), photographs(tmp_path / "photos"), tmp_path / "out"
    flags = ["--data", str(data), "--image_size", "32", "--batch_size", "4", "--epochs", "1", "--seeds", "0"]
    flags += [
        "--backbone",
        "timm/test_resnet",
        "--init",
        "scratch",
        "--accelerator",
        "cpu",
        "--out",
        str(out),
    ]
    flags += ["--precision", "32-true", "--progress", "false", "--reduced_jpegs", "true"]
    classify.main(parse(classify.Config, flags))
    run = out / "scratch-f1-s0"
    result = json.loads((run / "result.json").read_text())
    assert result["config"]["reduced_jpegs"] is True
    predictor = load(run)
    assert predictor.facts["preprocess"] == {
        "name": "CenterCrop", "size": 32, "fraction": 1.0, "reduced_jpegs": True,
    }  # fmt: skip
    assert cli.main(["evaluate", str(run), "--split", "val", "--out", str(tmp_path / "e")]) == 0
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["equal"], "to the last digit"
    # What is predicted is what the network was validated on.
    val = image_folder(data).val
    sample = KeyedDataset(val, predictor.transform, seed=0)[0]
    (predicted,) = predictor(val.files[0])
    alone = predictor.model.predict([sample["image"]], [sample["size"]], [sample["id"]])
    assert torch.equal(predicted.prediction.probabilities, alone[0].probabilities)
    assert predicted.size == sample["size"] == (192, 200)


def test_every_recipe_of_whole_images_takes_it(recipe):
    for name in ("caption", "classify", "embed"):
        config = parse(recipe(name).Config, ["--reduced_jpegs", "true"])
        assert config.reduced_jpegs
        assert not recipe(name).Config().reduced_jpegs
    caption = recipe("caption")
    for crop in ("0.5", "1"):
        config = parse(caption.Config, ["--reduced_jpegs", "true", "--crop", crop])
        assert caption.train_geometry(config).reduced_jpegs
        assert not caption.train_geometry(parse(caption.Config, ["--crop", crop])).reduced_jpegs


def test_both_arms_have_it_and_the_report_says_so(tmp_path):
    schedule = {"images": 6000, "epochs": 6, "global_batch": 32, "shape": "cosine", "lr": 0.001}
    for init in ("pretrained", "scratch"):
        settings = {"image_size": 96, "reduced_jpegs": True}
        make_run(tmp_path / "same", init, config=settings, changes={"equal": {"schedule": schedule}})
        make_run(tmp_path / "other", init, config={**settings, "reduced_jpegs": init == "scratch"})
    said = dict(equal_sentences(compare([tmp_path / "same"])))["Learning"]
    assert "images of 96 pixels, of large JPEGs decoded reduced" in said
    with pytest.raises(InputError, match="reduced_jpegs"):
        compare([tmp_path / "other"])
