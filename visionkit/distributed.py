"""Sums and gathers over the processes of a run; each does nothing special where there is one process."""

# Annotations stay objects here: torch compares those of `ordered_mean`, a communication hook, with its types.

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "all_gather_objects",
    "all_reduce",
    "gather_rows",
    "gather_with_gradients",
    "has_process_group",
    "ordered_mean",
    "rank",
    "widest_float",
    "world_size",
]


def has_process_group() -> bool:
    """Return whether this process has joined a process group, be it one of a single process."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Return the number of processes; 1 without a process group."""
    return dist.get_world_size() if has_process_group() else 1


def rank() -> int:
    """Return the number of this process; 0 without a process group."""
    return dist.get_rank() if has_process_group() else 0


def all_reduce(values: Tensor) -> Tensor:
    """Sum `values` over all processes in place, and return them."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def widest_float(device: torch.device) -> torch.dtype:
    """Return the type that sums are kept in: float64, or float32 on Apple's devices, which have no float64.

    There counts stay exact up to 2**24.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def all_gather_objects(value: Any) -> list[Any]:
    """Return the values (anything that can be pickled) of all processes on all of them, in order."""
    values: list[Any] = [value] * world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes on the host, in the order of the processes.

    Args:
        rows: `(n, K)` on the process's device; `n` may differ between processes and be 0.

    Returns:
        `(N, K)` on the host. Two collectives: the numbers of rows, then the rows padded to the longest.
    """
    world = world_size()
    if world == 1:
        return rows.cpu()
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world)]
    dist.all_gather(counts, count)
    sizes = [int(size) for size in torch.cat(counts).tolist()]
    padded = rows.new_zeros((max(sizes), rows.shape[1]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes)]).cpu()


def gather_with_gradients(rows: Tensor) -> Tensor:
    """Return the rows of all processes on each of them, in the order of the processes, with gradients.

    For a loss of all rows that every process computes alike, and whose parameters get the mean of the
    gradients of the processes (`DistributedDataParallel`): a process's rows get the gradient of the loss
    times the number of processes, so that the mean is the gradient that one process would have.

    Args:
        rows: `(n, K)` on the process's device, of one shape on all processes.

    Returns:
        `(N, K)`. One collective, and none for the gradients.
    """
    return rows if world_size() == 1 else cast(Tensor, _Gather.apply(rows))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        start = rank() * ctx.count
        return gradient[start : start + ctx.count] * world_size()


def ordered_mean(
    _: Any,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Communication hook of `DistributedDataParallel`: the mean, added in the order of the processes.

    The sum of a ring all-reduce depends on where in a bucket a gradient lies; this one does not.
    """
    mine, world = bucket.buffer(), dist.get_world_size()
    gathered = mine.new_empty(world * mine.numel())
    work = dist.all_gather_into_tensor(gathered, mine, async_op=True)

    def add(_: Any) -> Tensor:
        total, *others = gathered.chunk(world)
        for other in others:
            total += other
        mean: Tensor = total.div_(world)
        return mean

    return cast("torch.futures.Future[Tensor]", cast(Any, work).get_future().then(add))
