"""Heads of keypoints: crops lie around points, maps give their means, unlabelled points teach nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from visionkit.backbones import Level
from visionkit.errors import InputError
from visionkit.nn.keypoints.deeppose import DeepPose
from visionkit.nn.keypoints.heatmap import HeatmapHead, soft_argmax
from visionkit.nn.keypoints.losses import heatmap_loss, point_loss
from visionkit.task_config import DeepPoseConfig, HeatmapConfig

LEVELS = (Level(4, 4), Level(6, 8))
SMALL = {"cells": 2, "width": 8, "channels": 8, "stage_width": 8}


def maps(height=32, width=48, count=2):
    draw = torch.Generator().manual_seed(0)
    shapes = [(count, each.channels, height // each.reduction, width // each.reduction) for each in LEVELS]
    return [torch.randn(shape, generator=draw) for shape in shapes]


def deeppose(count=3, **settings):
    torch.manual_seed(0)
    return DeepPose(LEVELS, count, DeepPoseConfig(**SMALL, **settings), nn.BatchNorm2d)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_points_without_a_label_teach_nothing(kind):
    preds = torch.tensor([[[0.1, 0.2], [0.5, 0.5]], [[0.3, 0.3], [0.9, 0.1]]], requires_grad=True)
    target = torch.tensor([[[0.0, 0.4], [math.nan, 7.0]], [[math.inf, 0.0], [0.5, 0.1]]])
    known = torch.tensor([[True, False], [False, True]])
    loss = point_loss(preds, target, known, kind=kind)
    errors = np.array([0.1, 0.2, 0.4, 0.0])
    assert loss.item() == pytest.approx((errors**2 if kind == "l2" else errors).mean())
    loss.backward()
    assert bool((preds.grad[~known] == 0).all())
    assert bool((preds.grad[known] != 0).any())
    none = torch.zeros_like(known)
    assert point_loss(preds, target, none, kind=kind).item() == 0
    logits = torch.randn(2, 2, 5, 6, requires_grad=True)
    lost = heatmap_loss(logits, target, none, sigma=1.0)
    lost.backward()
    assert lost.item() == 0
    assert bool((logits.grad == 0).all())
    with pytest.raises(InputError, match="loss"):
        point_loss(preds, target, known, kind="l3")


def test_the_divergence_of_heat_maps_is_that_of_their_definition():
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 2, 5, 7, generator=draw, dtype=torch.float64)
    target, sigma = np.array([[2.2, 3.1], [6.0, 0.4]]), 1.3
    found = heatmap_loss(logits, torch.from_numpy(target)[None], torch.ones(1, 2) > 0, sigma=sigma)
    expected = 0.0
    for k in range(2):
        heat = np.exp(logits[0, k].numpy())
        heat /= heat.sum()
        goal = np.array([
            [math.exp(-((x + 0.5 - target[k, 0]) ** 2 + (y + 0.5 - target[k, 1]) ** 2) / 2 / sigma**2)
             for x in range(7)] for y in range(5)
        ])  # fmt: skip
        goal /= goal.sum()
        expected += (goal * np.log(goal / heat)).sum() / 2
    assert found.item() == pytest.approx(expected, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(7, 13), st.floats(7, 9), st.floats(1, 1.3))
def test_the_mean_place_of_a_normal_map_is_its_centre(x, y, sigma):
    across, down = torch.arange(20) + 0.5, torch.arange(16) + 0.5
    logits = -((across - x) ** 2 + (down[:, None] - y) ** 2) / (2 * sigma**2)
    points, scores = soft_argmax(logits[None, None], sigma=sigma)
    # Borders are five deviations away, and the error of sums for integrals is of order exp(-2 pi^2).
    assert points[0, 0].tolist() == pytest.approx([x, y], abs=1e-3)
    assert 0.7 < scores.item() <= 1
    flat, low = soft_argmax(torch.zeros(1, 1, 16, 20), sigma=sigma)
    assert flat[0, 0].tolist() == pytest.approx([10, 8], abs=1e-4)
    assert low.item() < scores.item()


class Where(nn.Module):
    """In place of the fine map: the middle of each of its cells in pixels."""

    def forward(self, maps):
        height, width = maps[0].shape[-2:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        both = (torch.stack((columns, rows)) + 0.5) * 4 + 0 * maps[0].sum()  # with its gradient, if any
        return both.expand(len(maps[0]), 2, height, width)


class Centre(nn.Module):
    """In place of a stage: what the middle bin of each crop shows."""

    def forward(self, crops):
        self.seen = crops[:, :, 3, 3].unflatten(0, (-1, 3))
        return torch.zeros_like(self.seen)


def test_crops_lie_around_their_points():
    head = deeppose(stages=1, crop=0.3)
    head.fine, head.stages = Where(), nn.ModuleList([Centre()])
    given_maps, size = maps(64, 96), (64, 96)
    inside = torch.tensor([[0.3, 0.5], [0.5, 0.4], [0.7, 0.6]])
    head._first = lambda _: inside.expand(2, 3, 2)
    points, scores = head.eval()(given_maps, size)
    assert scores is None
    assert torch.equal(points, inside.expand(2, 3, 2))
    pixels = inside * torch.tensor([96.0, 64.0])
    assert torch.allclose(head.stages[0].seen, pixels.expand(2, 3, 2), atol=1e-4)
    # In training, by the sums that have a gradient, it is the same.
    stacked = [each.requires_grad_() for each in given_maps]
    head._centers = lambda points, *_: points
    head.train().losses(stacked, size, inside.expand(2, 3, 2), torch.ones(2, 3) > 0)
    assert torch.allclose(head.stages[0].seen, pixels.expand(2, 3, 2), atol=1e-4)


def test_a_stage_moves_points_by_sides_of_its_crop():
    head = deeppose(stages=1, crop=0.25).eval()
    with torch.no_grad():
        head.stages[0].weight.zero_()
        head.stages[0].bias.copy_(torch.tensor([[0.5, -0.5]] * 3))
    size, given_maps = (32, 48), maps()
    moved, _ = head(given_maps, size)
    whole = head._first(given_maps)
    # 0.5 of a side of 0.25 * 48 pixels, which is 6 of 48 and of 32
    assert torch.allclose(moved - whole, torch.tensor([6 / 48, -6 / 32]).expand(2, 3, 2), atol=1e-6)


def test_a_point_outside_its_crop_teaches_that_stage_nothing():
    head = deeppose(stages=1, crop=0.2)
    head._centers = lambda points, *_: points
    size, given_maps = (32, 48), maps()
    whole = head._first(given_maps).detach()
    near, far = whole + 0.05, whole + 0.5
    known = torch.ones(2, 3) > 0
    assert head.losses(given_maps, size, near, known)["stage 1"] > 0
    terms = head.losses(given_maps, size, far, known)
    assert terms["stage 1"].item() == 0
    assert terms["points"].item() == pytest.approx(0.5, abs=1e-5)
    assert list(deeppose(stages=0).losses(given_maps, size, near, known)) == ["points"]
    assert deeppose(stages=0).fine is None


def test_crops_in_training_lie_around_predictions_or_displaced_truth():
    head = deeppose(count=400, stages=1)
    points, target = torch.zeros(1, 400, 2), torch.ones(1, 400, 2)
    known = torch.ones(1, 400) > 0
    known[:, :100] = False
    unit = torch.tensor([0.2, 0.3])
    torch.manual_seed(0)
    centers = head._centers(points, target, known, unit)
    predicted = (centers == 0).all(-1)[0]
    assert bool(predicted[:100].all())
    assert 100 < int(predicted[100:].sum()) < 200  # half of 300, within six deviations
    others = centers[0, 100:][~predicted[100:]]
    assert bool(((others - 1).abs() <= unit / 2 + 1e-6).all())
    assert float((others - 1).abs().max()) > 0.1


def test_heat_maps_have_the_nearest_fineness_that_doublings_give():
    for asked, nearest in ((3, 4), (5, 4), (7, 8), (64, 8), (1, 1)):
        head = HeatmapHead(LEVELS[1], 1, HeatmapConfig(channels=2, reduction=asked), nn.BatchNorm2d)
        assert head.reduction == nearest, asked


@pytest.mark.parametrize("reduction", [4, 8, 2])
def test_heat_maps_have_the_fineness_that_was_asked_for(reduction):
    config = HeatmapConfig(channels=8, reduction=reduction)
    head = HeatmapHead(LEVELS[1], 3, config, nn.BatchNorm2d).eval()
    assert head.reduction == reduction
    points, scores = head(maps(), (32, 48))
    assert points.shape == (2, 3, 2)
    assert scores.shape == (2, 3)
    assert bool(((points > 0) & (points < 1)).all())
    # The last weights are nearly zero: flat maps, whose mean is the middle, also of one that overhangs.
    with torch.no_grad():
        head.last.weight.zero_()
    overhang, _ = head(maps(32, 48), (30, 44))
    middle = torch.tensor([24 / 44, 16 / 30])
    assert torch.allclose(overhang, middle.expand(2, 3, 2), atol=1e-5)
    assert head(maps(), (32, 48))[0].mean().item() == pytest.approx(0.5, abs=1e-5)


def test_coordinates_keep_their_digits_under_autocast():
    head = deeppose(stages=1).eval()
    given_maps = maps()
    with torch.inference_mode():
        plain, _ = head(given_maps, (32, 48))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed, _ = head(given_maps, (32, 48))
    assert mixed.dtype == torch.float32
    # In sixteen bits a coordinate near 1/2 would be a multiple of 2**-9: here it is not.
    assert bool((mixed * 2**9 != (mixed * 2**9).round()).any())
    # What is added to the middle of the image has eight bits, and is rounded a few times on its way.
    assert float((plain - mixed).abs().max()) < 2**-6 * float((plain - 0.5).abs().max())
