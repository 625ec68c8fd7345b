"""The order of training over shards that are fetched while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch

from visionkit.data.samplers import Grouping, TrainBatchSampler
from visionkit.errors import InputError, expected
from visionkit.rng import Salt, keyed_generator

__all__ = ["ShardBatchSampler"]

Window = tuple[list[int], list[int]]
"""Shards whose samples are mixed, and these samples in their order."""


class ShardBatchSampler(TrainBatchSampler):
    """Batches in an order that stays within a few shards at a time, for sets that are not all at hand.

    In each epoch the shards are permuted and taken in windows; the samples of a window are permuted. Both are
    functions of (seed, epoch), so the global batches are the same for any number of processes, and a resume
    needs the position alone. With one window over all shards every permutation of all samples is as likely.

    Args:
        shards: The number of the shard of each sample.
        window: Shards whose samples are mixed.
        batch_size: Samples a batch of one process.
        seed: Seed of the order.
        rank: This process.
        world_size: Number of processes.
        position: See `TrainBatchSampler`.
        grouping: Cuts the samples of each window into global batches in another way (a pure function); those
            that fill no batch come first in the next window.
        fetch: Told the shards of this window and of the one after, whenever a window begins.

    Raises:
        InputError: There are fewer samples than processes, or a size is not positive.
    """

    def __init__(
        self,
        shards: Sequence[int],
        *,
        window: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        position: Callable[[], int] | None = None,
        grouping: Grouping | None = None,
        fetch: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        super().__init__(
            len(shards), batch_size=batch_size, seed=seed, rank=rank, world_size=world_size,
            position=position, grouping=grouping,
        )  # fmt: skip
        if window < 1:
            raise InputError(expected("the window", "at least 1 shard", window))
        self.window = window
        self._fetch = fetch
        self._members: dict[int, list[int]] = {}
        for index, shard in enumerate(shards):
            self._members.setdefault(int(shard), []).append(index)
        self._last: tuple[int, list[Window]] | None = None  # an epoch and its windows
        self._begun = -1  # the window that was last fetched

    def epoch_order(self, epoch: int) -> list[int]:
        """Return the permutation of all samples in `epoch`."""
        return [index for _, indices in self._windows(epoch) for index in indices]

    def global_batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of `epoch` over all processes, in order."""
        if self._grouping is None:
            return super().global_batches(epoch)
        width, left, batches = self.batch_size * self.world_size, list[int](), list[list[int]]()
        for _, samples in self._windows(epoch):
            batches += self._grouping(left + samples, width)
            left = batches.pop() if len(batches[-1]) < width else []
        return batches[: self.steps]

    def _windows(self, epoch: int) -> list[Window]:
        """Return the shards of each window of an epoch, and its samples, in order."""
        rng = keyed_generator(self.seed, epoch, Salt.SHARDS)
        names = sorted(self._members)
        order = [names[i] for i in torch.randperm(len(names), generator=rng).tolist()]
        windows = []
        for start in range(0, len(order), self.window):
            shards = order[start : start + self.window]
            samples = [index for shard in shards for index in self._members[shard]]
            mixed = torch.randperm(len(samples), generator=rng).tolist()
            windows.append((shards, [samples[i] for i in mixed]))
        return windows

    def before_batch(self, epoch: int, number: int) -> None:
        """Have the shards of a window and of the next one fetched where a batch begins a window."""
        if self._fetch is None:
            return
        if self._last is None or self._last[0] != epoch:
            self._last = (epoch, self._windows(epoch))
            self._begun = -1
        position, windows = number * self.batch_size * self.world_size, self._last[1]
        ends = accumulate(len(samples) for _, samples in windows)
        first = next(index for index, end in enumerate(ends) if position < end)
        if first != self._begun:
            self._begun = first
            self._fetch([shard for shards, _ in windows[first : first + 2] for shard in shards])
