"""Staged unfreezing: levels begin to train when so many images have been seen."""

from __future__ import annotations

import gc
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

from visionkit.config import TransferConfig
from visionkit.errors import InputError
from visionkit.optim import images_per_step
from visionkit.transfer import freeze_at

__all__ = ["Unfreeze"]


class Unfreeze(Callback):
    """Unfreezes a task's backbone as its `transfer.unfreeze_at` says.

    What is frozen is a function of the images seen (updates times images an update), so nothing is saved, and
    a resume stands where it should. The optimizer holds the groups of all levels from the start; parameters
    without gradients do not move and have no state. Under DDP the task is wrapped anew at each unfreezing,
    because the old wrapper does not know gradients of parameters that were frozen when it was made.
    """

    carries_out = "transfer.unfreeze_at"

    def __init__(self) -> None:
        self._images = 0
        self._frozen: object = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Freeze what is frozen at this point of the run."""
        if isinstance(trainer.strategy, FSDPStrategy):
            raise InputError(
                "Staged unfreezing needs whole weights on each process. Use strategy ddp, or no unfreeze_at."
            )
        self._images = images_per_step(trainer)
        self._frozen = _policy(pl_module).freeze_through
        self._apply(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Unfreeze if it is time."""
        self._apply(trainer, pl_module)

    def _apply(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        wanted = freeze_at(_policy(module), trainer.global_step * self._images)
        # Accumulated batches belong to one update: nothing changes between them.
        if wanted == self._frozen:
            return
        module.backbone.freeze_through(wanted)  # type: ignore[operator, union-attr]
        self._frozen = wanted
        if isinstance(trainer.strategy, DDPStrategy):
            _wrap_anew(trainer.strategy, module)


def _policy(module: lightning.LightningModule) -> TransferConfig:
    transfer = getattr(module, "transfer", None)
    if not isinstance(transfer, TransferConfig):
        raise InputError(
            f"Unfreeze needs a task with `transfer`, but {type(module).__name__} has none. Leave it out."
        )
    return transfer


def _wrap_anew(strategy: DDPStrategy, module: lightning.LightningModule) -> None:
    for parameter in module.parameters():
        # Gradients may be views into the old wrapper's buckets.
        parameter.grad = None
    strategy.model = module
    # The old wrapper's hooks leave the parameters only when it is gone.
    gc.collect()
    strategy.configure_ddp()
