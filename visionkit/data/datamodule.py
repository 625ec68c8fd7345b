"""The data module of every task: splits, transforms and a collate become loaders of exact order."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, get_args

import lightning
import torch
from torch.utils.data import DataLoader

from visionkit.compat import batches_started, wraps_samplers
from visionkit.data.class_balance import class_labels
from visionkit.data.keyed_dataset import Collate, KeyedDataset, SkipUnreadable, Transform, check_unreadable
from visionkit.data.pack.shard_sampler import ShardBatchSampler
from visionkit.data.samplers import (
    BalancedBatchSampler,
    EvalBatchSampler,
    Grouping,
    IdentityBatchSampler,
    TrainBatchSampler,
)
from visionkit.data.splits import GalleryName, Splits, WithGallery, fingerprint, subset
from visionkit.errors import InputError, expected, unknown_name
from visionkit.forking import worker_context
from visionkit.rng import Salt, keyed_generator
from visionkit.types import Reader

__all__ = ["DataModule"]

SamplerName = Literal["shuffle", "balanced", "identities"]
BatchTransform = Callable[[dict[str, Any], torch.Generator], dict[str, Any]]


class _LateLoader(DataLoader[Any]):
    """A loader that reads the position of the order at the first `next`, not at `iter`.

    Lightning makes the iterator of the first epoch when the length of training is computed (as the schedule
    of an optimizer does), and restores its progress after that.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


class DataModule(lightning.LightningDataModule):
    """Loaders whose order and draws are functions of the seed, for any number of processes and workers.

    The training loader continues at the position of the Trainer's restored progress; evaluation shards
    neither pad nor repeat. Give the Trainer `use_distributed_sampler=False` when it runs several processes.

    Args:
        splits: Readers of the training, validation and test samples.
        batch_size: Samples a batch of one process; the global batch is this times the processes.
        train_transform: Geometry of training samples, in the workers.
        eval_transform: Geometry of evaluation samples.
        collate: Makes a batch of samples; `collate([])` gives a batch without ids.
        batch_transform: Runs on the device over training batches (flip, mixup, ...), with draws that are a
            function of (seed, batches consumed, process).
        seed: Seed of order, draws and the subset of `fraction`.
        fraction: Fraction of the training split that is used; a smaller one takes a part of the samples of a
            larger one.
        workers: Worker processes of each loader; the order and the draws do not depend on it.
        eval_batch_size: Samples an evaluation batch; `batch_size` if not given.
        grouping: Cuts the order into global batches in another way, such as `aspect_groups`.
        sampler: "shuffle": every sample once an epoch; "balanced": every class equally often
            (`BalancedBatchSampler`); "identities": a number of classes with `images_per_class` images each
            in every batch (`IdentityBatchSampler`).
        images_per_class: For "identities".
        gallery: Of an `Embedder`, what images of validation and test are searched among: "split", the others
            of theirs; "train", the whole training split, which is then read in every evaluation, too.

    Raises:
        InputError: Samples are to be balanced, but the reader does not say one class a sample, or a class of
            the data set has none (for "identities": a class has one), or they are to be grouped as well, or
            come from a stream.
    """

    def __init__(
        self,
        splits: Splits,
        *,
        batch_size: int,
        train_transform: Transform,
        eval_transform: Transform,
        collate: Collate,
        batch_transform: BatchTransform | None = None,
        seed: int = 0,
        fraction: float = 1.0,
        workers: int = 0,
        eval_batch_size: int | None = None,
        grouping: Grouping | None = None,
        sampler: SamplerName = "shuffle",
        images_per_class: int = 4,
        gallery: GalleryName = "split",
    ) -> None:
        super().__init__()
        self.splits = splits
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.collate = collate
        self.batch_transform = batch_transform
        self.seed = seed
        self.fraction = fraction
        self.workers = workers
        self.grouping = grouping
        self.train_reader = splits.train if fraction >= 1.0 else subset(splits.train, fraction, seed=seed)
        self.train_data = KeyedDataset(self.train_reader, train_transform, seed=seed)
        self._eval_transform = eval_transform
        if sampler not in get_args(SamplerName):
            raise unknown_name("sampler", str(sampler), get_args(SamplerName))
        if gallery not in get_args(GalleryName):
            raise unknown_name("gallery", str(gallery), get_args(GalleryName))
        self.sampler, self.images_per_class, self.gallery = sampler, images_per_class, gallery
        if sampler != "shuffle" and hasattr(self.train_reader, "shard_numbers"):
            raise InputError(
                f"Expected sampler 'shuffle' for a streamed set, whose samples come shard by shard, but got "
                f"{sampler!r}. Copy the pack to this machine for another order."
            )
        self._labels: list[int] = []
        if sampler != "shuffle":
            self._labels = class_labels(self.train_reader, splits.classes, every=sampler == "balanced")
        self.skip_limit = 0.0
        self.skipped: dict[str, dict[int, str]] = {}

    @property
    def eval_transform(self) -> Transform:
        """The geometry of evaluation samples."""
        return self._eval_transform

    def skip_unreadable(self, *, limit: float = 0.001) -> None:
        """Go on without samples that cannot be read, as long as they are few.

        In training each is replaced by another sample, a function of (seed, epoch, index); evaluation leaves
        them out. The order and the draws of all other samples do not change, for any number of workers and
        processes.

        Args:
            limit: Largest fraction of a split that may be left out; a `DataError` above it names the first.

        Raises:
            InputError: The limit is not in 0 .. 1.
        """
        if not 0 <= limit <= 1:
            raise InputError(expected("the limit of skipped samples", "a fraction in 0 .. 1", limit))
        self.skip_limit = limit
        self.train_data.on_error = "replace"

    def note_skipped(self, entries: Iterable[tuple[str, int, str]]) -> None:
        """Record samples that were left out: split, index, message.

        Raises:
            DataError: More of a split are left out than the limit allows.
        """
        for split, index, message in entries:
            self.skipped.setdefault(split, {})[index] = message
        for split, messages in self.skipped.items():
            ordered = [messages[index] for index in sorted(messages)]
            check_unreadable(ordered, self._split_size(split), self.skip_limit, split=split)

    def skipped_counts(self) -> dict[str, Any]:
        """Return how many samples of each split were left out so far, and which."""
        return {
            split: {"count": len(messages), "of": self._split_size(split), "indices": sorted(messages)}
            for split, messages in sorted(self.skipped.items())
        }

    def train_order(self) -> TrainBatchSampler:
        """Return the order of the training batches of this process."""
        rank, world_size = self._rank_and_world_size()
        common: dict[str, Any] = {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "rank": rank,
            "world_size": world_size,
            "position": None if self.trainer is None else self._consumed,
        }
        if hasattr(self.train_reader, "shard_numbers"):
            reader: Any = self.train_reader
            streamed = {"window": reader.window, "fetch": reader.fetch, "grouping": self.grouping}
            return ShardBatchSampler(reader.shard_numbers, **common, **streamed)
        if self.sampler == "shuffle":
            return TrainBatchSampler(len(self.train_data), **common, grouping=self.grouping)
        if self.grouping is not None:
            raise InputError(f"Expected either a grouping or sampler {self.sampler!r}, but got both.")
        if self.sampler == "balanced":
            return BalancedBatchSampler(self._labels, **common)
        names = self.splits.classes
        return IdentityBatchSampler(
            self._labels, **common, images_per_class=self.images_per_class, names=names
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training loader, which starts at the position of the Trainer's progress."""
        self._refuse_lightning_sampler()
        return self._loader(self.train_data, self.train_order(), "train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this process's part of the validation split, each sample once."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return this process's part of the test split, or of the validation split where there is none."""
        if self.splits.test is None:
            return self.val_dataloader()
        return self._eval_loader("test")

    def eval_reader(self, split: str) -> Reader:
        """Return the samples that an evaluation reads: those of a split, then those of a gallery of its own.

        Args:
            split: "val" or "test".
        """
        reader = self.splits.val if split == "val" or self.splits.test is None else self.splits.test
        return WithGallery(reader, self.splits.train) if self.gallery == "train" else reader

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the loader of `test_dataloader`."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Note what was left out; apply the batch transform on the device, while training only."""
        trainer = self.trainer
        if isinstance(batch, dict) and "skipped" in batch:
            self.note_skipped(batch.pop("skipped"))
        if self.batch_transform is None or trainer is None or not trainer.training:
            return batch
        rank, _ = self._rank_and_world_size()
        return self.batch_transform(
            batch, keyed_generator(self.seed, self._consumed(), rank, Salt.BATCH_TRANSFORM)
        )

    def facts(self) -> dict[str, Any]:
        """Return what a result records of the data: name, classes, sizes, facts, notices and fingerprints."""
        splits = self.splits
        fingerprints = {
            "train": fingerprint(self.train_reader),
            "val": fingerprint(splits.val),
            "test": None if splits.test is None else fingerprint(splits.test),
        }
        return {
            "name": splits.name,
            "classes": list(splits.classes),
            "sizes": {
                "train": len(self.train_data),
                "train_full": len(splits.train),
                "val": len(splits.val),
                "test": 0 if splits.test is None else len(splits.test),
            },
            "facts": dict(splits.facts) | self._gallery_fact(),
            "notices": [notice.as_dict() for notice in splits.notices],
            "fingerprint": fingerprints,
        }

    def order_fingerprint(self, epochs: int = 2) -> str:
        """Return a digest of the global order of the first epochs, to prove that two runs share it."""
        order = self.train_order()
        batches = [order.global_batches(epoch) for epoch in range(epochs)]
        return hashlib.sha256(json.dumps(batches).encode()).hexdigest()[:16]

    def _split_size(self, split: str) -> int:
        if split == "train":
            return len(self.train_data)
        return len(self.eval_reader(split))

    def _gallery_fact(self) -> dict[str, str]:
        if self.gallery == "split":
            return {}
        count = len(self.splits.train)
        return {"gallery": f"images of validation and test are searched among the {count:,} of training"}

    def _eval_loader(self, split: str) -> DataLoader[Any]:
        reader = self.eval_reader(split)
        rank, world_size = self._rank_and_world_size()
        skips = self.train_data.on_error != "raise"
        data = KeyedDataset(
            reader, self._eval_transform, seed=self.seed, on_error="drop" if skips else "raise"
        )
        order = EvalBatchSampler(
            len(reader), batch_size=self.eval_batch_size, rank=rank, world_size=world_size
        )
        return self._loader(data, order, split)

    def _loader(
        self, data: KeyedDataset, order: TrainBatchSampler | EvalBatchSampler, split: str
    ) -> DataLoader[Any]:
        return _LateLoader(
            data,
            batch_sampler=order,
            collate_fn=self.collate if data.on_error == "raise" else SkipUnreadable(self.collate, split),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            multiprocessing_context=worker_context() if self.workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_begin_worker if self.workers else None,
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _consumed(self) -> int:
        # Before the loader is made, it is the index of the batch that comes next.
        return 0 if self.trainer is None else batches_started(self.trainer)

    def _refuse_lightning_sampler(self) -> None:
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return
        if wraps_samplers(trainer):
            raise InputError(
                "This data module splits the samples among processes itself, but the Trainer would wrap its "
                "order in a sampler that pads and repeats. Build it with "
                "Trainer(use_distributed_sampler=False)."
            )


def _begin_worker(worker: int) -> None:
    # Workers share the cores with each other and the main process.
    torch.set_num_threads(1)
    # The main process saves first, and ends them when it ends: neither Ctrl-C nor a signal to the group,
    # as `timeout` and some clusters send it, may end them before.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
