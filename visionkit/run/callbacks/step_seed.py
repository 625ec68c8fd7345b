"""Random state of a step as a function of (seed, batches consumed, process): none has to be saved."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from visionkit.compat import batches_started
from visionkit.rng import Salt, keyed_seed

__all__ = ["StepSeed"]


class StepSeed(Callback):
    """Seeds torch before every training batch, so that dropout after a resume is the same as without.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators of this process's devices."""
        started = batches_started(trainer)
        seed = keyed_seed(self.seed, started, trainer.global_rank, Salt.STEP)
        if pl_module.device.type == "cpu" and not torch.cuda.is_initialized():
            # Before CUDA is used, torch.manual_seed queues a call with a stack trace for later, every time.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
