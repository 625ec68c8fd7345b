"""Several processes of a test as one process group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from visionkit.run.processes.lifetime import destroy_group, destroy_group_at_exit, keep_group_at_exit


@contextmanager
def together(folder: str | Path, rank: int, world: int) -> Iterator[None]:
    """Be process `rank` of `world` that meet in a folder; afterwards none of the group's threads is left."""
    destroy_group_at_exit()
    meet = f"file://{folder}/meet-{world}"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world)
    try:
        yield
    except BaseException:
        keep_group_at_exit()
        raise
    dist.barrier()
    destroy_group()


def gloo_threads() -> list[str]:
    """The names of this process's threads that belong to gloo; on systems without /proc none are seen."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]
    return [name for name in names if "gloo" in name]
