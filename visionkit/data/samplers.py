"""Batch samplers of training and evaluation, whose order is a function of (seed, epoch).

They hold no random state. The training order reads, each time it is iterated, how many batches have been
consumed since training began (the restored progress of the Trainer), and computes epoch and batch from that;
so a resumed run continues with the batch that would have come next, for any number of workers. Evaluation
shards neither pad nor repeat: together they hold every sample exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch.utils.data import Sampler

from visionkit.errors import InputError, expected
from visionkit.rng import Salt, keyed_generator
from visionkit.types import Key

__all__ = ["BalancedBatchSampler", "EvalBatchSampler", "IdentityBatchSampler", "TrainBatchSampler"]

Grouping = Callable[[list[int], int], list[list[int]]]
"""Cuts a permutation into global batches of the given size (aspect-ratio grouping); a pure function."""


class TrainBatchSampler(Sampler[list[Key]]):
    """Batches of keys in a global order that is a function of (seed, epoch) only.

    The permutation of an epoch is cut into global batches of `batch_size * world_size`; process `rank` takes
    its contiguous part of each. The last samples of an epoch that do not fill a global batch are left out
    (others in every epoch). A data set smaller than one global batch gives one smaller batch.

    Args:
        size: Number of samples.
        batch_size: Samples a batch of one process.
        seed: Seed of the order.
        rank: This process.
        world_size: Number of processes.
        position: Returns how many batches have been consumed since training began; called whenever the order
            is iterated. Without it the order counts its own passes.
        grouping: Cuts the permutation into global batches in another way (must be a pure function).

    Raises:
        InputError: There are fewer samples than processes, or a size is not positive.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        position: Callable[[], int] | None = None,
        grouping: Grouping | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"Expected batch_size to be at least 1, but got {batch_size}.")
        if size < world_size:
            raise InputError(
                f"Expected at least one training sample for each of {world_size} processes, but the training "
                f"split holds {size}. Use fewer devices, a larger fraction, or check the data folder."
            )
        self.size = size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.batch_size = min(batch_size, size // world_size)
        self.steps = max(1, size // (self.batch_size * world_size))
        self._position = position
        self._grouping = grouping
        self._passes = 0

    def __len__(self) -> int:
        return self.steps

    def epoch_order(self, epoch: int) -> list[int]:
        """Return the permutation of all samples in `epoch`."""
        return torch.randperm(self.size, generator=keyed_generator(self.seed, epoch, Salt.ORDER)).tolist()

    def global_batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of `epoch` over all processes, in order."""
        order, width = self.epoch_order(epoch), self.batch_size * self.world_size
        if self._grouping is not None:
            return self._grouping(order, width)[: self.steps]
        return [order[step * width : (step + 1) * width] for step in range(self.steps)]

    def global_keys(self, epoch: int) -> list[list[Key]]:
        """Return the keys of the batches of `epoch` over all processes, in order."""
        return [[Key(epoch, index) for index in batch] for batch in self.global_batches(epoch)]

    def before_batch(self, epoch: int, number: int) -> None:
        """Do nothing; called before batch `number` of `epoch` is given."""

    def __iter__(self) -> Iterator[list[Key]]:
        if self._position is None:
            return self._next_pass()
        # The position is read here, not at the first `next`: loaders may prefetch at any later time.
        epoch, start = divmod(self._position(), self.steps)
        return self._walk(epoch, start)

    def _next_pass(self) -> Iterator[list[Key]]:
        # Counted at the first `next`: a DataLoader with workers iterates its sampler twice before it draws.
        epoch = self._passes
        self._passes += 1
        yield from self._walk(epoch, 0)

    def _walk(self, epoch: int, start: int) -> Iterator[list[Key]]:
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for number, batch in enumerate(self.global_keys(epoch)[start:], start):
            self.before_batch(epoch, number)
            yield batch[mine]


class BalancedBatchSampler(TrainBatchSampler):
    """Batches in which every class comes equally often, each class over all its samples in turn.

    Draw number n since training began is of the n-th class of an endless order in which every block of C
    draws has each of the C classes once; a class's draws walk through permutations of its own samples. Blocks
    and permutations are functions of the seed, so the first N draws are the same for any batch size and
    number of processes, and a resume needs the position alone. The epoch of a key counts the passes over its
    class: no key comes twice, and a sample that comes again is augmented by other draws.

    An epoch has as many batches as without balancing: of a common class not every sample comes in each.

    Args:
        labels: The class of each sample; classes without one are left out.
        batch_size: Samples a batch of one process.
        seed: Seed of the order.
        rank: This process.
        world_size: Number of processes.
        position: See `TrainBatchSampler`.

    Raises:
        InputError: There are fewer samples than processes, or a size is not positive.
    """

    def __init__(
        self,
        labels: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        position: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(
            len(labels), batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, position=position
        )
        members = _members(labels)
        self._members = [members[label] for label in sorted(members)]

    def global_keys(self, epoch: int) -> list[list[Key]]:
        """Return the keys of the batches of `epoch` over all processes, in order."""
        width = self.batch_size * self.world_size
        count = self.steps * width
        keys = self._draws(epoch * count, count)
        return [keys[start : start + width] for start in range(0, count, width)]

    def global_batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of `epoch` over all processes, in order."""
        return [[key.index for key in batch] for batch in self.global_keys(epoch)]

    def _draws(self, start: int, count: int) -> list[Key]:
        """Return the keys of `count` draws from number `start` on."""
        classes = len(self._members)
        passes: dict[tuple[int, int], list[int]] = {}  # (class, pass): the order of its samples
        keys = []
        for block in range(start // classes, -(-(start + count) // classes)):
            for each in self._permutation(classes, block):
                number, position = divmod(block, len(self._members[each]))
                if (each, number) not in passes:
                    order = self._permutation(len(self._members[each]), number, each)
                    passes[each, number] = [self._members[each][index] for index in order]
                keys.append(Key(number, passes[each, number][position]))
        first = start % classes
        return keys[first : first + count]

    def _permutation(self, size: int, *key: int) -> list[int]:
        rng = keyed_generator(self.seed, *key, Salt.CLASSES)
        return torch.randperm(size, generator=rng).tolist()


class IdentityBatchSampler(TrainBatchSampler):
    """Batches of P identities (classes) with K images each, which losses of pairs and triplets learn from.

    A global batch of N images holds N / K different identities. The identities come in blocks, permutations
    of them all, each cut into batches; those that do not fill a last batch are left out of the block (others
    in every one). In block b an identity gives the b-th K of its images: its images come in permutations of
    them all, each cut into groups of K, the rest left out; where it has fewer than K, the permutations
    follow one another, so that an image comes again in a batch, with another key and so with other draws.

    Everything is a function of (seed, batches consumed): the global batches are the same for any number of
    processes, and a resume needs the position alone. The epoch of a key counts the permutations of its
    identity: no key comes twice. An epoch has as many batches as in `TrainBatchSampler`.

    Args:
        labels: The identity of each sample.
        batch_size: Samples a batch of one process.
        images_per_class: K.
        seed: Seed of the order.
        rank: This process.
        world_size: Number of processes.
        position: See `TrainBatchSampler`.
        names: Names of the identities by label, for errors.

    Raises:
        InputError: An identity has one image, there are fewer identities than a batch holds, or the global
            batch is no multiple of K.
    """

    def __init__(
        self,
        labels: Sequence[int],
        *,
        batch_size: int,
        images_per_class: int = 4,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        position: Callable[[], int] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__(
            len(labels), batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, position=position
        )
        self.images_per_class = images_per_class
        members = _members(labels)
        _refuse_single(members, names)
        self._members = [members[label] for label in sorted(members)]
        width, count = batch_size * world_size, images_per_class
        if count < 2 or width % count or width < 2 * count:
            raise InputError(
                f"Expected batches of {width} images to hold 2 identities or more, with 2 images or more of "
                f"each, but images_per_class is {count}. Give a batch size (times the processes) that is a "
                "multiple of it, and at least twice as large."
            )
        if width > len(labels):
            raise InputError(
                expected("the global batch", f"at most the {len(labels)} training images", width)
            )
        self._identities = width // count
        if self._identities > len(members):
            raise InputError(
                f"Expected at least the {self._identities} identities of a batch ({width} images, {count} of "
                f"each), but there are {len(members)}. Take smaller batches, or more images of each: "
                f"--images_per_class {-(-width // len(members))}."
            )

    def global_keys(self, epoch: int) -> list[list[Key]]:
        """Return the keys of the batches of `epoch` over all processes, in order."""
        count = len(self._members)
        per_block = count // self._identities
        blocks: dict[int, list[int]] = {}
        batches = []
        for number in range(epoch * self.steps, (epoch + 1) * self.steps):
            block, index = divmod(number, per_block)
            if block not in blocks:
                blocks[block] = self._permutation(count, block)
            chosen = blocks[block][index * self._identities : (index + 1) * self._identities]
            batches.append([key for identity in chosen for key in self._images(identity, block)])
        return batches

    def global_batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of `epoch` over all processes, in order."""
        return [[key.index for key in batch] for batch in self.global_keys(epoch)]

    def _images(self, identity: int, block: int) -> list[Key]:
        """Return the keys of an identity's images in a block."""
        members, count = self._members[identity], self.images_per_class
        size = len(members) // count * count or len(members)  # images of each permutation that are used
        keys, orders = [], dict[int, list[int]]()
        for draw in range(block * count, (block + 1) * count):
            number, index = divmod(draw, size)
            if number not in orders:
                orders[number] = self._permutation(len(members), number, identity)
            keys.append(Key(number, members[orders[number][index]]))
        return keys

    def _permutation(self, size: int, *key: int) -> list[int]:
        rng = keyed_generator(self.seed, *key, Salt.IDENTITIES)
        return torch.randperm(size, generator=rng).tolist()


def _members(labels: Sequence[int]) -> dict[int, list[int]]:
    """Return the samples of each class."""
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(int(label), []).append(index)
    return members


def _refuse_single(members: Mapping[int, Sequence[int]], names: Sequence[str]) -> None:
    single = [label for label, indices in members.items() if len(indices) < 2]
    if single:
        shown = [names[label] if label < len(names) else f"class {label}" for label in sorted(single)[:5]]
        more = f" and {len(single) - 5} more" if len(single) > 5 else ""
        raise InputError(
            f"Expected at least 2 training images of every identity, to have pairs of, but there is one of "
            f"{', '.join(map(repr, shown))}{more}. Take them out of the training split, train on a larger "
            "fraction, or learn classes without pairs: loss arcface or cosface with sampler 'shuffle'."
        )


class EvalBatchSampler(Sampler[list[Key]]):
    """Batches of keys of one process's part of an evaluation set: no padding, no repeats.

    A process without any sample yields one empty batch, so that the hooks of an evaluation run on every
    process; tasks return at once on a batch without ids.

    Args:
        size: Number of samples over all processes.
        batch_size: Samples a batch.
        rank: This process.
        world_size: Number of processes.
        indices: The samples to use; all of them if not given.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        indices: Sequence[int] | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"Expected batch_size to be at least 1, but got {batch_size}.")
        every = range(size) if indices is None else indices
        self.indices = list(every[rank::world_size])
        self.batch_size = batch_size

    def __len__(self) -> int:
        return max(1, -(-len(self.indices) // self.batch_size))

    def __iter__(self) -> Iterator[list[Key]]:
        if not self.indices:
            yield []
        for start in range(0, len(self.indices), self.batch_size):
            yield [Key(0, index) for index in self.indices[start : start + self.batch_size]]
