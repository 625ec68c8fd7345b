"""Class-map scores: equal to scikit-learn's table, exact over processes, honest about absent classes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from visionkit.errors import InputError
from visionkit.metrics.boundary import boundary_counts
from visionkit.metrics.segmentation import SegmentationMetric, confusion_counts, segmentation_scores


def _images(seed: int, classes: int, images: int, ignore: int, *, absent: bool = True):
    rng = np.random.default_rng(seed)
    for _ in range(images):
        shape = tuple(rng.integers(1, 23, size=2))
        present = rng.choice(classes, size=rng.integers(1, classes + 1), replace=False) if absent else classes
        truth = rng.choice(present, size=shape).astype(np.int64)
        prediction = rng.choice(present, size=shape).astype(np.int64)
        truth[rng.random(shape) < 0.2] = ignore
        yield torch.from_numpy(prediction), torch.from_numpy(truth)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 200),
    images=st.integers(1, 4),
    ignore=st.sampled_from([255, 254, -1, -100, 1000]),
)
def test_scores_equal_scikit_learn(seed, classes, images, ignore):
    meter = SegmentationMetric(classes, ignore_index=ignore)
    every_truth, every_prediction = [], []
    for prediction, truth in _images(seed, classes, images, ignore):
        meter.update(prediction, truth)
        counted = truth != ignore
        every_truth.append(truth[counted].numpy())
        every_prediction.append(prediction[counted].numpy())
    truth, prediction = np.concatenate(every_truth), np.concatenate(every_prediction)
    if truth.size == 0:
        assert math.isnan(meter.result().miou)
        return
    table = confusion_matrix(truth, prediction, labels=range(classes))
    assert (meter.confmat.numpy() == table).all()
    scores = meter.result()
    seen = np.union1d(truth, prediction)
    assert abs(scores.miou - jaccard_score(truth, prediction, labels=seen, average="macro")) < 1e-12
    assert abs(scores.pixel_accuracy - accuracy_score(truth, prediction)) < 1e-12
    each = jaccard_score(truth, prediction, labels=range(classes), average=None, zero_division=0)
    for index, value in enumerate(scores.iou):
        assert math.isnan(value) if index not in seen else abs(value - each[index]) < 1e-12


def test_order_and_batching_do_not_matter():
    pairs = list(_images(3, 5, 6, 255))
    forward, backward, batched = (SegmentationMetric(5) for _ in range(3))
    for prediction, truth in pairs:
        forward.update(prediction, truth)
    for prediction, truth in reversed(pairs):
        backward.update(prediction, truth)
    assert forward.result().named() == backward.result().named()
    maps = torch.randint(0, 5, (2, 4, 9, 7), generator=torch.Generator().manual_seed(0))
    batched.update(maps[0], maps[1])
    single = sum(confusion_counts(p, t, num_classes=5) for p, t in zip(maps[0], maps[1]))
    assert (batched.confmat == single).all()


def test_absent_classes_are_left_out_and_false_classes_count_zero():
    truth = torch.tensor([[0, 0, 1, 1]])
    scores = segmentation_scores(confusion_counts(torch.tensor([[0, 0, 1, 2]]), truth, num_classes=4))
    assert scores.iou[:3] == (1.0, 0.5, 0.0)
    assert math.isnan(scores.iou[3])
    assert scores.miou == pytest.approx(0.5, abs=1e-12)
    assert scores.mean_accuracy == pytest.approx(0.75, abs=1e-12)
    named = scores.named(["sky", "road", "car", "tree"])
    assert list(named) == ["miou", "pixel_accuracy", "mean_accuracy", "iou/sky", "iou/road", "iou/car"]


def test_ignored_class_inside_the_range_is_not_counted():
    truth = torch.tensor([[0, 1, 2, 2]])
    counts = confusion_counts(torch.tensor([[0, 1, 0, 1]]), truth, num_classes=3, ignore_index=2)
    assert counts.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("ignore", [255, -1, None])
@pytest.mark.parametrize("value", [4, 77, 300, -7])
def test_a_value_outside_the_classes_is_named(ignore, value):
    truth = torch.zeros(5, 5, dtype=torch.int64)
    truth[2, 2] = value
    with pytest.raises(InputError, match=rf"masks to be classes 0 to 3.*{value}"):
        confusion_counts(torch.zeros_like(truth), truth, num_classes=4, ignore_index=ignore)


def test_wrong_predictions_and_shapes_are_refused():
    truth = torch.zeros(5, 5, dtype=torch.int64)
    with pytest.raises(InputError, match=r"predictions to be classes 0 to 3.*\[4\]"):
        confusion_counts(truth + 4, truth, num_classes=4)
    with pytest.raises(InputError, match=r"shape to be the truth's \(5, 5\), but got \(5, 4\)"):
        confusion_counts(truth[:, :4], truth, num_classes=4)


def test_nothing_counted_is_nan_and_reset_forgets():
    meter = SegmentationMetric(3)
    assert math.isnan(meter.result().miou)
    meter.update(torch.zeros(4, 4, dtype=torch.int64), torch.zeros(4, 4, dtype=torch.int64))
    assert meter.result().miou == 1.0
    meter.reset()
    assert int(meter.confmat.sum()) == 0
    assert not meter.state_dict()


def _brute_boundary(prediction, truth, index, ignore, reach):
    def edge(classes):
        found = set()
        height, width = classes.shape
        for y in range(height):
            for x in range(width):
                if truth[y, x] == ignore or classes[y, x] != index:
                    continue
                for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                    v, u = y + dy, x + dx
                    inside = 0 <= v < height and 0 <= u < width
                    if inside and truth[v, u] != ignore and classes[v, u] != index:
                        found.add((y, x))
        return found

    def near(one, many):
        return sum(any(max(abs(y - v), abs(x - u)) <= reach for v, u in many) for y, x in one)

    ours, theirs = edge(prediction), edge(truth)
    return [len(ours), near(ours, theirs), len(theirs), near(theirs, ours)]


@pytest.mark.parametrize("seed", range(3))
def test_boundary_counts_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 3, (3, 4)), np.ones((5, 4), int))[:13, :15]
    prediction = np.roll(truth, (seed, 1), (0, 1))
    truth = truth.copy()
    truth[rng.random(truth.shape) < 0.1] = 255
    counts = boundary_counts(
        torch.from_numpy(prediction), torch.from_numpy(truth), num_classes=3, ignore_index=255, tolerance=0.1
    )
    reach = round(0.1 * math.hypot(*truth.shape))
    assert counts.tolist() == [_brute_boundary(prediction, truth, c, 255, reach) for c in range(3)]


def test_boundary_f_is_one_for_the_truth_and_falls_with_distance():
    truth = torch.zeros(60, 80, dtype=torch.int64)
    truth[20:40, 20:60] = 1
    scores = []
    for shift in (0, 1, 5):
        meter = SegmentationMetric(2, boundary_tolerance=0.02)
        meter.update(truth.roll(shift, 1), truth)
        scores.append(meter.result().boundary_f)
    assert scores[0] == scores[1] == 1.0
    assert 0.0 < scores[2] < 1.0
    assert math.isnan(SegmentationMetric(2).result().boundary_f)


def test_counts_of_full_size_equal_those_of_torchmetrics():
    from torchmetrics.classification import MulticlassJaccardIndex

    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 21, (2, 512, 512), generator=generator)
    prediction = torch.randint(0, 21, (2, 512, 512), generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.05] = 255
    ours, theirs = SegmentationMetric(21), MulticlassJaccardIndex(21, ignore_index=255)
    for _ in range(2):
        ours.update(prediction, truth)
        theirs.update(prediction, truth)
    assert abs(ours.result().miou - float(theirs.compute())) < 1e-6


@pytest.mark.dist
def test_processes_agree_to_the_last_bit(zygote, tmp_path: Path):
    zygote.ranks("tests.metrics.segmentation_worker:main", 3, str(tmp_path))
    scores = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert len(scores) == 6  # one process, two, three
    assert all(score == scores[0] for score in scores)
    assert {"miou", "boundary_f", "iou/0"} <= set(scores[0])
