"""The callbacks that a run needs for its settings: early stopping, averaged weights, staged unfreezing."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import Callback

from visionkit.config import TransferConfig
from visionkit.run.callbacks.stop_without_gain import StopWithoutGain
from visionkit.run.config import RunConfig

__all__ = ["monitor_of", "task_callbacks"]


def monitor_of(task: lightning.LightningModule) -> tuple[str, str]:
    """Return the logged name that decides, and "max" or "min"; "val/loss" of a module that names none."""
    monitor: tuple[str, str] = getattr(task, "monitor", ("val/loss", "min"))
    return monitor


def task_callbacks(config: RunConfig, task: lightning.LightningModule) -> list[Callback]:
    """Return the callbacks for a run's settings.

    Args:
        config: The settings.
        task: The task that is trained.
    """
    from visionkit.run.callbacks.ema import EMA
    from visionkit.run.callbacks.unfreeze import Unfreeze

    made: list[Callback] = []
    if config.patience:
        made.append(StopWithoutGain(monitor_of(task), config.patience))
    if config.optim.ema:
        made.append(EMA(config.optim.ema))
    transfer = getattr(task, "transfer", None)
    if isinstance(transfer, TransferConfig) and transfer.unfreeze_at:
        made.append(Unfreeze())
    return made
