"""Processes that Lightning starts on one machine end with the one that started them, whatever happens."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Any

import lightning
import torch.distributed as dist

from visionkit.errors import RunError

__all__ = ["end_children", "end_with_parent", "lost_processes", "watch_children"]

PARENT = "VISIONKIT_PARENT"
PR_SET_PDEATHSIG = 1
# Launchers whose processes live on after their fit: later fits of the same program use them too.
LAUNCHERS: list[Any] = []
# What the libraries under a collective say when a process at the other end is gone or silent.
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out")


def watch_children(trainer: lightning.Trainer) -> None:
    """Have the processes that `trainer` may start end with this one; call it before they are started."""
    launcher = trainer.strategy.launcher
    if launcher is None or not hasattr(launcher, "procs"):
        return
    if not LAUNCHERS:
        os.environ[PARENT] = str(os.getpid())
        atexit.register(end_children, 60.0)
    LAUNCHERS.append(launcher)


def end_with_parent() -> None:
    """In a process that another one started for a run: have the kernel end it when that one is gone.

    A process that hangs cannot notice it by itself. Only Linux can do this; elsewhere nothing is done.
    """
    if os.environ.get(PARENT) != str(os.getppid()) or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ[PARENT] != str(os.getppid()):  # it went in between
        os._exit(1)


def end_children(patience: float) -> list[str]:
    """Wait for the started processes and end those that do not end by themselves.

    Args:
        patience: Seconds to wait before a process that still runs is killed.

    Returns:
        What became of those that did not end well, such as "process 1 was ended by signal 9".
    """
    told, limit = [], time.monotonic() + patience
    for launcher in LAUNCHERS:
        started: list[subprocess.Popen[Any]] = list(launcher.procs)
        # Lightning's observer kills this process when one of the list failed; now it has nothing to watch.
        launcher.procs.clear()
        for rank, process in enumerate(started, start=1):
            try:
                status = process.wait(timeout=max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                told.append(f"process {rank} did not end and was killed")
                continue
            if status < 0:
                told.append(f"process {rank} was ended by signal {-status}")
            elif status:
                told.append(f"process {rank} ended with status {status}")
    return told


def lost_processes(error: BaseException, trainer: lightning.Trainer, *, timeout: int) -> RunError | None:
    """End the processes that this one started; return what to say if `error` came of another process's end.

    Args:
        error: What ended the fit here.
        trainer: The Trainer that ran it.
        timeout: Seconds that a process waits for the others.
    """
    wished = isinstance(error, RunError)
    told = end_children(60.0 if wished else 2.0)
    if wished or trainer.world_size == 1 or not isinstance(error, RuntimeError):
        return None
    text = str(error).strip()
    if not isinstance(error, dist.DistError) and not any(sign in text for sign in LOST):
        return None
    cause = f" Here {' and '.join(told)}." if told else ""
    first = text.splitlines()[0][:300] if text else type(error).__name__
    return RunError(
        f"Process {trainer.global_rank} of {trainer.world_size} lost the others at update "
        f"{trainer.global_step}: {first}.{cause} A process that failed says why in its own message; one that "
        f"is silent is given up after --timeout {timeout} seconds. The same command continues from the last "
        "checkpoint."
    )
