"""PCK, PCKh, PCP, the normalised error and OKS of one pose an object, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.metric_cases import CASES, IMAGES, hexes
from visionkit.errors import InputError
from visionkit.metrics import KeypointAP, KeypointScores

NAMES = ("left_shoulder", "right_hip", "head_top", "neck", "foot")
EDGES = ((0, 1), (2, 3), (1, 4))


def poses(seed, count):
    rng = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 24, (count, 5, 3), generator=rng).double()
    target[..., 2] = torch.randint(0, 3, (count, 5), generator=rng)
    preds = target[..., :2] + torch.randint(-6, 7, (count, 5, 2), generator=rng)
    sides = torch.randint(4, 30, (count, 2), generator=rng).double()
    boxes = torch.cat((torch.zeros(count, 2), sides), 1)
    return preds, target, boxes.double(), (sides.prod(1) * 0.6)


def by_loops(preds, target, boxes, areas, size, threshold):
    right, known, errors, heads, limbs, oks = {}, {}, [], [], [], []
    for pose, truth, box, area in zip(*(v.tolist() for v in (preds, target, boxes, areas)), strict=True):
        away = [math.dist(p, t[:2]) for p, t in zip(pose, truth, strict=True)]
        on = [t[2] > 0 for t in truth]
        side = max(box[2:])
        if size == "torso":
            side = math.dist(truth[0][:2], truth[1][:2]) if on[0] and on[1] else 0
        head = math.dist(truth[2][:2], truth[3][:2]) if on[2] and on[3] else 0
        for k in range(5):
            if on[k] and side > 0:
                known[k] = known.get(k, 0) + 1
                right[k] = right.get(k, 0) + (away[k] / side <= threshold)
                errors.append(away[k] / side)
            if on[k] and head > 0:
                heads.append(away[k] / head <= 0.5)
        for a, b in EDGES:
            length = math.dist(truth[a][:2], truth[b][:2])
            if on[a] and on[b] and length:
                limbs.append(max(away[a], away[b]) / length <= 0.5)
        if any(on):
            terms = [
                math.exp(-(away[k] ** 2) / (2 * 0.1) ** 2 / (area + 2**-52) / 2) for k in range(5) if on[k]
            ]
            oks.append(sum(terms) / len(terms))
    mean = lambda values: sum(values) / len(values) if values else math.nan  # noqa: E731
    total = sum(known.values())
    return {
        "pck": sum(right.values()) / total if total else math.nan, "nme": mean(errors), "oks": mean(oks),
        "pcp": mean(limbs), "pckh": mean(heads), "pck/foot": right[4] / known[4] if 4 in known else math.nan,
    }  # fmt: skip


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 9), size=st.sampled_from(["torso", "box"]))
def test_scores_equal_plain_loops_in_any_order(seed, count, size):
    arguments = poses(seed, count)
    metric = KeypointScores(NAMES, edges=EDGES, threshold=0.25, size=size, sigmas=[0.1] * 5)
    metric.update(*arguments)
    scores = metric.compute_floats()
    for name, value in by_loops(*arguments, size, 0.25).items():
        assert scores[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name
    parts = KeypointScores(NAMES, edges=EDGES, threshold=0.25, size=size, sigmas=[0.1] * 5)
    for index in torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist():
        for _ in range(2):  # an object that comes twice counts once
            parts.update(*(value[index : index + 1] for value in arguments), ids=[f"object {index}"])
    again = parts.compute_floats()
    assert {name: value.hex() for name, value in again.items()} == {n: v.hex() for n, v in scores.items()}


def test_a_perfect_pose_and_objects_without_a_size():
    _, target, boxes, areas = poses(1, 6)
    target[..., 2] = 2
    target[0, 0, 2] = 0
    metric = KeypointScores(NAMES, edges=EDGES)
    assert metric.size == "torso"
    metric.update(target, target, boxes, areas)
    scores = metric.compute_floats()
    assert (scores["pck"], scores["nme"], scores["oks"], scores["pcp"]) == (1, 0, 1, 1)
    assert metric.unsized == 1
    blank = target.clone()
    blank[1:, :, 2] = 0  # nothing of these could be measured, whatever their size
    metric.reset()
    metric.update(target, blank, boxes, areas)
    assert math.isnan(metric.compute_floats()["pck"])
    assert metric.unsized == 1
    metric.reset()
    assert metric.compute_floats() == {}
    assert metric.unsized == 0
    assert KeypointScores(("a", "b")).size == "box"
    assert "pckh" not in KeypointScores(("a", "b")).names


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="all different"):
        KeypointScores(("a", "a"))
    with pytest.raises(InputError, match="Unknown keypoint 'left_shoulder'"):
        KeypointScores(("a", "b"), size="torso")
    with pytest.raises(InputError, match="threshold"):
        KeypointScores(("a",), threshold=0)
    for edge in ((0, 2), (-1, 0)):
        with pytest.raises(InputError, match=r"an edge to be two points of 0 \.\. 1"):
            KeypointScores(("a", "b"), edges=[edge])
    with pytest.raises(InputError, match="target"):
        KeypointScores(("a", "b")).update(torch.zeros(1, 2, 2), torch.zeros(1, 3, 3), torch.zeros(1, 4))
    detected = {"keypoints": torch.zeros(1, 2, 2), "scores": torch.zeros(1), "labels": torch.zeros(1)}
    truth = {"keypoints": torch.zeros(1, 2, 3), "boxes": torch.zeros(1, 4), "labels": torch.zeros(1)}
    with pytest.raises(InputError, match="3 keypoints an object"):
        KeypointAP(3).update([detected], [truth])
    with pytest.raises(InputError, match=r"labels of the prediction in 0\.\.0, but got 1\.\.1"):
        KeypointAP(2).update([{**detected, "labels": torch.ones(1)}], [truth])
    with pytest.raises(InputError, match="as many predictions"):
        KeypointAP(2).update([detected], [])
    with pytest.raises(InputError, match="num_keypoints"):
        KeypointAP(0)


@pytest.mark.parametrize("name", ["poses", "keypoints"])
def test_an_image_that_comes_twice_counts_once(name):
    case = next(each for each in CASES if each.name == name)
    once, twice = case.build(), case.build()
    once.update(*case.batch(*range(IMAGES)))
    for metric in (twice, twice):
        metric.update(*case.batch(*range(IMAGES)))
    assert hexes(twice.compute()) == hexes(once.compute())


def test_ids_and_areas_of_another_number_are_refused():
    scores = KeypointScores(("nose", "tail"), size="box")
    points, boxes = torch.zeros(3, 2, 3), torch.tensor([[0.0, 0, 9, 9]]).repeat(3, 1)
    for wrong in ({"ids": ["a"]}, {"areas": torch.ones(3, 1)}):
        with pytest.raises(InputError, match=rf"Expected {next(iter(wrong))} "):
            scores.update(points[..., :2], points, boxes, **wrong)
