"""Preemption: after a signal all processes save a checkpoint after the same update, and the run ends."""

from __future__ import annotations

import itertools
import signal
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from visionkit.compat import default_store, update_is_done
from visionkit.distributed import world_size
from visionkit.errors import PreemptedError
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints, at_boundary
from visionkit.run.processes.launcher import store_key
from visionkit.run.processes.stop import asked_by_keyboard, give_back, listen, request_stop, stop_requested

__all__ = ["Preemption"]

FITS = itertools.count()


class Preemption(Callback):
    """Turns SIGTERM, SIGUSR1 and the first Ctrl-C into a checkpoint after the same update on all processes.

    A process that was signalled writes the number of the next update into the process group's key-value
    store before it joins that update's gradients; every process reads the store after each update, and has
    therefore seen it when that update ends. This needs no collective. Restarting is left to the batch script
    or the launcher, which acts on the exit status.

    Args:
        saver: Writes the checkpoint.
    """

    def __init__(self, saver: SaveCheckpoints) -> None:
        self.saver = saver
        self._stop_at: int | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._key = ""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Install the signal handlers in place of Lightning's, which save inside the handler."""
        self._key = store_key("stop", next(FITS))
        self._before = listen(keyboard=True)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Agree on the update to stop after, and stop there."""
        if update_is_done(trainer):
            self._agree(trainer)
            if self._due(trainer) and at_boundary(trainer):
                self.saver.save_last(trainer)
                self._leave(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop between epochs if it was due at the last update: its checkpoint is written."""
        if self._due(trainer):
            self._leave(trainer)

    on_train_end = on_train_epoch_start

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Restore the signal handlers."""
        give_back(self._before)
        self._before = {}

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Restore the signal handlers."""
        self.teardown(trainer, pl_module, "fit")

    def _agree(self, trainer: lightning.Trainer) -> None:
        if world_size() == 1:
            if stop_requested():
                self._stop_at = trainer.global_step
            return
        if self._stop_at is not None:
            return
        store = default_store()
        # Read before writing: a queue signals the processes one after the other, and a request of the update
        # before this one is seen by all here. Processes that write in the same update write the same.
        if store.check([self._key]):
            self._stop_at = int(store.get(self._key))
        elif stop_requested():
            self._stop_at = trainer.global_step + 1
            store.set(self._key, str(self._stop_at))

    def _due(self, trainer: lightning.Trainer) -> bool:
        return self._stop_at is not None and trainer.global_step >= self._stop_at

    def _leave(self, trainer: lightning.Trainer) -> None:
        keyboard = asked_by_keyboard()
        request_stop(False)
        error = PreemptedError(
            f"{'Interrupted by the keyboard' if keyboard else 'Asked to stop'}: saved after update "
            f"{trainer.global_step} in {self.saver.folder}. Start the same command again to continue."
        )
        error.by_keyboard = keyboard
        raise error
