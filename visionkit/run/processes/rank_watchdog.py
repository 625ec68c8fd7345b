"""A process that hangs is ended once the others have given it up, whoever started it."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from typing import Any

import lightning
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from visionkit.run.processes.launcher import store_key

__all__ = ["PeerWatch"]

FITS = itertools.count()
EVERY = 1.0
# What a process that has lost the others needs to say so and to end by itself.
GRACE = 5.0


class PeerWatch(Callback):
    """Watches, beside the training, whether another process has given this one up, and then ends it.

    A process that waits in vain for the others writes so into the process group's key-value store before it
    ends. One that hangs cannot act on it where it hangs, and a launcher may leave it half a minute more after
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
        if trainer.world_size == 1 or not (dist.is_available() and dist.is_initialized()):
            return
        # A connection of its own: nothing waits for an answer that the training waits for.
        self._store = dist.distributed_c10d._get_default_store().clone()
        self._thread = threading.Thread(
            target=self._watch, args=(trainer.global_rank,), name="visionkit-peers", daemon=True
        )
        self._thread.start()

    def give_up(self, rank: int) -> None:
        """Tell the others that this process has lost them and ends.

        Args:
            rank: This process.
        """
        self._over.set()
        if self._store is None:
            return
        try:
            self._store.set(self._key, str(rank))
        except RuntimeError:  # the process that keeps the store is gone, and with it whoever could read
            return

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
            self._thread.join(timeout=EVERY)
            self._thread = None

    def _watch(self, rank: int) -> None:
        while not self._over.wait(EVERY):
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
