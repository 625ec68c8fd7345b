"""Keypoint previews: which points are right, wrong or not scored, and in which colours they are drawn."""

from __future__ import annotations

import json

import pytest
import torch

from visionkit.drawing.skeleton import draw_skeleton
from visionkit.run.previews.keypoints import KeypointPreview
from visionkit.run.previews.to_pil import to_pil
from visionkit.task_config import DeepPoseConfig
from visionkit.tasks import KeypointPrediction, KeypointRegressor

NAMES = ("left_shoulder", "right_hip", "head", "foot")
GREEN, RED, GREY, YELLOW = (0x1A, 0x7F, 0x37), (0xB3, 0x26, 0x1E), (0x8C, 0x95, 0x9F), (0xFF, 0xD3, 0x3D)


@pytest.fixture(scope="module")
def task():
    tiny = DeepPoseConfig(stages=0, cells=1, width=8)
    return KeypointRegressor(
        "timm/test_resnet", init="scratch", skeleton={"names": list(NAMES), "edges": [[0, 1]]}, deeppose=tiny
    )


def _batch():
    """An object with three labelled points, one without a size, and one of which nothing is labelled."""
    points = torch.tensor([[20.0, 20], [20, 60], [60, 20], [60, 60]])
    flags = torch.tensor([[2.0, 1, 2, 0], [0, 2, 2, 2], [0, 0, 0, 0]])
    keypoints = torch.cat((points.expand(3, 4, 2), flags[..., None]), dim=-1)
    images = torch.full((3, 3, 80, 80), 200, dtype=torch.uint8)
    preds = points + torch.tensor([[4.0, 0], [0, 0], [0, 14], [0, 0]])  # 0.1, 0, 0.35 of a torso of 40
    found = [KeypointPrediction(preds, None, NAMES, ((0, 1),), name) for name in "abc"]
    return {"images": images, "keypoints": keypoints, "ids": ["a", "b", "c"]}, found


def test_points_are_right_wrong_or_not_scored(task):
    kind, (batch, preds) = KeypointPreview(task.skeleton), _batch()
    first, second, third = kind.rows(task, batch, preds)
    assert first["right"] == [True, True, False, None]
    assert first["loss"] == pytest.approx((0.1 + 0 + 0.35) / 3)
    assert first["answer"] == "2 of 3 points right, mean error 0.15"
    assert first["true_points"] == [[20, 20], [20, 60], [60, 20], None]
    assert (second["right"], second["loss"]) == ([None] * 4, None)
    assert second["answer"] == "its size is not known"
    assert (third["right"], third["loss"]) == ([None] * 4, None)
    assert third["answer"] == "no point is labelled"
    assert json.loads(json.dumps([first, second, third])) == [first, second, third]
    assert len(kind.training(batch, 2)) == 2


def test_points_are_drawn_in_the_colour_of_what_they_are(task):
    kind, (batch, preds) = KeypointPreview(task.skeleton), _batch()
    seen = []
    for index, row in enumerate(kind.rows(task, batch, preds)):
        panel = kind.panel(kind.images(batch, index, row), row)
        seen.append({color for _, color in panel.getcolors(1 << 20)} & {GREEN, RED, GREY, YELLOW})
    assert seen == [{GREEN, RED, GREY, YELLOW}, {GREY, YELLOW}, {GREY}]


def test_a_skeleton_is_drawn_as_far_as_its_points_are_there():
    blank = to_pil(torch.full((3, 40, 40), 200, dtype=torch.uint8), side=40)
    canvas = blank.copy()
    draw_skeleton(canvas, [None, (float("nan"), 3.0), None], [(0, 1), (1, 2)], ["red"] * 3)
    assert canvas.tobytes() == blank.tobytes()
    draw_skeleton(canvas, [(10.0, 20.0), (1e12, 20.0)], [(0, 1)], ["red", "blue"])
    assert canvas.getpixel((10, 20)) == canvas.getpixel((35, 20)) == (255, 0, 0)
