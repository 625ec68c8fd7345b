"""The processes of a run end together: with their parent, with a rank that failed or hangs, in good order."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import lightning
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from visionkit.compat import default_store, started_processes
from visionkit.distributed import has_process_group, world_size
from visionkit.errors import RunError, first_line
from visionkit.run.processes.launcher import store_key

__all__ = [
    "RankWatchdog",
    "destroy_group",
    "destroy_group_at_exit",
    "die_with_launcher",
    "die_with_parent",
    "end_ranks",
    "keep_group_at_exit",
    "lost_ranks",
    "watch_ranks",
]

PARENT = "VISIONKIT_PARENT"
PR_SET_PDEATHSIG = 1
PARENT_POLL = 0.5  # seconds
# Launchers of Trainers, whose processes live on after their fit: later fits of the program use them too.
LAUNCHERS: list[Any] = []
# What errors of a collective hold when a process at the other end is gone or silent.
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out")
FITS = itertools.count()
STORE_POLL = 1.0  # seconds
GRACE = 5.0  # seconds that a process which lost the others needs to report it and to end by itself


def die_with_parent(parent: int) -> None:
    """Have this process end as soon as its parent is gone, also where it hangs.

    Linux's kernel does it; elsewhere a thread asks for the parent every half second.

    Args:
        parent: The number of the process that started this one.
    """
    try:
        armed = ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0
    except (OSError, AttributeError, TypeError):  # not Linux
        armed = False
    if os.getppid() != parent:  # it ended in between
        os._exit(1)
    if not armed:
        threading.Thread(target=_poll_parent, args=(parent,), daemon=True).start()


def _poll_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL)
    os._exit(1)


def watch_ranks(trainer: lightning.Trainer) -> None:
    """Have the processes that `trainer` starts end with this one; call it before they are started."""
    launcher = trainer.strategy.launcher
    if started_processes(launcher) is None:
        return
    if not LAUNCHERS:
        os.environ[PARENT] = str(os.getpid())
        atexit.register(end_ranks, 60.0)
    LAUNCHERS.append(launcher)


def die_with_launcher() -> None:
    """`die_with_parent` in a process that another one's `watch_ranks` announced; nothing in any other."""
    if os.environ.get(PARENT) == str(os.getppid()):
        die_with_parent(os.getppid())


def end_ranks(patience: float) -> list[str]:
    """Wait for the started processes and end those that do not end by themselves.

    Args:
        patience: Seconds to wait before a process that still runs is killed.

    Returns:
        What became of those that did not end well, such as "process 1 was ended by signal 9".
    """
    endings, limit = [], time.monotonic() + patience
    for launcher in LAUNCHERS:
        processes = started_processes(launcher) or []
        started: list[subprocess.Popen[Any]] = list(processes)
        processes.clear()  # Lightning's observer now has nothing to watch
        for rank, process in enumerate(started, start=1):
            try:
                status = process.wait(timeout=max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                endings.append(f"process {rank} did not end and was killed")
                continue
            if status < 0:
                endings.append(f"process {rank} was ended by signal {-status}")
            elif status:
                endings.append(f"process {rank} ended with status {status}")
    return endings


def lost_ranks(error: BaseException, trainer: lightning.Trainer, *, timeout: int) -> RunError | None:
    """End the processes that this one started; return the error to raise if `error` came of another's end.

    Args:
        error: What ended the fit here.
        trainer: The Trainer that ran it.
        timeout: Seconds that a process waits for the others.
    """
    agreed = isinstance(error, RunError)
    endings = end_ranks(60.0 if agreed else 2.0)
    if agreed or trainer.world_size == 1 or not isinstance(error, RuntimeError):
        return None
    if not isinstance(error, dist.DistError) and not any(sign in str(error) for sign in LOST):
        return None
    cause = f" Here {' and '.join(endings)}." if endings else ""
    return RunError(
        f"Process {trainer.global_rank} of {trainer.world_size} lost the others at update "
        f"{trainer.global_step}: {first_line(error, limit=300)}.{cause} A process that failed says why in "
        f"its own message; one that is silent is given up after --timeout {timeout} seconds. The same "
        "command continues from the last checkpoint."
    )


def destroy_group_at_exit() -> None:
    """Have this process destroy its process group when Python ends; call it before the group is made.

    A thread of gloo that lets go of a tensor needs the interpreter for it. One that comes late, on a busy
    machine, meets an interpreter that ends, and the process aborts with signal 6 after all its work:
    https://github.com/pytorch/pytorch/pull/179291
    """
    # Its functions take the world's group as their default. Imported when there is a group already, they
    # keep that group, and the threads with it, until the process is gone.
    import torch.distributed.nn.functional  # noqa: F401

    keep_group_at_exit()  # registered once, however many fits a program makes
    atexit.register(destroy_group)


def keep_group_at_exit() -> None:
    """Undo `destroy_group_at_exit`, after an error: a thread may wait for processes that are gone."""
    atexit.unregister(destroy_group)


def destroy_group() -> None:
    """Destroy the process group, if there is one, and wait for its threads to end.

    Whoever holds the group keeps its threads: drop every `DistributedDataParallel` module first.
    """
    gc.collect()  # a wrapped module holds the group and is in reference cycles
    if has_process_group():
        with contextlib.suppress(RuntimeError):  # the others are gone
            dist.destroy_process_group()
    gc.collect()


class RankWatchdog(Callback):
    """Ends this process when it hangs and another one has timed out waiting for it.

    A process that waits in vain for the others writes so into the process group's key-value store before it
    ends. One that hangs cannot read it where it hangs, and a launcher may leave it half a minute more after
    it asked it to end: a thread reads the store once a second, says on stderr what happened and leaves with
    status 1. No collective is made for it, and nothing on a single process.
    """

    def __init__(self) -> None:
        self._store: Any = None
        self._key = ""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start to watch."""
        self._key = store_key("lost", next(FITS))
        self._over.clear()
        if world_size() == 1:
            return
        # A connection of its own: nothing waits for an answer that the training waits for.
        self._store = default_store().clone()
        self._thread = threading.Thread(
            target=self._watch, args=(trainer.global_rank,), name="visionkit-watchdog", daemon=True
        )
        self._thread.start()

    def give_up(self, rank: int) -> None:
        """Tell the others that this process has lost them and ends.

        Args:
            rank: This process.
        """
        self._over.set()
        if self._store is not None:
            # Without the process that keeps the store nobody could read it either.
            with contextlib.suppress(RuntimeError):
                self._store.set(self._key, str(rank))

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Stop watching."""
        self._stop()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Stop watching: this process ends by itself."""
        self._stop()

    def _stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            # An interpreter that ends around a thread inside the store's own code aborts. A store that is
            # gone answers late: that is not waited for.
            self._thread.join(timeout=STORE_POLL)
            self._thread = None

    def _watch(self, rank: int) -> None:
        while not self._over.wait(STORE_POLL):
            try:
                if not self._store.check([self._key]):
                    continue
                by = f"process {self._store.get(self._key).decode()} has given it up"
            except RuntimeError:
                by = "the process that started the run is gone"
            if self._over.wait(GRACE):
                return
            sys.stderr.write(f"\nProcess {rank} is silent, and {by}: it ends here.\n")
            sys.stderr.flush()
            os._exit(1)
