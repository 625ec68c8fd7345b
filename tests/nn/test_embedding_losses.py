"""Losses of vectors against loops in float64, at their edges, and over the vectors of all processes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from tests.nn.embedding_worker import LOSSES, gradients
from visionkit.nn.embedding.losses import (
    batch_hard_triplet_loss,
    contrastive_loss,
    margin_logits,
    margin_softmax_loss,
    supervised_contrastive_loss,
)


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, width, generator=rng), dim=1)


def loops(vectors: torch.Tensor, labels: torch.Tensor, *, margin: float, temperature: float):
    """The three losses as their papers write them, one anchor and one pair at a time."""
    rows, names = vectors.double(), labels.tolist()
    size = len(rows)

    def distance(i, j):
        return float((rows[i] - rows[j]).norm())

    pairs = [(i, j) for i in range(size) for j in range(size) if i != j]
    same = [distance(i, j) ** 2 for i, j in pairs if names[i] == names[j]]
    other = [max(0.0, margin - distance(i, j)) ** 2 for i, j in pairs if names[i] != names[j]]
    hard, alike = [], []
    for i in range(size):
        own = [j for j in range(size) if j != i and names[j] == names[i]]
        rest = [j for j in range(size) if names[j] != names[i]]
        if own and rest:
            worst = max(distance(i, j) for j in own) - min(distance(i, j) for j in rest)
            hard.append(max(0.0, worst + margin))
        if own:
            total = math.log(sum(math.exp(float(rows[i] @ rows[j]) / temperature) for j in own + rest))
            alike.append(sum(total - float(rows[i] @ rows[j]) / temperature for j in own) / len(own))
    mean = lambda values: sum(values) / len(values) if values else 0.0  # noqa: E731
    return mean(hard), mean(same) + mean(other), mean(alike)


@pytest.mark.parametrize("seed", range(6))
def test_losses_of_pairs_equal_loops(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    vectors, labels = unit(11, 3, seed), torch.randint(0, 5, (11,), generator=rng)
    expected = loops(vectors, labels, margin=0.7, temperature=0.2)
    given = (
        batch_hard_triplet_loss(vectors, labels, margin=0.7),
        contrastive_loss(vectors, labels, margin=0.7),
        supervised_contrastive_loss(vectors, labels, temperature=0.2),
    )
    assert [each.item() for each in given] == pytest.approx(expected, rel=2e-5)


def test_margins_go_on_falling_and_only_the_true_class_is_made_harder() -> None:
    angles = torch.linspace(0.01, math.pi - 0.01, 50, dtype=torch.float64)
    cosines = torch.stack([angles.cos(), torch.zeros(50, dtype=torch.float64)], 1)
    labels = torch.zeros(50, dtype=torch.int64)
    for margin, angular in ((0.5, True), (0.35, False)):
        logits = margin_logits(cosines, labels, margin=margin, scale=10.0, angular=angular)
        assert torch.equal(logits[:, 1], 10 * cosines[:, 1])
        assert bool((logits[1:, 0] < logits[:-1, 0]).all())
        near = angles < math.pi - margin
        harder = (angles + margin).cos() if angular else angles.cos() - margin
        assert torch.allclose(logits[near, 0], 10 * harder[near])
    vectors, weight = unit(6, 4, 0), 3 * unit(5, 4, 1)
    loss = margin_softmax_loss(vectors, weight, torch.arange(6) % 5, margin=0.0, scale=8.0, angular=True)
    cosines = vectors @ functional.normalize(weight, dim=1).T
    assert loss.item() == pytest.approx(functional.cross_entropy(8 * cosines, torch.arange(6) % 5).item())


def test_nothing_to_compare_teaches_nothing_and_equal_vectors_have_gradients() -> None:
    for loss in LOSSES.values():
        for labels in (torch.arange(4), torch.zeros(1, dtype=torch.int64)):
            vectors = unit(len(labels), 3, 0).requires_grad_()
            value = loss(vectors, labels)
            value.backward()
            assert value.isfinite()
            assert vectors.grad.isfinite().all()
        collapsed = torch.ones(6, 3).div(math.sqrt(3)).requires_grad_()
        loss(collapsed, torch.arange(6) % 2).backward()
        assert collapsed.grad.isfinite().all()
    assert batch_hard_triplet_loss(unit(4, 3, 0), torch.arange(4)).item() == 0
    assert supervised_contrastive_loss(unit(4, 3, 0), torch.arange(4)).item() == 0


def test_they_are_computed_in_float32_under_autocast() -> None:
    vectors, labels, weight = unit(9, 6, 2), torch.arange(9) % 3, unit(3, 6, 3)
    every = [
        *LOSSES.values(),
        lambda v, y: margin_softmax_loss(v, weight, y, margin=0.5, scale=30, angular=True),
    ]
    for loss in every:
        plain = loss(vectors, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = loss(vectors, labels)
        assert cast.dtype == torch.float32
        assert torch.equal(plain, cast)


@pytest.mark.dist
def test_vectors_of_all_processes_teach_what_one_process_learns(zygote, tmp_path) -> None:
    one = gradients()
    for world in (2, 3):
        folder = tmp_path / str(world)
        folder.mkdir()
        ranks = zygote.ranks("tests.nn.embedding_worker:main", world, str(folder), world)
        for told in ranks:
            assert told == ranks[0]
            for name, values in one.items():
                # float32 sums in another order: a few roundings of values below 4
                assert told[name] == pytest.approx(values, rel=1e-5, abs=2e-6), name
