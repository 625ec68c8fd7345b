"""Batches of P identities x K images: exact, no key twice, one order for any processes and stops."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.run.tiny import tiny_data
from visionkit.data import IdentityBatchSampler
from visionkit.errors import InputError


@st.composite
def cases(draw):
    sizes = draw(st.lists(st.integers(2, 9), min_size=6, max_size=14))
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    labels = draw(st.permutations(labels))
    count = draw(st.sampled_from([2, 3, 4]))
    return labels, count, draw(st.integers(0, 2**40)), draw(st.integers(0, 30))


@settings(max_examples=120)
@given(cases())
def test_batches_hold_whole_identities_alike_on_any_processes_and_after_stops(case):
    labels, count, seed, stop = case
    width = 6 * count if 6 * count <= len(labels) else 2 * count
    alone = IdentityBatchSampler(labels, batch_size=width, images_per_class=count, seed=seed)
    order = [batch for epoch in range(4) for batch in alone.global_keys(epoch)]
    assert len(alone) == len(labels) // width
    sizes = Counter(labels)
    for batch in order:
        held = Counter(labels[key.index] for key in batch)
        assert len(held) == width // count
        assert set(held.values()) == {count}
        for label in held:
            different = {key.index for key in batch if labels[key.index] == label}
            assert len(different) >= min(count, sizes[label]) - (sizes[label] < count)
    drawn = [key for batch in order for key in batch]
    assert len(set(drawn)) == len(drawn), "no key twice: an image that comes again has other draws"
    for world in (2, 3):
        if width % world:
            continue
        parts = []
        for rank in range(world):
            at = {"batch_size": width // world, "images_per_class": count, "seed": seed, "rank": rank}
            position = [min(stop, len(order))]
            again = IdentityBatchSampler(labels, **at, world_size=world, position=lambda p=position: p[0])
            taken = []
            while position[0] < len(order):
                for each in again:
                    taken.append(each)
                    position[0] += 1
            parts.append(taken)
        joined = [list(itertools.chain(*step)) for step in zip(*parts, strict=True)]
        assert joined == order[min(stop, len(order)) :]


def test_identities_and_their_images_come_equally_often():
    labels = [label for label in range(12) for _ in range(8)]
    sampler = IdentityBatchSampler(labels, batch_size=16, images_per_class=4, seed=3)
    drawn = Counter(key.index for epoch in range(16) for batch in sampler.global_keys(epoch) for key in batch)
    assert set(drawn.values()) == {16}  # 16 epochs of 6 batches of 16 images, over 96 images


def test_what_cannot_be_cut_is_refused_by_name():
    labels = [0, 0, 1, 1, 2, 3, 3, 3]
    with pytest.raises(InputError, match=r"one of 'c'\..*sampler 'shuffle'"):
        IdentityBatchSampler(labels, batch_size=4, images_per_class=2, seed=0, names=("a", "b", "c", "d"))
    pairs = [label for label in range(4) for _ in range(3)]
    for batch, count in ((4, 3), (3, 3), (4, 1)):
        with pytest.raises(InputError, match=rf"batches of {batch} images.*is {count}"):
            IdentityBatchSampler(pairs, batch_size=batch, images_per_class=count, seed=0)
    with pytest.raises(InputError, match=r"at least the 5 identities.*there are 4.*--images_per_class 3"):
        IdentityBatchSampler(pairs, batch_size=10, images_per_class=2, seed=0)
    with pytest.raises(InputError, match="at most the 12 training images"):
        IdentityBatchSampler(pairs, batch_size=16, images_per_class=4, seed=0)


def test_the_data_module_takes_it_by_name():
    data = tiny_data(30, 6, sampler="identities")
    batches = list(data.train_dataloader())
    assert len(batches) == 5
    assert all(batch["labels"].bincount().tolist() == [2, 2, 2] for batch in batches)
    assert data.order_fingerprint() != tiny_data(30, 6).order_fingerprint()
    data.grouping = lambda order, width: [order]
    with pytest.raises(InputError, match="grouping or sampler 'identities'"):
        data.train_order()
