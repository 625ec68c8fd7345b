"""Weights of rare classes: the shares of their pixels, and a mean weight of 1 over all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visionkit.data.class_balance import balanced_weights, image_counts, pixel_counts
from visionkit.errors import InputError


class Masks:
    def __init__(self, masks):
        self.masks = masks

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, index):
        return {"mask": self.masks[index]}


def test_pixels_are_counted_without_the_ignored():
    masks = Masks([torch.tensor([[0, 0, 2], [255, 2, 2]]), torch.tensor([[1]])])
    assert pixel_counts(masks, 4).tolist() == [2, 1, 3, 0]
    many = Masks([torch.tensor([[i % 4]]) for i in range(4000)])
    assert pixel_counts(many, 4, max_samples=100).sum() == 100


@given(
    counts=st.lists(st.integers(0, 10**9), min_size=2, max_size=30).filter(any),
    power=st.floats(0, 1),
)
def test_all_pixels_together_keep_their_weight(counts, power):
    counts = torch.tensor(counts)
    weights = torch.tensor(balanced_weights(counts, power=power), dtype=torch.float64)
    assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1.0, rel=1e-9)
    order = counts[counts > 0].argsort()
    there = weights[counts > 0][order]
    assert bool((there[1:] <= there[:-1] * (1 + 1e-12)).all())
    if power == 1:
        share = weights * counts
        assert float(share[counts > 0].std(correction=0)) <= 1e-6 * float(share.max())


def test_nothing_to_count_is_said():
    with pytest.raises(InputError, match="at least one sample"):
        balanced_weights(torch.zeros(3, dtype=torch.int64), power=0.5)
    with pytest.raises(InputError, match="from 0 to 1"):
        balanced_weights(torch.ones(3), power=2.0)


def test_images_of_each_class_are_counted_by_their_labels():
    class Few:
        labels = (0, 2, 2)

    assert image_counts(Few(), 4).tolist() == [1, 0, 2, 0]
    assert balanced_weights(image_counts(Few(), 4), power=1.0)[1] == 1.0
    with pytest.raises(InputError, match="several classes an image"):
        image_counts(object(), 4)
