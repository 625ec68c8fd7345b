"""One data module for every task: composed from splits, transforms and a collate, never subclassed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from visionkit.data.order import EvalOrder, Grouping, TrainOrder, keyed_generator
from visionkit.data.splits import Splits, fingerprint, subset
from visionkit.errors import InputError
from visionkit.types import Key, Reader, Sample

__all__ = ["DataModule", "KeyedDataset"]

Transform = Callable[[Sample, torch.Generator], Sample]
BatchTransform = Callable[[dict[str, Any], torch.Generator], dict[str, Any]]
Collate = Callable[[Sequence[Sample]], Mapping[str, Any]]


class KeyedDataset(Dataset[Sample]):
    """A reader seen through a transform whose draws are a function of (seed, epoch, index).

    Args:
        reader: The samples as the files know them.
        transform: Takes a sample and a generator; may draw from that generator only.
        seed: Seed of the draws.
    """

    def __init__(self, reader: Reader, transform: Transform, *, seed: int) -> None:
        self.reader = reader
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key | int) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        return self.transform(self.reader[index], keyed_generator(self.seed, epoch, index))


class _LateLoader(DataLoader[Sample]):
    """A loader whose pass begins with the first batch that is asked for.

    Lightning makes the iterator of the first epoch when anybody asks how long training is (the schedule of an
    optimizer does), and restores its progress after that: the position must not be read before.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


class DataModule(lightning.LightningDataModule):
    """Loaders whose order and draws are functions of the seed, for any number of processes and workers.

    The training loader continues where the Trainer's restored progress says; evaluation shards neither pad
    nor repeat. Give the Trainer `use_distributed_sampler=False` when it runs more than one process.

    Args:
        splits: Readers of the training, validation and test samples.
        batch_size: Samples a batch of one process; the global batch is this times the processes.
        train_transform: Geometry of training samples, in the workers.
        eval_transform: Geometry of evaluation samples.
        collate: Makes a batch of samples; `collate([])` gives a batch without ids.
        batch_transform: Runs on the device over training batches (flip, mixup, ...), with draws that are a
            function of (seed, batches consumed, process).
        seed: Seed of order, draws and the fraction's choice.
        fraction: Share of the training split that is used; a smaller one lies inside a larger one.
        workers: Worker processes of each loader; the order and the draws do not depend on it.
        eval_batch_size: Samples an evaluation batch; `batch_size` if not given.
        grouping: Cuts the order into global batches in another way (aspect ratios).
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

    def train_order(self) -> TrainOrder:
        """Return the order of the training batches of this process."""
        rank, world = self._place()
        return TrainOrder(
            len(self.train_data),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world=world,
            position=None if self.trainer is None else self._consumed,
            grouping=self.grouping,
        )

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return the training loader, which starts where the Trainer's progress stands."""
        self._refuse_lightning_sampler()
        return self._loader(self.train_data, self.train_order())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return this process's share of the validation split, each sample once."""
        return self._eval_loader(self.splits.val)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return this process's share of the test split, or of the validation split where there is none."""
        return self._eval_loader(self.splits.val if self.splits.test is None else self.splits.test)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of `test_dataloader`."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Apply the batch transform on the device, while training only."""
        trainer = self.trainer
        if self.batch_transform is None or trainer is None or not trainer.training:
            return batch
        rank, _ = self._place()
        return self.batch_transform(batch, keyed_generator(self.seed, self._consumed(), rank, 0xBA7C))

    def facts(self) -> dict[str, Any]:
        """Return what a result records of the data: name, sizes, classes, facts and a fingerprint."""
        splits = self.splits
        prints = {
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
            "facts": dict(splits.facts),
            "fingerprint": prints,
        }

    def order_fingerprint(self, epochs: int = 2) -> str:
        """Return a digest of the global order of the first epochs, to prove that two runs share it."""
        order = self.train_order()
        head = [order.global_batches(epoch) for epoch in range(epochs)]
        return hashlib.sha256(json.dumps(head).encode()).hexdigest()[:16]

    def _eval_loader(self, reader: Reader) -> DataLoader[Sample]:
        rank, world = self._place()
        data = KeyedDataset(reader, self._eval_transform, seed=self.seed)
        order = EvalOrder(len(reader), batch_size=self.eval_batch_size, rank=rank, world=world)
        return self._loader(data, order)

    def _loader(self, data: KeyedDataset, order: TrainOrder | EvalOrder) -> DataLoader[Sample]:
        return _LateLoader(
            data,
            batch_sampler=order,
            collate_fn=self.collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread if self.workers else None,
        )

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _consumed(self) -> int:
        # `total.ready` is restored with the loops, before the loader is asked for; it counts this process's
        # batches over all epochs, and stands at the index of the batch that comes next.
        if self.trainer is None:
            return 0
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.total.ready)

    def _refuse_lightning_sampler(self) -> None:
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return
        if trainer._accelerator_connector.use_distributed_sampler:
            raise InputError(
                "This data module shares samples among processes itself, but the Trainer would wrap its "
                "order in a sampler that pads and repeats. Build it with "
                "Trainer(use_distributed_sampler=False)."
            )


def _one_thread(worker: int) -> None:
    # Workers share the cores with each other and the main process.
    torch.set_num_threads(1)
