"""Exponential moving average (EMA) of the weights: validated, saved, and exact after a resume."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor

from visionkit.compat import lerp_all
from visionkit.errors import InputError, expected
from visionkit.optim import images_per_step

__all__ = ["EMA", "lerp_weight"]


class EMA(Callback):
    """Averages weights and running statistics, and swaps the average in for validation, test and checkpoints.

    A checkpoint's `state_dict` is the average, so that it holds what was validated; the training weights are
    under `ema` for the resume (a checkpoint of weights only holds the training weights). When the fit ends
    the task has the average.

    Not built on Lightning's `WeightAveraging`, with which a resume is not exact: saved during a validation, a
    checkpoint of it has the two sets of weights exchanged, and one that is saved once training has ended has
    the average as the training weights too. (Lightning 2.6; a test says when that changes.)

    Args:
        decay: Decay of the average per 32 images seen, independent of batch size and devices. Early on it is
            smaller: `(1 + n) / (10 + n)` after `n` times 32 images.

    Raises:
        InputError: The decay is not between 0 and 1, or (when the fit starts) the weights are sharded.
    """

    carries_out = "optim.ema"

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise InputError(expected("the decay of the moving average", "above 0 and below 1", decay))
        self.decay = decay
        self.average: dict[str, Tensor] | None = None
        self._live: dict[str, Tensor] = {}
        self._first_names: dict[str, str] = {}
        self._swapped = False
        self._step = 0
        self._images = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start from the weights, or from the checkpoint's average."""
        if isinstance(trainer.strategy, FSDPStrategy):
            raise InputError(
                "The moving average needs complete weights on each process. Use strategy ddp, or ema=0."
            )
        state = dict(pl_module.state_dict())
        self._first_names = first_names(state)
        # A detector's backbone has two names: swapped under both, its weights would end as the average.
        self._live = {name: state[name] for name in dict.fromkeys(self._first_names.values())}
        average = self.average or {name: value.clone() for name, value in self._live.items()}
        self.average = {name: average[name].to(value.device) for name, value in self._live.items()}
        self._step, self._images = trainer.global_step, images_per_step(trainer)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the average after an optimizer step."""
        if self.average is None or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        weight = lerp_weight(self.decay, self._step * self._images, self._images)
        with torch.no_grad():
            moving = [name for name, value in self._live.items() if value.is_floating_point()]
            lerp_all([self.average[n] for n in moving], [self._live[n] for n in moving], weight)
            for name, value in self._live.items():
                if not value.is_floating_point():
                    self.average[name].copy_(value)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Swap the average in."""
        self._swap(to_average=True)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Swap the training weights in."""
        self._swap(to_average=False)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average as the weights, and the training weights beside it."""
        if self.average is None:
            return
        live, average = (self.average, self._live) if self._swapped else (self._live, self.average)
        state = checkpoint["state_dict"]
        names = {name: first for name, first in self._first_names.items() if name in state}
        checkpoint["ema"] = {"live": {name: live[first] for name, first in names.items()}}
        state.update({name: average[first] for name, first in names.items()})

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the training weights and the average."""
        if "ema" not in checkpoint or trainer.state.fn != "fit":
            return
        self.average = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
        pl_module.load_state_dict(checkpoint["ema"]["live"], strict=False)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leave the average in the task."""
        # Not when training ends: the last checkpoint is written then, and must hold both.
        self._swap(to_average=True)
        if self.average is not None and not self._live:  # resumed at the end, nothing was left to train
            pl_module.load_state_dict(self.average, strict=False)
        self.average, self._live, self._swapped = None, {}, False

    @torch.no_grad()
    def _swap(self, *, to_average: bool) -> None:
        if self.average is None or not self._live or self._swapped == to_average:
            return
        for name, value in self._live.items():
            live = value.clone()
            value.copy_(self.average[name])
            self.average[name].copy_(live)
        self._swapped = to_average


def first_names(state: dict[str, Tensor]) -> dict[str, str]:
    """Return for each name of a state dict the first name of the same tensor."""
    firsts: dict[tuple[int, torch.Size], str] = {}
    return {name: firsts.setdefault((value.data_ptr(), value.shape), name) for name, value in state.items()}


def lerp_weight(decay: float, images: float, per_step: int) -> float:
    """Return the weight of the new parameters in the average, after an update that ends at `images`."""
    count = images / 32
    decay_of_step: float = min(decay, (1 + count) / (10 + count)) ** (per_step / 32)
    return 1.0 - decay_of_step
