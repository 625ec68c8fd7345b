"""Gradients of three and more processes, added in the order of the processes, for exact resumes."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import Callback
from torch.nn.parallel import DistributedDataParallel

from visionkit.distributed import ordered_mean

__all__ = ["OrderedSum"]


class OrderedSum(Callback):
    """Makes the mean of the gradients independent of where in a bucket a gradient lies.

    A ring adds the parts of a bucket in orders that depend on their place in it, and data-parallel training
    lays its buckets out anew after the first update, so a resumed run, whose first update is another one,
    would end with other last bits. Two processes have only one order. Gathering costs `processes - 1` times
    the gradient an update where a ring costs twice, so it is for CPUs, where processes are few.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Replace the all-reduce of the gradients before the first of them is sent."""
        model = trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            model.register_comm_hook(None, ordered_mean)
