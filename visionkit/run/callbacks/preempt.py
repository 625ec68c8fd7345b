"""Preemption: a signal sets a flag, all processes save after the same update, and the run ends."""

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
    therefore seen it when that update ends. No collective is made for it. Who starts the run again is not
    decided here: the program ends with a status of its own, which the batch script or the launcher acts on.

    Args:
        saver: Writes the checkpoint.
    """

    def __init__(self, saver: SaveCheckpoints) -> None:
        self.saver = saver
        self._stop_at: int | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._key = ""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the signals over from Lightning, whose handler saves in the handler."""
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
        """Agree on an update, and stop after it."""
        if update_is_done(trainer):
            self._agree(trainer)
            if self._due(trainer) and at_boundary(trainer):
                self.saver.save_last(trainer)
                self._leave(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop after an epoch whose last update it was: its checkpoint is written, its means are logged."""
        if self._due(trainer):
            self._leave(trainer)

    on_train_end = on_train_epoch_start

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Give the signals back."""
        give_back(self._before)
        self._before = {}

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self.teardown(trainer, pl_module, "fit")

    def _agree(self, trainer: lightning.Trainer) -> None:
        if world_size() == 1:
            if stop_requested():
                self._stop_at = trainer.global_step
            return
        if self._stop_at is not None:
            return
        store = default_store()
        # Look before asking: the signals of a queue come to the processes one after the other, and who asked
        # in the update before this one is seen here by all. Those who ask in the same update ask the same.
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
