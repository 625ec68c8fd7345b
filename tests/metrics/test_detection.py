"""COCO AP: simple truths by hand, ids, refusals, processes, and equality with two backends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.metrics.detections import NAMES, random_evaluation, reference_scores, shuffled, to_coco
from visionkit.errors import InputError
from visionkit.metrics.detection import CocoAP


def _found(boxes, labels, scores):
    return {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}


def _target(boxes, labels, **more):
    return {
        "boxes": torch.tensor(boxes).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        **more,
    }


BOX = [10.0, 10.0, 60.0, 60.0]
SHORT = [10.0, 10.0, 60.0, 51.0]  # IoU 0.82 with BOX


def test_a_perfect_and_a_loose_box():
    metric = CocoAP(["cat", "dog", "cow"])
    metric.update([_found([BOX, SHORT], [0, 1], [0.9, 0.8])], [_target([BOX, BOX], [0, 1])], ["one"])
    scores = metric.result()
    assert scores.per_class == pytest.approx({"cat": 1.0, "dog": 0.7, "cow": -1.0})
    assert scores.values["map"] == pytest.approx(0.85)
    assert [scores.values["map50"], scores.values["map75"]] == pytest.approx([1.0, 1.0])
    assert scores.values["map_medium"] == pytest.approx(0.85)
    assert scores.values["map_small"] == scores.values["map_large"] == -1.0
    assert scores.curves["cat"] == [pytest.approx(1.0)] * 101


def test_the_annotated_area_decides_the_size():
    metric = CocoAP(["cat"])
    metric.update([_found([BOX], [0], [0.9])], [_target([BOX], [0], area=torch.tensor([900.0]))], ["one"])
    values = metric.result().values
    assert values["map_small"] == pytest.approx(1.0)
    assert values["map_medium"] == -1.0


def test_a_repeated_image_counts_once_and_order_does_not_matter():
    evaluation = random_evaluation(9, images=10)
    scores = []
    for seed in range(4):
        metric = CocoAP("abcd")
        metric.update(*shuffled(evaluation, seed))
        if seed:
            metric.update(*[part[2 : 2 + seed] for part in evaluation])
        scores.append(metric.result())
    assert len(scores) == 4
    assert all(score == scores[0] for score in scores)
    assert 0.05 < scores[0].values["map"] < 0.95


def test_nothing_detected_and_nothing_there():
    metric = CocoAP(["cat"])
    assert set(metric.result().values.values()) == {-1.0}
    none = _found([], [], [])
    none["labels"] = none["labels"].long()
    metric.update([none], [_target([BOX], [0])], ["one"])
    assert metric.result().values["map"] == 0.0
    metric.reset()
    metric.update([_found([BOX], [0], [0.5])], [_target([], [])], ["one"])
    assert metric.result().values["map"] == -1.0


def test_refusals_name_the_image():
    with pytest.raises(InputError, match="at least one class name"):
        CocoAP([])
    metric = CocoAP(["cat", "dog"])
    with pytest.raises(InputError, match=r"Image 'p7': expected labels of the target in 0\.\.1, but got 2"):
        metric.update([_found([BOX], [0], [0.5])], [_target([BOX], [2])], ["p7"])
    with pytest.raises(InputError, match=r"but got 1, 1 and 0"):
        metric.update([_found([BOX], [0], [0.5])], [_target([BOX], [1])], [])


def test_mask_scores_of_a_class_do_not_hide_another_class():
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[0, 10:60, 10:60] = 1
    metric = CocoAP(["cat", "mask_cat"], masks=True)
    found = _found([BOX], [0], [0.9]) | {"masks": mask}
    target = _target([BOX, SHORT], [0, 1], masks=torch.cat((mask, mask)))
    metric.update([found], [target], ["one"])
    scores = metric.result()
    assert scores.per_class == pytest.approx({"cat": 1.0, "mask_cat": 0.0})
    assert scores.mask_per_class == pytest.approx({"cat": 1.0, "mask_cat": 0.0})
    with pytest.raises(InputError, match=r"all different, but got 'a'.* once"):
        CocoAP(["a", "b", "a"])


def test_more_objects_than_a_hundred_need_a_higher_limit():
    boxes = [[4.0 * x, 4.0 * y, 4.0 * x + 3, 4.0 * y + 3] for x in range(25) for y in range(10)]
    scores = np.linspace(0.9, 0.1, 250).tolist()
    values = []
    for limits in ((1, 10, 100), (1, 10, 300)):
        metric = CocoAP(["cell"], max_dets=limits)
        metric.update([_found(boxes, [0] * 250, scores)], [_target(boxes, [0] * 250)], ["one"])
        values.append(metric.result())
    assert [score.over_limit for score in values] == [1, 0]
    assert values[0].values["ar100"] == pytest.approx(0.4)
    assert values[0].values["map"] == pytest.approx(41 / 101)
    assert (values[1].values["ar300"], values[1].values["map"]) == pytest.approx((1.0, 1.0))
    for wrong in ((), (0, 10), (10, 10), (100, 10)):
        with pytest.raises(InputError, match="rising limits"):
            CocoAP(["cell"], max_dets=wrong)


@pytest.mark.dist
def test_processes_agree_to_the_last_bit(zygote, tmp_path: Path):
    zygote.ranks("tests.metrics.detection_worker:main", 3, str(tmp_path))
    scores = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert len(scores) == 6  # one process, two, three
    assert all(score == scores[0] for score in scores)
    evaluation = random_evaluation(5, images=8, masks=True)
    truth, results = to_coco(*evaluation, categories=[1, 2, 3, 4], masks=True)
    want, _ = reference_scores(truth, results, "segm")
    for name in NAMES:
        assert float.fromhex(scores[0][f"mask_{name}"]) == pytest.approx(want[name], abs=1e-9)


def large(images: int = 1000, detections: int = 100, objects: int = 7, classes: int = 80):
    generator = np.random.default_rng(0)
    predictions, targets = [], []
    for _ in range(images):
        boxes = _random_boxes(generator, objects)
        labels = generator.integers(classes, size=objects)
        near = np.resize(boxes, (30, 4)) + generator.normal(0, 6, (30, 4)).astype(np.float32)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        found = np.concatenate((near, _random_boxes(generator, detections - 30)))
        named = np.concatenate((np.resize(labels, 30), generator.integers(classes, size=detections - 30)))
        predictions.append(_found(found, named, generator.random(detections).astype(np.float32)))
        targets.append(_target(boxes, labels, iscrowd=torch.zeros(objects, dtype=torch.int64)))
    return predictions, targets, [str(i) for i in range(1, images + 1)]


def _random_boxes(generator, count: int):
    corner = generator.uniform(0, 400, (count, 2))
    return np.concatenate((corner, corner + generator.uniform(8, 200, (count, 2))), 1).astype(np.float32)


@pytest.mark.slow
def test_a_large_evaluation_equals_pycocotools_and_the_fast_backend():
    from torchmetrics.detection import MeanAveragePrecision

    evaluation = large()
    categories = list(range(80))
    metric = CocoAP([str(c) for c in categories])
    theirs = MeanAveragePrecision(backend="faster_coco_eval")
    for begin in range(0, 1000, 8):
        metric.update(*[part[begin : begin + 8] for part in evaluation])
        theirs.update(evaluation[0][begin : begin + 8], evaluation[1][begin : begin + 8])
    scores, fast = metric.result(), theirs.compute()
    want, _ = reference_scores(*to_coco(*evaluation, categories=categories, side=640))
    assert scores.values["map"] == pytest.approx(want["map"], abs=1e-9)
    assert scores.values["map"] == pytest.approx(float(fast["map"]), abs=1e-4)


def test_odd_limits_and_boxes_without_labels_are_refused() -> None:
    with pytest.raises(InputError, match="max_dets"):
        CocoAP(["a"], max_dets=(1.5, 2))
    one = {"boxes": torch.zeros(1, 4), "scores": torch.zeros(1), "labels": torch.zeros(1).long()}
    for found, truth in ((one, one | {"boxes": torch.zeros(2, 4)}), (one | {"scores": torch.zeros(2)}, one)):
        with pytest.raises(InputError, match="for each of 1 labels"):
            CocoAP(["a"]).update([found], [truth], ["x"])
