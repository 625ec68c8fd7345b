"""Every score against scikit-learn, to nine digits, in whatever batches the images came."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from visionkit.metrics import (
    MultiLabelScores,
    RegressionScores,
    RunningSums,
    SingleLabelScores,
    average_precision,
    calibration_error,
)


def batches(size: int) -> list[slice]:
    edges = [0, 1, 8, 40, size]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("classes", [2, 5, 11])
def test_single_label_scores_equal_scikit_learn(classes: int) -> None:
    torch.manual_seed(classes)
    logits, labels = torch.randn(203, classes) * 2, torch.randint(0, classes, (203,))
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    scores = SingleLabelScores(classes)
    for part in batches(203):
        scores.update(logits[part], labels[part], losses[part])
    values = scores.compute_floats()
    probs, guess = logits.softmax(1).double().numpy(), logits.argmax(1).numpy()
    assert values["top1"] == pytest.approx(sk.accuracy_score(labels, guess), abs=1e-9)
    assert values["macro_f1"] == pytest.approx(sk.f1_score(labels, guess, average="macro"), abs=1e-9)
    full = sk.log_loss(labels, probs / probs.sum(1, keepdims=True), labels=range(classes))
    assert values["loss"] == pytest.approx(full, abs=1e-6)
    assert values["loss"] == pytest.approx(losses.double().mean().item(), abs=1e-9)
    if classes > 5:
        top5 = sk.top_k_accuracy_score(labels, probs, k=5)
        assert values["top5"] == pytest.approx(top5, abs=1e-9)
    else:
        assert "top5" not in values
    assert np.array_equal(scores.confusion.numpy(), sk.confusion_matrix(labels, guess))
    assert values["ece"] == pytest.approx(plain_ece(probs, labels.numpy()), abs=1e-9)
    scores.reset()
    assert scores.compute_floats() == {}


def plain_ece(probs: np.ndarray, labels: np.ndarray) -> float:
    confidence, right = probs.max(1), probs.argmax(1) == labels
    gap = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            gap += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return gap


def test_macro_f1_leaves_out_classes_that_never_occur() -> None:
    labels, guess = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    scores = SingleLabelScores(7)
    scores.update(torch.nn.functional.one_hot(guess, 7).float() * 9, labels, torch.zeros(4))
    assert scores.compute_floats()["macro_f1"] == pytest.approx(
        sk.f1_score(labels, guess, average="macro"), abs=1e-9
    )


def test_many_classes_keep_no_matrix() -> None:
    scores = SingleLabelScores(3000)
    scores.update(torch.eye(3000)[:4] * 50, torch.tensor([0, 1, 2, 7]), torch.zeros(4))
    assert scores.compute_floats()["top1"] == 0.75
    assert scores.confusion is None


def test_multi_label_scores_equal_scikit_learn() -> None:
    torch.manual_seed(0)
    logits = (torch.randn(203, 6) * 2).round(decimals=1)  # rounded: many equal scores
    labels = (torch.rand(203, 6) < 0.3).float()
    labels[:, 5] = 0  # a label without positives
    scores = MultiLabelScores(6)
    for part in batches(203):
        scores.update(logits[part], labels[part], torch.ones(len(labels[part])))
    values = scores.compute_floats()
    guess = (logits > 0).numpy().astype(int)
    each = [sk.average_precision_score(labels[:, k], logits[:, k]) for k in range(5)]
    assert scores.average_precision[:5].tolist() == pytest.approx(each, abs=1e-9)
    assert math.isnan(scores.average_precision[5])
    assert values["map"] == pytest.approx(np.mean(each), abs=1e-9)
    assert values["micro_f1"] == pytest.approx(sk.f1_score(labels, guess, average="micro"), abs=1e-9)
    assert values["macro_f1"] == pytest.approx(sk.f1_score(labels, guess, average="macro"), abs=1e-9)
    assert values["loss"] == 1.0
    assert average_precision(torch.zeros(0, 2), torch.zeros(0, 2)).isnan().all()


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_regression_scores_equal_scikit_learn(offset: float) -> None:
    torch.manual_seed(1)
    truth = torch.randn(203, 3) + offset
    guess = truth + torch.randn(203, 3) / 2
    scores = RegressionScores(3)
    for part in batches(203):
        scores.update(guess[part], truth[part], torch.zeros(len(truth[part])))
    values = scores.compute_floats()
    a, b = truth.double().numpy(), guess.double().numpy()
    assert values["mae"] == pytest.approx(sk.mean_absolute_error(a, b), abs=1e-9)
    assert values["rmse"] == pytest.approx(sk.root_mean_squared_error(a, b), abs=1e-9)
    assert values["r2"] == pytest.approx(sk.r2_score(a, b), abs=1e-9)


def test_r2_of_a_constant_target() -> None:
    truth = torch.full((9, 2), 3.25)
    guess = truth.clone()
    guess[:, 1] += 1
    scores = RegressionScores(2)
    scores.update(guess, truth, torch.zeros(9))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert scores.compute_floats()["r2"] == sk.r2_score(truth.numpy(), guess.numpy()) == 0.5


def test_calibration_of_nothing_is_not_a_number() -> None:
    assert math.isnan(calibration_error(torch.zeros(3, 15)))


def test_running_sums_add_tensors_and_numbers_and_names_a_wrong_one() -> None:
    sums = RunningSums({"loss": (), "count": (), "grid": (2, 2)})
    for _ in range(3):
        sums.add(loss=torch.tensor(0.5), count=4, grid=torch.eye(2))
    totals = sums.totals()
    assert totals["grid"].tolist() == [[3, 0], [0, 3]]
    assert sums.reduce() == {"loss": 1.5, "count": 12.0}
    assert not list(sums.buffers()), "a buffer would be overwritten by DDP's broadcast"
    with torch.inference_mode():
        sums.reset()
    sums.add(loss=torch.tensor(2.0))
    assert sums.reduce() == {"loss": 2.0, "count": 0.0}
    with pytest.raises(KeyError, match="loss"):
        sums.add(lost=1.0)
    sums.half()
    assert sums.sums.dtype == torch.float64, "half precision must not touch the counts"
