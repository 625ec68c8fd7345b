"""Losses of vectors and retrieval scores against pytorch-metric-learning."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch.nn import functional

from visionkit.metrics import RetrievalScores
from visionkit.nn.embedding.losses import (
    batch_hard_triplet_loss,
    contrastive_loss,
    margin_softmax_loss,
    supervised_contrastive_loss,
)


class Squared(losses.ContrastiveLoss):
    """Theirs is linear in the distance; Hadsell's is of its square."""

    def pos_calc(self, pos_pair_dist, margin):
        return pos_pair_dist.square()

    def neg_calc(self, neg_pair_dist, margin):
        return functional.relu(margin - neg_pair_dist).square()


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Free vectors, those of length 1, classes: theirs normalises again, which changes gradients of these."""
    rng = torch.Generator().manual_seed(seed)
    free = torch.randn(24, 8, generator=rng).requires_grad_()
    return free, functional.normalize(free, dim=1), torch.arange(24) % 6


def grads(loss, parameters):
    return torch.autograd.grad(loss, parameters, retain_graph=True)


def equal(ours, theirs, *parameters: torch.Tensor) -> None:
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for one, other in zip(grads(ours, parameters), grads(theirs, parameters)):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_losses_and_their_gradients(seed: int) -> None:
    free, vectors, labels = batch(seed)
    mean = reducers.MeanReducer()
    hard = miners.BatchHardMiner(distance=distances.LpDistance())(vectors, labels)
    triplet = losses.TripletMarginLoss(margin=0.2, distance=distances.LpDistance(), reducer=mean)
    equal(batch_hard_triplet_loss(vectors, labels), triplet(vectors, labels, hard), free)
    pairs = Squared(neg_margin=1, distance=distances.LpDistance(), reducer=mean)
    equal(contrastive_loss(vectors, labels), pairs(vectors, labels), free)
    supervised = losses.SupConLoss(temperature=0.1, reducer=mean)
    equal(supervised_contrastive_loss(vectors, labels), supervised(vectors, labels), free)
    for kind, margin, angular in ((losses.ArcFaceLoss, 0.5, True), (losses.CosFaceLoss, 0.35, False)):
        theirs = kind(6, 8, margin=math.degrees(margin) if angular else margin, scale=30, reducer=mean)
        ours = margin_softmax_loss(vectors, theirs.W.T, labels, margin=margin, scale=30, angular=angular)
        equal(ours, theirs(vectors, labels), free, theirs.W)


def test_retrieval() -> None:
    rng = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 9, (120,), generator=rng)
    vectors = functional.normalize(
        torch.randn(9, 6, generator=rng)[labels] + torch.randn(120, 6, generator=rng)
    )
    calculator = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=CustomKNN(distances.CosineSimilarity()),
    )
    theirs = calculator.get_accuracy(vectors, labels)
    metric = RetrievalScores()
    metric.update(vectors, labels)
    ours = metric.compute_floats()
    assert ours["recall_at_1"] == pytest.approx(theirs["precision_at_1"])
    assert ours["map_at_r"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
