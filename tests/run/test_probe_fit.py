"""The logistic regression against scikit-learn, its invariants, the votes of neighbours, and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from visionkit.errors import DataError, RunError
from visionkit.run.probing import logistic
from visionkit.run.probing.draws import Draw
from visionkit.run.probing.logistic import STRENGTHS, Standardization, fit_logistic, fit_probe
from visionkit.run.probing.outcomes import Arm, Outcome, neighbor_classes
from visionkit.run.probing.summarize import CHOSEN, Summary


def _data(count: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + 3
    logits = features @ rng.normal(size=(dim, classes)) / dim + rng.gumbel(size=(count, classes))
    labels = logits.argmax(1)
    labels[:classes] = np.arange(classes)  # each class occurs
    return features, labels


def _probabilities(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def _peer(strength: float, count: int, classes: int) -> LogisticRegression:
    inverse = (2 if classes == 2 else 1) / (strength * count)
    return LogisticRegression(C=inverse, tol=1e-10, max_iter=20_000)


@pytest.mark.parametrize(("count", "dim", "classes"), [(60, 5, 3), (30, 70, 4), (80, 8, 2)])
@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
def test_a_fit_is_scikit_learns(count: int, dim: int, classes: int, strength: float) -> None:
    features, labels = _data(count, dim, classes)
    features = StandardScaler().fit_transform(features)
    weights, bias = fit_logistic(features, labels, num_classes=classes, strength=strength)
    peer = _peer(strength, count, classes).fit(features, labels)
    mine = _probabilities(features @ weights + bias)
    assert np.abs(mine - peer.predict_proba(features)).max() < 1e-4
    if classes > 2:
        assert np.abs(weights.T - peer.coef_).max() < 1e-3
        assert np.abs(bias - peer.intercept_).max() < 1e-3
    else:
        assert np.abs(weights[:, 1] - weights[:, 0] - peer.coef_[0]).max() < 1e-3


def test_the_strength_is_that_of_the_lowest_loss_of_scikit_learns_folds() -> None:
    features, labels = _data(90, 12, 3, seed=1)
    folds = np.arange(90) % 5
    made = fit_probe(features, labels, folds, num_classes=3)
    scaled = StandardScaler().fit_transform(features)
    losses = {}
    for strength in STRENGTHS[2:9]:  # of one strength for all sizes of folds, as ours
        peer = _peer(strength, 72, 3)
        held_out = cross_val_predict(peer, scaled, labels, cv=PredefinedSplit(folds), method="predict_proba")
        losses[strength] = -np.log(held_out[np.arange(90), labels]).mean()
    assert made.strength == min(losses, key=losses.__getitem__)
    assert made.loss == pytest.approx(losses[made.strength], abs=1e-3)
    assert (made.scored, made.at_end) == (90, False)
    final = _peer(made.strength, 90, 3).fit(scaled, labels)
    assert np.abs(_probabilities(made.logits(features)) - final.predict_proba(scaled)).max() < 1e-3


@settings(max_examples=5)
@given(st.integers(0, 2**16), st.integers(2, 30))
def test_the_order_of_images_and_the_units_of_features_change_nothing(seed: int, dim: int) -> None:
    features, labels = _data(40, dim, 3, seed)
    folds, rng = np.arange(40) % 4, np.random.default_rng(seed)
    strengths = (1.0, 0.1, 0.01)
    plain = fit_probe(features, labels, folds, num_classes=3, strengths=strengths)
    order = rng.permutation(40)
    shuffled = fit_probe(features[order], labels[order], folds[order], num_classes=3, strengths=strengths)
    units, shift = np.exp(rng.normal(size=dim) * 3), rng.normal(size=dim)
    scaled = fit_probe(features * units + shift, labels, folds, num_classes=3, strengths=strengths)
    assert plain.strength == shuffled.strength == scaled.strength
    expected = plain.logits(features)
    assert np.abs(shuffled.logits(features) - expected).max() < 1e-3
    assert np.abs(scaled.logits(features * units + shift) - expected).max() < 1e-3


def test_a_constant_feature_and_a_repeated_one_change_no_answer() -> None:
    features, labels = _data(50, 4, 3)
    folds = np.arange(50) % 5
    one = fit_probe(features, labels, folds, num_classes=3, strengths=(0.1,))
    constant = np.column_stack([features, np.full(50, 0.1)])
    more = fit_probe(constant, labels, folds, num_classes=3, strengths=(0.1,))
    assert np.abs(more.logits(constant) - one.logits(features)).max() < 1e-4
    assert Standardization.of(constant).factor[-1] == 0
    assert np.abs(more.weights[-1]).max() == 0


def test_an_image_whose_class_is_in_no_other_fold_is_not_scored() -> None:
    features, labels = _data(30, 4, 3)
    folds = np.arange(30) % 3
    folds[labels == 2] = 0  # one group
    made = fit_probe(features, labels, folds, num_classes=3, strengths=(1.0, 0.1))
    assert made.scored == (labels != 2).sum() < 30
    assert set(made.logits(features).argmax(1)) <= {0, 1, 2}
    with pytest.raises(DataError, match="in another group"):
        fit_probe(features, labels, labels, num_classes=3)
    assert fit_probe(features, labels, folds, num_classes=3, strengths=(100.0,)).at_end


def test_features_that_are_not_finite_and_fits_that_fail_are_refused(monkeypatch) -> None:
    features, labels = _data(30, 4, 3)
    broken = features.copy()
    broken[3, 1] = math.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        fit_probe(broken, labels, np.arange(30) % 5, num_classes=3)
    with pytest.raises(RunError, match="above 0"):
        fit_logistic(features, labels, num_classes=3, strength=0.0)
    monkeypatch.setattr(logistic, "_STEPS", 1)
    with pytest.raises(RunError, match=r"30 images and 4 features at strength 0.001 did not converge in 1"):
        fit_logistic(features, labels, num_classes=3, strength=1e-3)


@pytest.mark.parametrize("k", [1, 5, 60])
def test_neighbors_vote_as_scikit_learns_where_no_vote_is_tied(k: int) -> None:
    features, labels = _data(50, 6, 3)
    queries = np.random.default_rng(5).normal(size=(40, 6)).astype(np.float32)
    gallery = features.astype(np.float32)
    made = neighbor_classes(gallery, labels, queries, k=k)
    peer = KNeighborsClassifier(min(k, 50), metric="cosine", algorithm="brute").fit(gallery, labels)
    near = labels[peer.kneighbors(queries, return_distance=False)]
    votes = np.stack([(near == each).sum(1) for each in range(3)], 1)
    clear = (votes == votes.max(1, keepdims=True)).sum(1) == 1
    assert clear.sum() >= 25
    assert (made == peer.predict(queries))[clear].all()
    # a tied vote is that of the nearest of the tied classes
    for row in np.flatnonzero(~clear):
        tied = np.flatnonzero(votes[row] == votes[row].max())
        assert made[row] == next(each for each in near[row] if each in tied)


def _outcome(level: str, init: str, seed: int, correct: np.ndarray, loss: float = 1.0) -> Outcome:
    rows = np.arange(4)
    draw = Draw(0.5, seed, rows, rows, rows)
    return Outcome(Arm("net", init, level), 3, draw, correct, ~correct, 0.1, loss, False)


def test_scores_and_differences_are_those_of_the_t_test_and_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    answers = {
        (level, init, seed): rng.random(400) < rate + 0.02 * seed
        for level, rate in (("8", 0.7), ("pooled", 0.5))
        for init, rate in (("pretrained", rate), ("scratch", rate - 0.2))
        for seed in range(3)
    }
    losses = {("8", 0): 0.5, ("8", 1): 0.5, ("8", 2): 1.5}
    outcomes = [_outcome(*key, value, losses.get((key[0], key[2]), 1.0)) for key, value in answers.items()]
    summary = Summary(outcomes)
    cells = {(cell.level, cell.init): cell for cell in summary.cells()}
    assert len(cells) == 4
    score = cells["8", "pretrained"].linear
    values = [answers["8", "pretrained", seed].mean() for seed in range(3)]
    assert score.values == tuple(values)
    assert score.seed_interval == pytest.approx(tuple(ttest_1samp(values, 0).confidence_interval()))
    assert score.image_interval is not None
    half = 1.96 * math.sqrt(values[0] * (1 - values[0]) / 400)
    assert score.image_interval == pytest.approx((values[0] - half, values[0] + half), abs=0.01)
    assert cells["8", "pretrained"].neighbors.mean == pytest.approx(1 - score.mean)
    gaps = {(gap.first, gap.second): gap for gap in summary.differences()}
    assert len(gaps) == 4  # each level against random, and two against pooled
    found = gaps[("pretrained", "8"), ("pretrained", "pooled")]
    pooled = cells["pooled", "pretrained"].linear
    assert found.mean == pytest.approx(np.mean(np.subtract(score.values, pooled.values)))
    assert found.shown
    assert found.low < found.mean < found.high
    choice = next(each for each in summary.choices() if each.init == "pretrained")
    assert choice.levels == ("8", "8", "pooled")
    assert choice.minus_pooled is not None
    assert choice.minus_pooled.first == ("pretrained", CHOSEN)
    # seed 2 chose the pooled vector: no difference there
    assert choice.minus_pooled.mean < found.mean


def test_groups_are_drawn_as_a_whole() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(20), 10)
    correct = np.repeat(rng.random(20) < 0.6, 10)  # near copies: right together
    outcomes = [_outcome("8", "pretrained", 0, correct)]
    alone, grouped = Summary(outcomes), Summary(outcomes, [str(each) for each in groups])
    assert (alone.units, grouped.units) == (200, 20)
    wide, narrow = (
        (score.image_interval[1] - score.image_interval[0])
        for score in (grouped.cells()[0].linear, alone.cells()[0].linear)
        if score.image_interval is not None
    )
    assert wide > 2.5 * narrow
    assert alone.cells()[0].linear.seed_interval is None  # one seed
    assert Summary([_outcome("8", "x", 0, correct[:1])]).cells()[0].linear.image_interval is None
