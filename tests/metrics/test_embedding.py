"""Retrieval and verification against scikit-learn and plain loops; the exact neighbours; bad vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional

from visionkit.errors import DataError, InputError
from visionkit.metrics import EmbeddingScores, RetrievalScores, VerificationScores, verification_scores
from visionkit.metrics.embedding.images import identity_folds, image_pairs
from visionkit.metrics.embedding.neighbors import largest
from visionkit.metrics.embedding.verification import fold_accuracy


def drawn(images: int, classes: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images,), generator=rng)
    centres = torch.randn(classes, width, generator=rng)
    return centres[labels] + torch.randn(images, width, generator=rng), labels


@pytest.mark.parametrize(("images", "seed"), [(40, 0), (61, 1), (200, 2)])
def test_retrieval_equals_scikit_learn_and_a_loop(images: int, seed: int) -> None:
    vectors, labels = drawn(images, images // 4, 6, seed)
    metric = RetrievalScores(ks=(1, 5, 1000))
    metric.update(vectors, labels, [f"{i}" for i in range(images)])
    scores = metric.compute_floats()
    rows = functional.normalize(vectors, dim=1).double().numpy()
    near = NearestNeighbors(n_neighbors=images, algorithm="brute").fit(rows).kneighbors(rows)[1][:, 1:]
    hits = labels.numpy()[near] == labels.numpy()[:, None]  # (N, N - 1)
    served = hits.any(1)
    assert metric.result is not None
    assert (metric.result.queries, metric.result.alone) == (served.sum(), (~served).sum())
    precisions = []
    for row in hits[served]:
        count = row.sum()
        precisions.append(sum(row[: i + 1].mean() for i in range(count) if row[i]) / count)
    assert scores["recall_at_1"] == pytest.approx(hits[served, 0].mean())
    assert scores["recall_at_5"] == pytest.approx(hits[served, :5].any(1).mean())
    assert scores["recall_at_1000"] == 1.0
    assert scores["map_at_r"] == pytest.approx(np.mean(precisions))


def test_queries_and_gallery_apart() -> None:
    vectors, labels = drawn(90, 12, 5, 3)
    apart = torch.arange(90) >= 30
    metric = RetrievalScores()
    metric.update(vectors[:50], labels[:50], gallery=apart[:50])
    metric.update(vectors[50:], labels[50:], gallery=apart[50:])
    rows = functional.normalize(vectors, dim=1).double().numpy()
    near = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(rows[30:]).kneighbors(rows[:30])[1]
    hits = labels.numpy()[30:][near] == labels.numpy()[:30, None]
    served = np.isin(labels.numpy()[:30], labels.numpy()[30:])
    for k in (1, 5, 10):
        assert metric.compute_floats()[f"recall_at_{k}"] == pytest.approx(hits[served, :k].any(1).mean())


def test_a_gallery_of_its_own_serves_retrieval_alone() -> None:
    vectors, labels = drawn(120, 10, 5, 6)
    apart = torch.arange(120) >= 50
    metric, alone, queries = EmbeddingScores(ways=3), RetrievalScores(), EmbeddingScores(ways=3)
    names = [f"{i}" for i in range(120)]
    for each in (metric, alone):
        each.update(vectors, labels, names, apart)
    queries.update(vectors[:50], labels[:50], names[:50])
    scores, own = metric.compute_floats(), queries.compute_floats()
    assert {name: scores[name] for name in alone.names} == alone.compute_floats()
    others = [name for name in metric.names if name not in alone.names]
    assert len(others) == 7
    assert {name: scores[name] for name in others} == {name: own[name] for name in others}
    assert metric.result is not None
    assert metric.result.left_out == ""
    metric.reset()
    metric.update(vectors, labels, names, apart & False)  # a few batches of an evaluation: no gallery yet
    none = metric.compute_floats()
    assert all(math.isnan(none[name]) for name in alone.names)
    assert metric.result.alone == 120
    vectors, labels = drawn(30, 3, 5, 7)
    labels[3] = 9
    queries.reset()
    queries.update(vectors, labels)
    queries.compute_floats()
    assert queries.result is not None
    assert queries.result.left_out.startswith("1 of 30 images have no other of their class")


def test_pairs_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for digits in (1, 12):  # with ties, and without
        same = rng.random(400) < 0.4
        scores = np.round(rng.normal(same * 1.0, 1.0), digits)
        values = verification_scores(scores, same, fars=(0.01, 0.1, 1.0))
        false_rate, true_rate, _ = roc_curve(same, scores, drop_intermediate=False)
        assert values["auc"] == pytest.approx(roc_auc_score(same, scores))
        crossing = np.interp(0, false_rate + true_rate - 1, false_rate)
        assert values["eer"] == pytest.approx(crossing)
        assert values["tar_at_far_0.01"] == pytest.approx(true_rate[false_rate <= 0.01].max())
        assert values["tar_at_far_0.1"] == pytest.approx(true_rate[false_rate <= 0.1].max())
        assert values["tar_at_far_1"] == 1.0
    assert all(math.isnan(value) for value in verification_scores(scores, same > 2).values())
    perfect = verification_scores(np.array([3.0, 2.0, 1.0]), np.array([True, True, False]))
    assert (perfect["auc"], perfect["eer"], perfect["tar_at_far_0.01"]) == (1.0, 0.0, 1.0)


def test_the_accuracy_of_folds_takes_its_threshold_from_the_others() -> None:
    rng = np.random.default_rng(1)
    same, folds = rng.random(300) < 0.5, np.arange(300) % 10
    scores = rng.normal(same * 1.5, 1.0)
    expected = []
    for fold in range(10):
        train, test = folds != fold, folds == fold
        cuts = np.append(np.sort(scores[train]), [np.inf, -np.inf])
        best = max(((scores[train] > cut) == same[train]).mean() for cut in cuts)
        # every threshold that is best for the others may differ on the fold by the pairs between them
        good = [cut for cut in cuts if ((scores[train] > cut) == same[train]).mean() == best]
        expected.append([((scores[test] > cut) == same[test]).mean() for cut in good])
    given = fold_accuracy(scores, same, folds)
    assert np.mean([min(each) for each in expected]) - 0.02 <= given
    assert given <= np.mean([max(each) for each in expected]) + 0.02
    one = fold_accuracy(np.array([1.0, 0.0, 3.0, 2.0]), np.array([True, False] * 2), np.array([0, 0, 1, 1]))
    assert one == 0.5  # each fold's threshold, 2.5 and 0.5, is wrong for one pair of the other
    metric = VerificationScores()
    metric.update(torch.from_numpy(scores), torch.from_numpy(same).long(), torch.from_numpy(folds))
    assert metric.compute_floats()["accuracy"] == given


def test_pairs_of_images_are_all_or_a_draw_that_ids_decide() -> None:
    labels = np.array([0, 1, 0, 2, 1])
    first, second = image_pairs(labels)
    assert sorted(zip(first.tolist(), second.tolist())) == [(i, j) for i in range(5) for j in range(i + 1, 5)]
    many = np.random.default_rng(2).integers(0, 30, 900)
    first, second = image_pairs(many, max_same=500, max_other=2000)
    same = many[first] == many[second]
    assert same.sum() == 500
    assert 1800 < (~same).sum() <= 2000
    pairs = set(zip(np.minimum(first, second).tolist(), np.maximum(first, second).tolist()))
    assert len(pairs) == len(first)
    assert (first != second).all()
    every = image_pairs(many, max_same=10**6, max_other=2000)
    assert (many[every[0]] == many[every[1]]).sum() == sum(n * (n - 1) // 2 for n in np.bincount(many))
    folds = identity_folds(many)
    assert sorted(np.bincount(list(folds.values()))) == [3] * 10
    assert set(identity_folds(np.array([4, 4, 9])).values()) == {0}


def test_scores_of_images_are_those_of_their_pairs() -> None:
    vectors, labels = drawn(80, 20, 8, 5)
    metric = EmbeddingScores()
    names = [f"a/{i}.jpg" for i in range(80)]
    metric.update(vectors[:30], labels[:30], names[:30])
    metric.update(vectors[30:], labels[30:], names[30:])
    scores = metric.compute_floats()
    rows = functional.normalize(vectors, dim=1).double()
    first, second = torch.triu_indices(80, 80, 1)
    cosines, same = (rows @ rows.T)[first, second], labels[first] == labels[second]
    assert scores["pair_auc"] == pytest.approx(roc_auc_score(same, cosines))
    assert average_precision_score(same, cosines) > same.float().mean()  # the draw is no noise
    assert 0.5 < scores["pair_accuracy"] <= 1
    backwards = EmbeddingScores()
    backwards.update(vectors.flip(0), labels.flip(0), names[::-1])
    assert backwards.compute_floats() == scores
    few = EmbeddingScores()
    few.update(vectors[:6], torch.arange(6) % 3)
    assert math.isnan(few.compute_floats()["pair_accuracy"])


def test_equal_values_are_ordered_by_index() -> None:
    rng = torch.Generator().manual_seed(1)
    for _ in range(100):
        values = torch.randint(0, 4, (5, 12), generator=rng).double()
        top, indices = largest(values, 5)
        rows, order = values.sort(dim=1, descending=True, stable=True)
        assert torch.equal(top, rows[:, :5])
        assert torch.equal(indices, order[:, :5])


def test_vectors_that_are_no_numbers_are_named() -> None:
    broken = torch.ones(3, 4)
    broken[1, 2] = float("nan")
    with pytest.raises(DataError, match=r"that of 'b\.jpg' has NaN"):
        RetrievalScores().update(broken, torch.zeros(3, dtype=torch.int64), ["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(DataError, match="image 1 of the batch"):
        RetrievalScores().update(broken, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InputError, match="ks"):
        RetrievalScores(ks=(0,))
