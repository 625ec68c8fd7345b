"""Random numbers as functions of keys: the same on every machine, in every process and after a resume."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import torch

__all__ = ["Salt", "keyed_generator", "keyed_seed", "seeded", "seeded_from_run"]


class Salt(IntEnum):
    """A part of a key that keeps draws of different purposes apart. Results depend on these numbers."""

    SUBSET = 0x5B
    GLYPH_STYLE = 0x61
    RETRY = 0xBAD
    ORDER = 0x0DE5
    HOLDOUT = 0x401D
    STEP = 0x57E9
    PAIRS = 0x9A17
    BATCH_TRANSFORM = 0xBA7C
    LABEL = 0x1ABE1
    FOLDS = 0xF01D
    CLASSES = 0xC1A5
    IDENTITIES = 0x1DE7
    EPISODES = 0xE150
    SHARDS = 0x54A2


def keyed_seed(*key: int) -> int:
    """Return a 63-bit seed, well mixed from any integers; the same on every machine and process."""
    packed = struct.pack(f"<{len(key)}q", *key)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def keyed_generator(*key: int) -> torch.Generator:
    """Return a CPU generator that is a function of `key` alone, such as (seed, epoch, index)."""
    return torch.Generator().manual_seed(keyed_seed(*key))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw on the CPU from `seed` inside the block; torch's generator is afterwards as it was before."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed the devices too, which the fork does not put back.
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def seeded_from_run() -> Iterator[None]:
    """Draw from the run's seed alone inside the block, whatever was drawn since it was set.

    New heads are drawn so: the backbones of a comparison's arms draw different numbers before them, and the
    arms shall begin with the same heads.
    """
    with seeded(torch.initial_seed() % 2**63):
        yield
