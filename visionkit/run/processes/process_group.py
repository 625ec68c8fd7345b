"""A process that trained with others closes their connection before Python itself ends."""

from __future__ import annotations

import atexit
import contextlib
import gc

import torch.distributed as dist

__all__ = ["end_abruptly", "leave", "leave_at_exit"]


def leave_at_exit() -> None:
    """Have this process `leave` when Python ends; call it before the process group is made.

    A thread of gloo that lets go of a tensor needs the interpreter for it. One that comes late, on a busy
    machine, finds the interpreter ending, and the process aborts with signal 6 after all its work.
    """
    # Its functions take the world's group as their default. Imported when there is a group already, they
    # keep that group, and the threads with it, until the process is gone.
    import torch.distributed.nn.functional  # noqa: F401

    atexit.unregister(leave)  # so that it stands there once, however many fits a program makes
    atexit.register(leave)


def end_abruptly() -> None:
    """Have this process end as it is, after an error: a thread may wait for processes that are gone."""
    atexit.unregister(leave)


def leave() -> None:
    """Destroy the process group, if there is one, and wait for its threads to end.

    Whoever holds the group keeps its threads: drop every `DistributedDataParallel` module first.
    """
    gc.collect()  # a wrapped module holds the group and stands in cycles
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # the others are gone
            dist.destroy_process_group()
    gc.collect()
