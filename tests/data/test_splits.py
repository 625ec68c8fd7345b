"""Fractions are nested and even over the classes; a fingerprint notices what matters."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.data import Subset, fingerprint, holdout, subset
from visionkit.errors import InputError


class Labelled:
    def __init__(self, labels, shade=0):
        self.labels = list(labels)
        self.ids = [f"{i}" for i in range(len(self.labels))]
        self.shade = shade

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": torch.full((3, 2, 2), self.shade, dtype=torch.uint8), "id": self.ids[index]}


LABELS = st.lists(st.integers(0, 4), min_size=4, max_size=200)


@settings(max_examples=80)
@given(LABELS, st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_a_smaller_fraction_lies_inside_a_larger_one(labels, one, other, seed):
    reader = Labelled(labels)
    small, large = (set(subset(reader, f, seed=seed).ids) for f in sorted((one, other)))
    assert small <= large
    assert len(large) == max(1, round(max(one, other) * len(labels)))


@settings(max_examples=80)
@given(LABELS, st.floats(0.05, 0.95), st.integers(0, 2**31))
def test_each_class_keeps_its_share(labels, fraction, seed):
    chosen, whole = Counter(subset(Labelled(labels), fraction, seed=seed).labels), Counter(labels)
    share = sum(chosen.values()) / len(labels)
    for label, count in whole.items():
        assert abs(chosen[label] - share * count) <= 1.51 + abs(share - fraction) * count


@settings(max_examples=60)
@given(LABELS, st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_a_holdout_cuts_in_two(labels, fraction, seed):
    reader = Labelled(labels)
    kept, held = holdout(reader, fraction, seed=seed)
    assert sorted(kept.ids + held.ids) == sorted(reader.ids)
    assert min(len(kept), len(held)) >= 1


def test_balanced_classes_stay_balanced_and_seeds_differ():
    reader = Labelled([i % 10 for i in range(1000)])
    assert set(Counter(subset(reader, 0.02, seed=3).labels).values()) == {2}
    assert subset(reader, 0.1, seed=1).ids != subset(reader, 0.1, seed=2).ids
    assert subset(reader, 0.1, seed=1).ids == subset(reader, 0.1, seed=1).ids
    assert subset(reader, 1.0) is reader


def test_wrong_fractions_are_refused():
    reader = Labelled([0, 1])
    for fraction in (0, -1, 1.5, float("nan")):
        with pytest.raises(InputError, match="fraction"):
            subset(reader, fraction)
    with pytest.raises(InputError, match="empty"):
        subset(Labelled([]), 0.5)
    with pytest.raises(InputError, match="at least 2"):
        holdout(Labelled([0]), 0.5)


def test_the_fingerprint_notices_names_labels_choice_and_pixels():
    base = Labelled([0, 1, 0, 1])
    renamed = Labelled([0, 1, 0, 1])
    renamed.ids = ["x", "1", "2", "3"]
    plain = [Labelled([0, 0], shade) for shade in (0, 1)]
    for reader in plain:
        del reader.labels, reader.ids
        reader.__class__ = type("Plain", (), {"__len__": lambda s: 2, "__getitem__": _shade})
    readers = [base, renamed, Labelled([0, 1, 1, 1]), Subset(base, [0, 1]), Subset(base, [1, 0]), *plain]
    assert len({fingerprint(reader) for reader in readers}) == 7
    assert fingerprint(base) == fingerprint(Labelled([0, 1, 0, 1]))


def _shade(self, index):
    return {"image": torch.full((3, 2, 2), self.shade, dtype=torch.uint8)}
