"""How fast a run would be here: some steps of it, timed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from visionkit.data.datamodule import DataModule
from visionkit.run.config import RunConfig
from visionkit.run.processes.launcher import find_processes
from visionkit.run.training.device_policy import choose_policy
from visionkit.run.training.schedule_length import schedule_length
from visionkit.run.training.trainer import build_trainer

__all__ = ["measure_speed"]

WARM, STEPS = 3, 20
VALIDATION_STEPS = 4
MAX_SECONDS = 60.0  # after which no more steps are timed, where they are slow


def measure_speed(config: RunConfig, task: lightning.LightningModule, data: DataModule) -> dict[str, float]:
    """Return the speed of some steps of a run; no result is written, and its weights are of no more use.

    After a few steps that are not counted, 20 are, and then some of validation.

    Args:
        config: One run's settings.
        task: The task.
        data: Its data.

    Returns:
        "entered": when this was called, by the monotonic clock; "images_per_second" and
        "val_images_per_second", over all processes; "train_size" (all of the training split), "val_size" and
        "test_size", in images; "world", the processes.
    """
    entered = time.monotonic()
    policy = choose_policy(config, task)
    processes = find_processes(config, accelerator=policy.accelerator)
    plan = schedule_length(config, data, processes.world)
    if policy.channels_last:
        task.to(memory_format=torch.channels_last)
    timer = _Timer()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = build_trainer(
            config,
            folder=Path(scratch),
            policy=policy,
            processes=processes,
            callbacks=[timer],
            max_epochs=plan.epochs,  # the whole length, which schedules are made for
            validate_every=plan.epochs + 1,
            progress=False,
        )
        trainer.fit(task, datamodule=data)
        trainer.limit_val_batches = VALIDATION_STEPS
        trainer.validate(task, datamodule=data, verbose=False)
    size, world = data.eval_batch_size, processes.world
    val_size = len(data.eval_reader("val"))  # with the gallery, which is read too
    val_batch = min(size, -(-val_size // world))
    return {
        "entered": entered,
        "images_per_second": plan.images_per_batch / timer.seconds("train", WARM),
        "val_images_per_second": val_batch * world / timer.seconds("validation", 1),
        "train_size": float(len(data.splits.train)),
        "val_size": float(val_size),
        "test_size": float(0 if data.splits.test is None else len(data.eval_reader("test"))),
        "world": float(world),
    }


class _Timer(Callback):
    """Notes when each batch ends, and stops the training after enough of them."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {"train": [], "validation": []}

    def seconds(self, part: str, skipped: int) -> float:
        """Return the seconds of a batch, without the first `skipped` where there are more than these."""
        times = self.times[part]
        first = min(skipped, max(0, len(times) - 2))
        return max((times[-1] - times[first]) / max(1, len(times) - 1 - first), 1e-9)

    def _note(self, part: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times[part].append(time.monotonic())

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note the beginning."""
        self._note("train")

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note the end of a batch; end the training after the last that is timed."""
        self._note("train")
        times = self.times["train"]
        if len(times) > WARM + STEPS or (len(times) > WARM + 1 and times[-1] - times[0] > MAX_SECONDS):
            trainer.should_stop = True

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note the beginning."""
        self._note("validation")

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the end of a batch."""
        self._note("validation")
