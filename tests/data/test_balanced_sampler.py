"""Class-balanced batches: every class equally often, no key twice, one order for any processes and stops."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.run.tiny import tiny_data
from visionkit.data import BalancedBatchSampler
from visionkit.data.class_balance import class_labels
from visionkit.errors import InputError


def keys(sampler, batches):
    """The keys of some batches, a new iterator each epoch, as a Trainer takes them."""
    endless = itertools.chain.from_iterable(iter(sampler) for _ in itertools.count())
    return list(itertools.islice(endless, batches))


@st.composite
def cases(draw):
    batch = draw(st.integers(1, 3))
    labels = draw(st.lists(st.sampled_from([0, 0, 0, 0, 1, 1, 4]), min_size=6 * batch, max_size=60))
    return labels, batch, draw(st.integers(0, 2**40)), draw(st.integers(0, 40))


@settings(max_examples=150)
@given(cases())
def test_one_order_on_one_two_and_three_processes_and_after_stops(case):
    labels, batch, seed, stop = case
    alone = BalancedBatchSampler(labels, batch_size=6 * batch, seed=seed)
    count = 3 * len(alone)
    order = keys(alone, count)
    for world in (1, 2, 3):
        parts = []
        for rank in range(world):
            at = {"batch_size": 6 * batch // world, "seed": seed, "rank": rank, "world_size": world}
            first = keys(BalancedBatchSampler(labels, **at), min(stop, count))
            # Stopped after `stop` batches: the new process knows the position alone.
            position = [len(first)]
            again = BalancedBatchSampler(labels, **at, position=lambda p=position: p[0])
            while position[0] < count:
                for each in again:
                    first.append(each)
                    position[0] += 1
            parts.append(first)
        assert [list(itertools.chain(*step)) for step in zip(*parts, strict=True)] == order
    drawn = list(itertools.chain(*order))
    assert len(set(drawn)) == len(drawn), "no key twice: a sample that comes again has other draws"
    classes = Counter(labels[key.index] for key in drawn)
    assert set(classes) == set(labels)
    assert max(classes.values()) - min(classes.values()) <= 1
    for label in classes:
        members = [index for index, each in enumerate(labels) if each == label]
        seen = Counter(key.index for key in drawn if labels[key.index] == label)
        assert max(seen[index] for index in members) - min(seen[index] for index in members) <= 1


@settings(max_examples=60)
@given(cases())
def test_the_first_draws_are_the_same_for_any_batch_size(case):
    labels, batch, seed, _ = case
    one, other = (
        list(itertools.chain(*keys(BalancedBatchSampler(labels, batch_size=size, seed=seed), 12)))
        for size in (batch, 2 * batch)
    )
    assert one == other[: len(one)]


def test_the_loader_draws_each_key_alike_in_any_number_of_processes():
    def images(world):
        """Name and pixels of the first 24 samples over all processes, in the order of the batches."""
        parts = []
        for rank in range(world):
            data = tiny_data(30, 12 // world, sampler="balanced")
            data._rank_and_world_size = lambda rank=rank: (rank, world)
            batches = itertools.islice(data.train_dataloader(), 2)
            parts.append([list(zip(batch["ids"], batch["images"], strict=True)) for batch in batches])
        return [(name, image) for step in zip(*parts, strict=True) for part in step for name, image in part]

    reference = images(1)
    assert len(reference) == 24
    for world in (2, 3):
        for (name, image), (other, same) in zip(images(world), reference, strict=True):
            assert name == other
            assert torch.equal(image, same)


def test_what_cannot_be_balanced_is_refused_by_name():
    class Some:
        labels = (0, 2, 2)

    with pytest.raises(InputError, match=r"every class.*none of 'b', 'd'"):
        class_labels(Some(), ("a", "b", "c", "d"))
    with pytest.raises(InputError, match="several classes an image"):
        class_labels(object(), ("a",))
    with pytest.raises(InputError, match="'balanced'"):
        tiny_data(sampler="ballanced")
    data = tiny_data(sampler="balanced")
    data.grouping = lambda order, width: [order]
    with pytest.raises(InputError, match="grouping"):
        data.train_order()
    data.grouping = None
    assert data.order_fingerprint() != tiny_data().order_fingerprint()
