"""One data module for every task: composed from splits, transforms and a collate, never subclassed."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from visionkit.compat import batches_started, wraps_samplers
from visionkit.data.samplers import EvalOrder, Grouping, TrainOrder
from visionkit.data.splits import Splits, fingerprint, subset
from visionkit.errors import DataError, InputError, expected
from visionkit.rng import Salt, keyed_generator, keyed_seed
from visionkit.types import Key, Reader, Sample

__all__ = ["DataModule", "Faulty", "KeyedDataset"]

Transform = Callable[[Sample, torch.Generator], Sample]
BatchTransform = Callable[[dict[str, Any], torch.Generator], dict[str, Any]]
Collate = Callable[[Sequence[Sample]], Mapping[str, Any]]
OnFault = Literal["raise", "replace", "drop"]

_TRIES = 16


class Faulty(NamedTuple):
    """A sample that could not be read: its index, why, and what stands in for it (None: it is left out)."""

    index: int  # type: ignore[assignment]  # a field, as in `Key`
    text: str
    sample: Sample | None


class KeyedDataset(Dataset[Any]):
    """A reader seen through a transform whose draws are a function of (seed, epoch, index).

    Args:
        reader: The samples as the files know them.
        transform: Takes a sample and a generator; may draw from that generator only.
        seed: Seed of the draws.
        on_fault: What a sample that cannot be read does: "raise" its `DataError`, "replace" it by one that is
            a function of (seed, epoch, index) too, or "drop" it. The last two give a `Faulty`.
    """

    def __init__(
        self, reader: Reader, transform: Transform, *, seed: int, on_fault: OnFault = "raise"
    ) -> None:
        self.reader = reader
        self.transform = transform
        self.seed = seed
        self.on_fault = on_fault

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key | int) -> Sample | Faulty:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        try:
            return self.transform(self.reader[index], keyed_generator(self.seed, epoch, index))
        except DataError as fault:
            if self.on_fault == "raise":
                raise
            return Faulty(index, str(fault), self._stand_in(epoch, index, fault))

    def _stand_in(self, epoch: int, index: int, fault: DataError) -> Sample | None:
        if self.on_fault == "drop":
            return None
        for attempt in range(_TRIES):
            other = keyed_seed(self.seed, epoch, index, attempt, Salt.RETRY) % len(self.reader)
            try:
                return self.transform(self.reader[other], keyed_generator(self.seed, epoch, index))
            except DataError:
                continue
        raise DataError(
            f"{fault.message} None of {_TRIES} others that were to stand in for it could be read either.",
            path=fault.path,
            record=fault.record,
            field=fault.field,
        ) from fault


class _Gather:
    """A collate that puts the readable samples into a batch, and says under "skipped" which were not."""

    def __init__(self, collate: Collate, split: str) -> None:
        self.collate = collate
        self.split = split

    def __call__(self, samples: Sequence[Sample | Faulty]) -> Mapping[str, Any]:
        faults = [(self.split, sample.index, sample.text) for sample in samples if isinstance(sample, Faulty)]
        kept = [sample.sample if isinstance(sample, Faulty) else sample for sample in samples]
        batch = self.collate([sample for sample in kept if sample is not None])
        return {**batch, "skipped": faults} if faults else batch


class _LateLoader(DataLoader[Any]):
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
        self.skip_limit = 0.0
        self.skipped: dict[str, dict[int, str]] = {}

    def skip_faulty(self, *, limit: float = 0.001) -> None:
        """Go on without samples that cannot be read, as long as they are few.

        In training another sample stands in, a function of (seed, epoch, index); evaluation leaves them out.
        So order and draws of all others stay as they are, for any number of workers and processes.

        Args:
            limit: Largest share of a split that may be left out; a `DataError` beyond it names the first.

        Raises:
            InputError: The limit is no share.
        """
        if not 0 <= limit <= 1:
            raise InputError(expected("the limit of skipped samples", "a share in 0 .. 1", limit))
        self.skip_limit = limit
        self.train_data.on_fault = "replace"

    def note_skipped(self, entries: Iterable[tuple[str, int, str]]) -> None:
        """Remember samples that were left out: split, index, why.

        Raises:
            DataError: More of a split are left out than the limit allows.
        """
        for split, index, text in entries:
            self.skipped.setdefault(split, {})[index] = text
            found, size = self.skipped[split], self._split_size(split)
            if len(found) > self.skip_limit * size:
                shown = "\n".join(f"  {found[place]}" for place in sorted(found)[:5])
                raise DataError(
                    f"Expected at most {self.skip_limit:.2%} of the {size} {split} samples to be unreadable, "
                    f"but {len(found)} are. `visionkit check` names all faults; repair or remove them, or "
                    f"raise the limit:\n{shown}"
                )

    def skipped_counts(self) -> dict[str, Any]:
        """Return how many samples of each split were left out so far, and which."""
        return {
            split: {"count": len(found), "of": self._split_size(split), "indices": sorted(found)}
            for split, found in sorted(self.skipped.items())
        }

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

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training loader, which starts where the Trainer's progress stands."""
        self._refuse_lightning_sampler()
        return self._loader(self.train_data, self.train_order(), "train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the validation split, each sample once."""
        return self._eval_loader(self.splits.val, "val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the test split, or of the validation split where there is none."""
        if self.splits.test is None:
            return self.val_dataloader()
        return self._eval_loader(self.splits.test, "test")

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
        rank, _ = self._place()
        return self.batch_transform(
            batch, keyed_generator(self.seed, self._consumed(), rank, Salt.BATCH_TRANSFORM)
        )

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
            "notices": [notice.as_dict() for notice in splits.notices],
            "fingerprint": prints,
        }

    def order_fingerprint(self, epochs: int = 2) -> str:
        """Return a digest of the global order of the first epochs, to prove that two runs share it."""
        order = self.train_order()
        head = [order.global_batches(epoch) for epoch in range(epochs)]
        return hashlib.sha256(json.dumps(head).encode()).hexdigest()[:16]

    def _split_size(self, split: str) -> int:
        if split == "train":
            return len(self.train_data)
        reader = self.splits.val if split == "val" else self.splits.test
        return 0 if reader is None else len(reader)

    def _eval_loader(self, reader: Reader, split: str) -> DataLoader[Any]:
        rank, world = self._place()
        skips = self.train_data.on_fault != "raise"
        data = KeyedDataset(
            reader, self._eval_transform, seed=self.seed, on_fault="drop" if skips else "raise"
        )
        order = EvalOrder(len(reader), batch_size=self.eval_batch_size, rank=rank, world=world)
        return self._loader(data, order, split)

    def _loader(self, data: KeyedDataset, order: TrainOrder | EvalOrder, split: str) -> DataLoader[Any]:
        return _LateLoader(
            data,
            batch_sampler=order,
            collate_fn=self.collate if data.on_fault == "raise" else _Gather(self.collate, split),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_begin_worker if self.workers else None,
        )

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _consumed(self) -> int:
        # Before the loader is asked for, it is the index of the batch that comes next.
        return 0 if self.trainer is None else batches_started(self.trainer)

    def _refuse_lightning_sampler(self) -> None:
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return
        if wraps_samplers(trainer):
            raise InputError(
                "This data module shares samples among processes itself, but the Trainer would wrap its "
                "order in a sampler that pads and repeats. Build it with "
                "Trainer(use_distributed_sampler=False)."
            )


def _begin_worker(worker: int) -> None:
    # Workers share the cores with each other and the main process.
    torch.set_num_threads(1)
    # Ctrl-C reaches them too: the main process saves first, and ends them when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
