"""All-reduce of gradients in the order of the processes, so that a resume on three or more is exact."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import Callback
from torch.nn.parallel import DistributedDataParallel

from visionkit.distributed import ordered_mean

__all__ = ["DeterministicAllReduce"]


class DeterministicAllReduce(Callback):
    """Makes the mean of the gradients independent of the position of a gradient in its bucket.

    A ring all-reduce adds the parts of a bucket in orders that depend on their position, and DDP rebuilds its
    buckets after the first update, so a resumed run, whose first update is another one, would differ in the
    last bits. Two processes have only one order. Gathering sends `processes - 1` times the gradient an update
    where a ring sends it twice, so this is for CPUs, where processes are few.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Register the communication hook before the first gradient is sent."""
        model = trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            model.register_comm_hook(None, ordered_mean)
