"""Staged unfreezing: levels of the backbone start to train after a number of images."""

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
    """Unfreezes a task's backbone at the images that its `transfer.unfreeze_at` lists.

    What is frozen is a function of the images seen (updates times images an update), so nothing is saved for
    a resume. The optimizer has the groups of all levels from the start; parameters without gradients do not
    change and have no state. Under DDP the task is wrapped again at each unfreezing, because DDP does not
    reduce gradients of parameters that were frozen when it was constructed.
    """

    carries_out = "transfer.unfreeze_at"

    def __init__(self) -> None:
        self._images = 0
        self._frozen: object = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Freeze what is frozen at this point of the run."""
        if isinstance(trainer.strategy, FSDPStrategy):
            raise InputError(
                "Staged unfreezing needs complete weights on each process. Use strategy ddp, or no "
                "unfreeze_at."
            )
        self._images = images_per_step(trainer)
        self._frozen = _policy(pl_module).freeze_through
        self._apply(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Unfreeze if it is due."""
        self._apply(trainer, pl_module)

    def _apply(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        freeze_through = freeze_at(_policy(module), trainer.global_step * self._images)
        # Accumulated batches belong to one update: nothing changes between them.
        if freeze_through == self._frozen:
            return
        module.backbone.freeze_through(freeze_through)  # type: ignore[operator, union-attr]
        self._frozen = freeze_through
        if isinstance(trainer.strategy, DDPStrategy):
            _rewrap(trainer.strategy, module)


def _policy(module: lightning.LightningModule) -> TransferConfig:
    transfer = getattr(module, "transfer", None)
    if not isinstance(transfer, TransferConfig):
        raise InputError(
            f"Unfreeze needs a task with `transfer`, but {type(module).__name__} has none. Leave it out."
        )
    return transfer


def _rewrap(strategy: DDPStrategy, module: lightning.LightningModule) -> None:
    for parameter in module.parameters():
        # Gradients may be views into the old wrapper's buckets.
        parameter.grad = None
    strategy.model = module
    # The hooks of the old wrapper are removed only when it is collected.
    gc.collect()
    strategy.configure_ddp()
