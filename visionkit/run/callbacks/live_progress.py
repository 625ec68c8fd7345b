"""The callback that says how far a run is: a line a validation, and states for the bars."""

from __future__ import annotations

import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from visionkit.run.callbacks.metrics_csv import MetricsCSVLogger
from visionkit.run.callbacks.save_checkpoints import SaveCheckpoints
from visionkit.run.feedback.log_file import RunLog
from visionkit.run.feedback.pace import Pace
from visionkit.run.feedback.state import RunState
from visionkit.run.training.schedule_length import ScheduleLength

__all__ = ["LiveProgress"]

_EVERY = 1.0  # seconds between states
_SILENT = 300.0  # seconds without a line, after which there is one without a validation
_WINDOW = 1800.0  # seconds that the speed looks back; validations count as time


class LiveProgress(Callback):
    """Tells `log` how far a run is; goes after the callback that counts the images.

    It reads numbers that are on the host already: what `table` was given, and counts.

    Args:
        name: The name of the run's folder.
        plan: The run's length.
        table: Is given every logged value.
        saver: Knows the best score.
        log: Prints and keeps the lines.
    """

    def __init__(
        self, name: str, plan: ScheduleLength, *, table: MetricsCSVLogger, saver: SaveCheckpoints, log: RunLog
    ) -> None:
        self.name, self.plan, self.table, self.saver, self.run_log = name, plan, table, saver, log
        self._pace = Pace(window=_WINDOW)
        self._began = self._shown = self._line = time.monotonic()
        self._epoch = 0
        self._validated: tuple[int, float | None] | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin to measure."""
        self._pace.add(self.table.images())
        self._began = self._line = time.monotonic()
        self._epoch = trainer.current_epoch + 1  # a run that goes on within an epoch starts none

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print the line of a validation, now that its epoch's means and checkpoints are there."""
        self._print_validation()
        self._epoch = trainer.current_epoch + 1

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Show the state once a second, and a line where there was none for long."""
        self._show("training")
        if time.monotonic() - self._line > _SILENT:
            self._print(self._state("training"))

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Show the state once a second."""
        self._show("validating")

    def on_test_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Show the state once a second."""
        self._show("testing")

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remember what was validated; its line waits for the end of the epoch."""
        self._validated = (self._epoch, self.saver.best_score)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print the line of the last validation, and whether the run ended early."""
        self._print_validation()
        images = self.table.images()
        if images < self.plan.images and trainer.should_stop:
            self.run_log.line(f"stopped early, after {images:,} of {self.plan.images:,} images")

    def _print_validation(self) -> None:
        if self._validated is None:
            return
        (epoch, best), self._validated = self._validated, None
        state = self._state("training", epoch, best=self.saver.best_score != best)
        self.run_log.state(state)
        self._print(state)

    def _print(self, state: RunState) -> None:
        self._line = time.monotonic()
        self.run_log.line(state.line())

    def _show(self, doing: str) -> None:
        now = time.monotonic()
        if now - self._shown >= _EVERY:
            self._shown = now
            self.run_log.state(self._state(doing))

    def _state(self, doing: str, epoch: int = 0, *, best: bool = False) -> RunState:
        images, monitor = self.table.images(), self.saver.monitor[0]
        self._pace.add(images)
        latest = self.table.latest
        return RunState(
            name=self.name,
            epoch=epoch or self._epoch,
            epochs=self.plan.epochs,
            images=images,
            planned=self.plan.images,
            loss=latest.get("train/loss"),
            score=(monitor, latest[monitor]) if monitor in latest else None,
            best=best,
            seconds=time.monotonic() - self._began,
            left=self._pace.left(self.plan.images),
            doing=doing,
        )
