"""A run that is stopped anywhere and started again ends with the same weights, losses and validations."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.run.tiny import TinyTask, tiny_data
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
from visionkit.run.callbacks.step_seed import StepSeed
from visionkit.run.config import RunConfig
from visionkit.run.storage.checkpoint import load_checkpoint, newest_good
from visionkit.run.training.trainer import build_trainer

EPOCHS, STEPS = 3, 7


class StopError(Exception):
    pass


class StopAt(Callback):
    """Raises at the end of the batch, at the start of it, or in validation, like a kill there would."""

    def __init__(self, batch: int, where: str) -> None:
        self.batch, self.where = batch, where

    def _now(self, trainer: lightning.Trainer, where: str) -> None:
        if self.where == where and trainer.fit_loop.epoch_loop.batch_progress.total.ready == self.batch:
            raise StopError

    def on_train_batch_start(self, trainer, *_):
        self._now(trainer, "start")

    def on_train_batch_end(self, trainer, *_):
        self._now(trainer, "end")

    def on_validation_batch_end(self, trainer, *_):
        self._now(trainer, "validation")

    def on_train_epoch_end(self, trainer, *_):
        self._now(trainer, "epoch")


def digest(task: TinyTask) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in task.state_dict().values())).hexdigest()


def go(folder: Path, *, stop=None, workers: int = 0, accumulate: int = 1, every: int = 2, **data) -> TinyTask:
    torch.manual_seed(0)
    task = TinyTask()
    saver = SaveCheckpoints(folder, monitor=task.monitor, every=every)
    config = RunConfig(accelerator="cpu", precision="32-true", progress=False, accumulate=accumulate)
    callbacks = [StepSeed(5), *([stop] if stop else []), saver]
    trainer = build_trainer(config, folder=folder, callbacks=callbacks, max_epochs=EPOCHS)
    resume = newest_good(folder, report=pytest.fail)
    with contextlib.suppress(StopError):
        trainer.fit(task, datamodule=tiny_data(workers=workers, **data), ckpt_path=resume)
    return task


@pytest.fixture(
    scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["plain", "accumulate2"]
)
def reference(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    return request.param, go(folder, accumulate=request.param), load_checkpoint(folder / "best.ckpt")


EVERY = tuple(range(1, EPOCHS * STEPS + 1))
EDGES = (1, 2, 6, 7, 8, 13, 14, 15, 20, 21)  # around the ends of epochs, with and without a checkpoint there


@pytest.mark.parametrize("batches", [EDGES, pytest.param(EVERY, marks=pytest.mark.slow)], ids=len)
def test_every_stop_resumes_bit_for_bit(reference, tmp_path, batches):
    accumulate, whole, best = reference
    losses = {ready: (ids, loss) for ready, ids, loss in whole.seen}
    assert sorted(losses) == list(range(1, EPOCHS * STEPS + 1))
    assert len(whole.validations) == EPOCHS
    stops = [(b, w) for b in batches for w in ("start", "end")]
    stops += [(e * STEPS, w) for e in range(1, EPOCHS + 1) for w in ("validation", "epoch")]
    walked = 0
    for batch, where in stops:
        folder = tmp_path / f"{where}-{batch}"
        first = go(folder, stop=StopAt(batch, where), accumulate=accumulate)
        again = go(folder, accumulate=accumulate)
        name = f"stopped at {where} of batch {batch}"
        assert digest(again) == digest(whole), name
        merged = {ready: (ids, loss) for ready, ids, loss in first.seen}
        for ready, ids, loss in again.seen:
            assert losses[ready] == (ids, loss), name
            merged[ready] = (ids, loss)
        assert merged == losses, name
        assert dict(first.validations) | dict(again.validations) == dict(whole.validations), name
        made = load_checkpoint(folder / "best.ckpt")
        assert made["global_step"] == best["global_step"], name
        walked += 1
    assert walked == 2 * len(batches) + 2 * EPOCHS


def test_workers_change_nothing(reference, tmp_path):
    accumulate, whole, _ = reference
    go(tmp_path, stop=StopAt(10, "end"), workers=2, accumulate=accumulate)
    assert digest(go(tmp_path, workers=2, accumulate=accumulate)) == digest(whole)


@pytest.mark.parametrize("sampler", ["balanced", "identities"])
def test_another_order_resumes_from_within_an_epoch(sampler, tmp_path):
    whole = go(tmp_path / "whole", sampler=sampler)
    first = go(tmp_path / "cut", stop=StopAt(11, "end"), sampler=sampler)
    again = go(tmp_path / "cut", sampler=sampler)
    assert digest(again) == digest(whole)
    assert {ready: (ids, loss) for ready, ids, loss in [*first.seen, *again.seen]} == {
        ready: (ids, loss) for ready, ids, loss in whole.seen
    }
    assert first.seen[-1][0] == 11
    assert again.seen[0][0] == 11, "it goes on from the checkpoint after update 10, of an epoch of 7"
