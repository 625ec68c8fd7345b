"""Gradients of three and more processes, added in the order of the processes, for exact resumes."""

# Annotations stay objects here: torch compares those of a hook with its own types.

from typing import Any, cast

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

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
            model.register_comm_hook(None, _gathered_mean)


def _gathered_mean(
    _: Any,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    mine, world = bucket.buffer(), dist.get_world_size()
    every = mine.new_empty(world * mine.numel())
    work = dist.all_gather_into_tensor(every, mine, async_op=True)

    def add(_: Any) -> Tensor:
        total, *others = every.chunk(world)
        for other in others:
            total += other
        mean: Tensor = total.div_(world)
        return mean

    return cast("torch.futures.Future[Tensor]", cast(Any, work).get_future().then(add))
