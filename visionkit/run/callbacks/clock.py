"""The callback that counts the images of a run and measures its speed; the table of values goes by it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from visionkit.compat import batches_started
from visionkit.run.callbacks.metrics_csv import MetricsCSVLogger

__all__ = ["Clock"]


class Clock(Callback):
    """Counts images seen, exactly, and the images a second of the training steps; keeps the table by them.

    Args:
        path: The table, `metrics.csv`.

    Attributes:
        table: The logger that writes it.
        images: Images seen.
        speed: Images a second of the training steps, without validations.
    """

    def __init__(self, path: str | Path) -> None:
        self.table = MetricsCSVLogger(path, images=lambda: self.images, rates=self.rates)
        self.images = 0
        self.speed = 0.0
        self._spent = 0.0
        self._timed = 0
        self._since: float | None = None
        self._width = 0
        self._groups: list[dict[str, Any]] = []
        self._rates: list[Any] = []

    def rates(self) -> dict[str, float]:
        """Return the learning rates of the latest update, by "lr/head", "lr/backbone" and so on."""
        # Groups without decay have the rate of those with.
        return {
            f"lr/{str(group.get('name', index)).removesuffix('/no decay')}": float(rate)
            for index, (group, rate) in enumerate(zip(self._groups, self._rates, strict=True))
        }

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Count what an earlier start has trained, and drop what the table has of later."""
        self._groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        self._keep_rates()
        order = trainer.datamodule.train_order()  # type: ignore[attr-defined]
        self._width = order.batch_size * order.world_size
        self._count(trainer)
        self.table.rewind(self.images)

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Begin to measure."""
        self._keep_rates()
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Count the batch and its time."""
        self._count(trainer)
        self._timed += self._width
        self._tick()

    def on_validation_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Stop measuring."""
        self._tick()
        self._since = None

    def finish(self, planned: int) -> None:
        """Count all images of a run that had ended before, of which only the result was missing.

        Args:
            planned: The images of the whole run.
        """
        if not self.images:
            self.images = planned
            self.table.rewind(planned)

    def _keep_rates(self) -> None:
        # Before the update: after it the schedule has set those of the next.
        self._rates = [group["lr"] for group in self._groups]

    def _count(self, trainer: lightning.Trainer) -> None:
        self.images = batches_started(trainer) * self._width

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._since is not None:
            self._spent += now - self._since
        self._since = now
        self.speed = self._timed / self._spent if self._spent else 0.0
