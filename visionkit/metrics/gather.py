"""Rows of all processes on all processes, for scores that no running sum can give."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_rows"]


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes on the host, in the order of the processes.

    Args:
        rows: `(n, K)` on the process's device; `n` may differ between processes and be 0.

    Returns:
        `(N, K)` on the host. Two collectives: the numbers of rows, then the rows padded to the longest.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows.cpu()
    world = dist.get_world_size()
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world)]
    dist.all_gather(counts, count)
    sizes = [int(size) for size in torch.cat(counts).tolist()]
    padded = rows.new_zeros((max(sizes), rows.shape[1]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes)]).cpu()
