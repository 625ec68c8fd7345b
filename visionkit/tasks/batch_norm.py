"""Running statistics: equal on every process, and batches of one image that would stop them are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torchmetrics import Metric

from visionkit.distributed import world_size
from visionkit.errors import InputError
from visionkit.metrics import RunningSums

__all__ = ["broadcast_buffers", "explained", "min_batch", "probe_one_image"]

StepT = TypeVar("StepT", bound=Callable[..., Any])
_TORCH_MESSAGE = "Expected more than 1 value per channel"


def explained(step: StepT) -> StepT:
    """Name the fix where torch's batch norm refuses a single value a channel in a training step.

    Raises:
        InputError: From the step, in place of the ValueError of torch.
    """

    @functools.wraps(step)
    def inner(*args: Any, **kwargs: Any) -> Any:
        try:
            return step(*args, **kwargs)
        except ValueError as error:
            if _TORCH_MESSAGE not in str(error):
                raise
            raise InputError(_refusal("this batch")) from None

    return inner  # type: ignore[return-value]


def min_batch(trainer: lightning.Trainer, first: int) -> int:
    """Return how many images the smallest training batch of a process holds, as far as its loader knows it.

    Runs that end before the last batch of a loader (`limit_train_batches`, `max_steps`) have no short one.

    Args:
        trainer: Has the training loader.
        first: Images in the first batch: a loader whose samples are batches themselves counts otherwise.
    """
    loader: Any = trainer.train_dataloader
    sampler = getattr(loader, "batch_sampler", None)
    size = getattr(sampler, "batch_size", None)
    source: Any = getattr(sampler, "sampler", None)
    if size != first or getattr(sampler, "drop_last", True) or not hasattr(source, "__len__"):
        return first
    batches, seen = len(loader), int(trainer.num_training_batches)
    if trainer.max_steps > 0:
        seen = min(seen, trainer.max_steps * trainer.accumulate_grad_batches)
    return (len(source) % size or size) if seen >= batches else first


def probe_one_image(module: nn.Module, run: Callable[[], Any], trainer: lightning.Trainer) -> None:
    """Run a network once on one image as in training, and leave everything as it was.

    Args:
        module: What holds the running statistics.
        run: The forward pass of one image.
        trainer: Sharded networks, and norms over several processes, are not tried.

    Raises:
        InputError: Batch norm has one value a channel; the text says what to do.
    """
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        return
    if trainer.world_size > 1 and any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
        return
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        with torch.no_grad(), torch.random.fork_rng(), trainer.precision_plugin.forward_context():
            run()
    except ValueError as error:
        if _TORCH_MESSAGE not in str(error):
            raise
        raise InputError(_refusal("the smallest batch of an epoch")) from None
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def _refusal(what: str) -> str:
    return (
        f"Expected more than one value a channel for batch norm to learn from, but {what} holds one image, "
        "whose coarsest map is one pixel. Use a larger batch (--batch_size), leave a last batch of one out "
        "(DataLoader(drop_last=True)), larger images, or norms that do not look at the batch "
        "(transfer.norm='group'; recipes: --transfer.norm group)."
    )


def broadcast_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers (running statistics): one broadcast for each type.

    Running sums are no buffers, and a strategy that shards parameters moves only parameters and buffers: the
    sums are moved to the module's device here.
    """
    device = getattr(module, "device", None)
    for part in module.modules():
        if isinstance(part, RunningSums | Metric) and device is not None:
            part.to(device)
    if world_size() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for buffer in module.buffers():
        by_type.setdefault(buffer.dtype, []).append(buffer)
    with torch.no_grad():
        for buffers in by_type.values():
            flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.broadcast(flat, 0)
            for buffer, part in zip(buffers, flat.split([buffer.numel() for buffer in buffers])):
                buffer.copy_(part.view(buffer.shape))
