"""Draws are functions of their keys, and the numbers that results depend on do not change."""

from __future__ import annotations

import torch

from visionkit.rng import Salt, keyed_generator, keyed_seed, seeded, seeded_from_run


def test_salts_and_seeds_are_what_they_were():
    assert len({salt.value for salt in Salt}) == len(Salt) == 14
    assert (
        sum(Salt)
        == 0x5B
        + 0x61
        + 0xBAD
        + 0x0DE5
        + 0x401D
        + 0x57E9
        + 0x9A17
        + 0xBA7C
        + 0x1ABE1
        + 0xF01D
        + 0xC1A5
        + 0x1DE7
        + 0xE150
        + 0x54A2
    )
    assert keyed_seed(5, 1, Salt.ORDER) == keyed_seed(5, 1, 0x0DE5) == 4931522392377702064
    assert keyed_seed(1, 2) != keyed_seed(2, 1)
    assert torch.equal(
        torch.rand(3, generator=keyed_generator(7)), torch.rand(3, generator=keyed_generator(7))
    )


def test_a_seeded_block_leaves_the_generator_as_it_was():
    state = torch.random.get_rng_state()
    with seeded(3):
        first = torch.rand(4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, torch.rand(4, generator=torch.Generator().manual_seed(3)))


def test_heads_are_drawn_from_the_seed_whatever_was_drawn_before():
    heads = []
    for drawn in (0, 5):
        torch.manual_seed(-2)
        torch.rand(drawn)
        with seeded_from_run():
            heads.append(torch.nn.Linear(2, 2).weight)
    assert torch.equal(*heads)
