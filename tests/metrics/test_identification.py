"""Identification with individuals that the gallery does not have, against lists made one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from visionkit.errors import InputError
from visionkit.metrics import UNKNOWN, best_threshold, identification_scores, rank_classes

NEW = "new"


def case(seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Queries and gallery of length 1, the gallery's classes (not all numbers), the queries' classes."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((9, 4))
    labels = np.concatenate([np.arange(7), rng.integers(0, 7, 20)])
    truth = rng.integers(0, 9, 40)
    gallery, queries = (
        functional.normalize(torch.from_numpy(centres[each] + rng.standard_normal((len(each), 4))), dim=1)
        for each in (labels, truth)
    )
    return queries.float(), gallery.float(), 10 * labels, np.where(truth < 7, 10 * truth, UNKNOWN)


def answers(query: torch.Tensor, gallery: torch.Tensor, labels: np.ndarray, threshold: float) -> list[object]:
    """The five answers to one query, as the competition has them."""
    cosines = (gallery.double() @ query.double()).tolist()
    best = {int(label): max(c for c, other in zip(cosines, labels) if other == label) for label in labels}
    ordered = sorted(best, key=lambda label: (-best[label], label))
    made: list[object] = []
    for label in ordered:
        if best[label] < threshold and NEW not in made:
            made.append(NEW)
        made.append(label)
    return made[:5]


def test_scores_are_those_of_the_lists_of_answers() -> None:
    for seed in range(20):
        queries, gallery, labels, truth = case(seed)
        ranking = rank_classes(queries, gallery, labels)
        for threshold in (-math.inf, 0.3, 0.9, math.inf):
            lists = [answers(query, gallery, labels, threshold) for query in queries]
            named = [NEW if label == UNKNOWN else int(label) for label in truth]
            ranks = [one.index(label) if label in one else None for one, label in zip(lists, named)]
            scores = identification_scores(ranking, truth, threshold=threshold)
            assert scores["top1"] == pytest.approx(np.mean([rank == 0 for rank in ranks]))
            points = [0 if rank is None else 1 / (1 + rank) for rank in ranks]
            assert scores["map_at_5"] == pytest.approx(np.mean(points))


def test_the_best_threshold_is_better_than_any_other() -> None:
    for seed in range(5):
        queries, gallery, labels, truth = case(seed)
        ranking = rank_classes(queries, gallery, labels, count=3)
        best = identification_scores(ranking, truth, threshold=best_threshold(ranking, truth))["map_at_3"]
        for threshold in [*np.linspace(-1, 1, 101), math.inf, -math.inf]:
            assert identification_scores(ranking, truth, threshold=threshold)["map_at_3"] <= best
        assert best_threshold(ranking, np.full(40, UNKNOWN)) == math.inf
        known = rank_classes(gallery, gallery, labels)
        threshold = best_threshold(known, labels)  # each is the nearest of itself
        assert identification_scores(known, labels, threshold=threshold)["top1"] == 1.0


def test_a_query_of_the_gallery_is_not_its_own_answer() -> None:
    _, gallery, _, _ = case(0)
    labels = np.arange(len(gallery))
    ranking = rank_classes(gallery, gallery, labels, skip=torch.arange(len(gallery)))
    assert not (ranking.classes[:, 0] == labels).any()
    with pytest.raises(InputError, match="at least 28 classes in the gallery, but it has 27"):
        rank_classes(gallery, gallery, labels, count=28)
    # Of five individuals one has a single image: nothing could be answered right for it.
    five = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])
    ranking = rank_classes(gallery[:9], gallery[:9], five, skip=torch.arange(9))
    assert ranking.classes[8, 4] == 4
    alone = type(ranking)(ranking.classes[8:], ranking.cosines[8:])
    assert identification_scores(alone, five[8:]) == {"top1": 0.0, "map_at_5": 0.0}
    empty = rank_classes(gallery[:0], gallery, labels)
    assert empty.classes.shape == (0, 5)
    assert all(math.isnan(value) for value in identification_scores(empty, labels[:0]).values())
