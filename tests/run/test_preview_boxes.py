"""Detection previews: what is right, how bad an image is, and what the report draws of it."""

from __future__ import annotations

import json

import pytest
import torch

from visionkit.compare.report.figures.precision_recall import detection_figures
from visionkit.compare.report.plot_style import to_png
from visionkit.compare.report.predictions import read_curves
from visionkit.run.previews.detection import BoxPreview


def _preds():
    """The first object twice, not the second, and one that is not there."""
    boxes = torch.tensor([[0.0, 0, 40, 40], [2.0, 0, 42, 40], [150, 100, 190, 140], [0, 0, 9, 9]])
    found = {
        "boxes": boxes, "scores": torch.tensor([0.9, 0.8, 0.7, 0.2]), "labels": torch.tensor([0, 0, 1, 1])
    }  # fmt: skip
    return [found, {key: value[:0] for key, value in found.items()}]


def _batch():
    # The images are half as large as the originals, whose frame detections are in.
    images = [torch.full((3, 80, 100), 90, dtype=torch.uint8)] * 2
    boxes = torch.tensor([[0.0, 0, 20, 20], [50, 50, 60, 60], [70, 10, 90, 30]])
    first = {"boxes": boxes, "labels": torch.tensor([0, 1, 1]), "iscrowd": torch.tensor([0, 0, 1])}
    second = {"boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.int64)}
    targets = [{**target, "size": (160, 200)} for target in (first, second)]
    return {"images": images, "targets": targets, "ids": ["a", "b"]}


def test_rows_pair_detections_with_objects_once():
    kind = BoxPreview(["cat", "dog"])
    first, second = kind.rows(None, _batch(), _preds())
    assert first["truth"] == "1 cat, 1 dog"
    assert first["prediction"] == "2 cat, 1 dog"
    assert first["right"] == [True, False, False]
    assert first["loss"] == pytest.approx(1 - 2 / 5)
    assert first["true_boxes"][0] == [0, 0, 40, 40]
    assert first["true_labels"] == ["cat", "dog"]
    assert (second["truth"], second["prediction"], second["loss"]) == ("none", "none", 0.0)
    assert json.loads(json.dumps(first)) == first


def test_points_of_objects_are_drawn_with_their_lines():
    kind, batch = BoxPreview(["cat", "dog"], edges=((0, 1),)), _batch()
    for target in batch["targets"]:
        boxes = target["boxes"]
        corners = torch.cat((boxes.view(-1, 2, 2), torch.full((len(boxes), 2, 1), 2.0)), 2)
        target["keypoints"] = corners
    batch["targets"][0]["keypoints"][1, 0, 2] = 0

    preds = [{**each, "keypoints": each["boxes"].view(-1, 2, 2)} for each in _preds()]
    first, second = kind.rows(None, batch, preds)
    assert first["true_poses"] == [
        [[0, 0], [40, 40]],
        [None, [120, 120]],
    ]  # no crowd, in the original's frame
    assert first["poses"][0] == [[0, 0], [40, 40]]
    assert len(first["poses"]) == len(first["boxes"]) == 3
    assert (second["true_poses"], second["poses"], first["edges"]) == ([], [], [[0, 1]])
    assert json.loads(json.dumps(first)) == first
    images = kind.images(batch, 0, first)
    bare = {name: value for name, value in first.items() if "poses" not in name}
    assert kind.panel(images, first).tobytes() != kind.panel(images, bare).tobytes()
    assert len(kind.training(batch, 2)) == 2


def test_images_show_truth_right_and_wrong_in_their_colours():
    kind = BoxPreview(["cat", "dog"])
    batch = _batch()
    row = kind.rows(None, batch, _preds())[0]
    images = kind.images(batch, 0, row)
    assert max(images["image"].size) == 320
    assert len(images["image"].getcolors(1 << 20)) == 1, "the report draws on the plain image"
    panel = kind.panel(images, row)
    colours = {colour for _, colour in panel.getcolors(1 << 20)}
    assert {(0x1A, 0x7F, 0x37), (0xB3, 0x26, 0x1E), (0xFF, 0xD3, 0x3D)} <= colours
    assert panel.width > 2 * 320  # truth beside detections
    assert len(kind.training(batch, 1)) == 1


def test_the_report_draws_ap_by_class_and_curves_and_leaves_out_what_is_damaged(tmp_path):
    file = tmp_path / "predictions" / "curves.json"
    file.parent.mkdir()
    assert read_curves(tmp_path) == {}
    line = [1 - i / 200 for i in range(101)]
    file.write_text(json.dumps({"curves": {"cat": line, "dog": line}, "ap": {"cat": 0.5, "dog": 0.4}}))
    arms = {"pretrained": read_curves(tmp_path), "scratch": {}}
    charts = detection_figures(arms, data="pets")
    assert [name for name, _ in charts] == ["ap", "precision-recall-0", "precision-recall-1"]
    assert all(len(to_png(figure, tmp_path / f"{name}.png")) > 3000 for name, figure in charts)
    assert detection_figures({"scratch": {}}, data="pets") == []
    for damaged in ("{", "[]", '{"curves": {"cat": [1]}, "ap": {}}', '{"curves": {}, "ap": {"cat": NaN}}'):
        file.write_text(damaged)
        assert read_curves(tmp_path) == {}
