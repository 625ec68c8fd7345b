"""The callback that writes checkpoints, from which a run continues bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from visionkit.compat import batches_started, update_is_done
from visionkit.errors import InputError
from visionkit.metrics.running_sums import RunningSums
from visionkit.optim import images_per_step
from visionkit.run.resume import new_run_hint
from visionkit.run.storage.checkpoint import FORMAT

__all__ = ["SaveCheckpoints"]


class SaveCheckpoints(Checkpoint):
    """Writes `last.ckpt` every few updates and after each epoch, `best.ckpt` when the monitor improves.

    Within an epoch a checkpoint is written after an update, never on the epoch's last batch: the checkpoint
    after the validation that follows replaces it. `previous.ckpt` is the one before `last.ckpt`.

    Args:
        folder: Where the files go.
        monitor: Logged name and direction ("max" or "min").
        every: Updates between checkpoints within an epoch; 0 writes at ends of epochs only.
        identity: Data, classes, batch and config of the run; a resume with another identity is refused.
        facts: Gives what the run knows of the model at a save (`task.model_facts`); the metrics are added.

    Attributes:
        best_score: The best of the monitored values so far.
        best_metrics: Metrics of the validation that `best.ckpt` was written after.
        metrics: Metrics of the latest validation.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        monitor: tuple[str, str],
        every: int = 0,
        identity: dict[str, Any] | None = None,
        facts: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.monitor = monitor
        self.every = every
        self.identity = identity or {}
        self.facts = facts
        self.best_score: float | None = None
        self.metrics: dict[str, float] = {}
        self.best_metrics: dict[str, float] = {}
        self._between_epochs = False
        self._update = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the best score, and the metrics of its validation and of the latest one."""
        metrics = {"metrics": dict(self.metrics), "best_metrics": dict(self.best_metrics)}
        return {"best_score": self.best_score} | metrics

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the scores, for a run that ended before `result.json` was written."""
        self.best_score = state_dict["best_score"]
        self.metrics = dict(state_dict.get("metrics", {}))
        self.best_metrics = dict(state_dict.get("best_metrics", {}))

    def save_last(self, trainer: lightning.Trainer) -> None:
        """Write `last.ckpt` now; all processes take part."""
        trainer.save_checkpoint(self.folder / "last.ckpt")

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start a new epoch if the checkpoint was written between two epochs.

        Raises:
            InputError: The processes would continue from different batches, or an update had another number
                of images when the checkpoint was written.
        """
        done = batches_started(trainer)
        _check_same_start(trainer, done, self.folder)
        self._check_batch(images_per_step(trainer))
        if trainer.fit_loop.restarting and done % max(1, int(trainer.num_training_batches)) == 0:
            trainer.fit_loop.restarting = False

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write `last.ckpt` after every `every` updates."""
        if self.every and at_boundary(trainer) and trainer.global_step % self.every == 0:
            self.save_last(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write `last.ckpt`, and `best.ckpt` where the monitor improved in this epoch's validation."""
        logged = {str(name): value for name, value in trainer.callback_metrics.items()}
        self.metrics |= {name: float(value) for name, value in logged.items() if name.startswith("val/")}
        score = self._score(trainer)
        better = score is not None and (self.best_score is None or self._improves(score))
        if better:
            self.best_score, self.best_metrics = score, dict(self.metrics)
        self._between_epochs = True
        try:
            if better:
                trainer.save_checkpoint(self.folder / "best.ckpt")
            self.save_last(trainer)
        finally:
            self._between_epochs = False

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Add the identity of the run, and mark the epoch as completed if this is between epochs."""
        checkpoint["visionkit"] = {
            "format": FORMAT,
            "identity": json.loads(json.dumps(self.identity)),
            "batches": batches_started(trainer),
            "update": images_per_step(trainer) if trainer.state.fn == "fit" else 0,
        }
        if self.facts is not None and hasattr(pl_module, "train_sums"):
            # The task writes them: its own hook runs after the callbacks'.
            pl_module.model_facts = {**self.facts(), "metrics": dict(self.metrics)}  # type: ignore[assignment]
        sums = getattr(pl_module, "train_sums", None)
        if isinstance(sums, RunningSums):
            # The next logged value covers the steps before the checkpoint too: the curve of a resumed run is
            # that of an uninterrupted one.
            checkpoint["visionkit"] |= {"train_sums": sums.totals(), "epoch_sums": sums.epoch}
        if self._between_epochs:
            _close_epoch(checkpoint["loops"]["fit_loop"])

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Refuse to resume a run of another identity; restore the running sums."""
        saved = checkpoint.get("visionkit", {}).get("identity", {})
        self._update = int(checkpoint.get("visionkit", {}).get("update", 0))
        now = json.loads(json.dumps(self.identity))
        other = [name for name in now if name in saved and saved[name] != now[name]]
        if other:
            rows = "; ".join(f"{name} was {saved[name]}, is {now[name]}" for name in other)
            raise InputError(
                f"The run in {self.folder.parent} cannot be resumed, because it was another one: {rows}. "
                "Give the settings, data and code it was started with, or another --out. "
                f"{new_run_hint(self.folder.parent)}"
            )
        sums = getattr(pl_module, "train_sums", None)
        if isinstance(sums, RunningSums) and trainer.state.fn == "fit":
            table = checkpoint.get("visionkit", {})
            sums.restore(
                table.get("train_sums", {}), table.get("epoch_sums"), add_totals=trainer.is_global_zero
            )

    def _check_batch(self, now: int) -> None:
        # The position in the data is counted in batches: with others, samples would be missed and repeated.
        before, self._update = self._update, 0
        if before not in (0, now):
            raise InputError(
                f"The run in {self.folder.parent} cannot be resumed, because it was another one: an update "
                f"was of {before} images (batch x processes x accumulated), is of {now}. Start as many "
                "processes as before, or give another --out."
            )

    def _score(self, trainer: lightning.Trainer) -> float | None:
        value = trainer.callback_metrics.get(self.monitor[0])
        score = float(value) if isinstance(value, Tensor | float) else None
        # NaN means that nothing could be scored: such a checkpoint is not the best.
        return score if score is None or math.isfinite(score) else None

    def _improves(self, score: float) -> bool:
        best = self.best_score
        if best is None:
            return True
        return score > best if self.monitor[1] == "max" else score < best


def at_boundary(trainer: lightning.Trainer) -> bool:
    """Return whether an update was just made and the epoch is not yet at its last batch."""
    return update_is_done(trainer) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _check_same_start(trainer: lightning.Trainer, done: int, folder: Path) -> None:
    # Each machine searches for the checkpoint itself. If they do not share a folder, the first one resumes
    # and the others start again: other data in the same updates, without an error.
    if trainer.world_size == 1:
        return
    first = int(trainer.strategy.broadcast(done))
    if not trainer.strategy.reduce_boolean_decision(first == done, all=True):
        raise InputError(
            f"The processes do not continue from the same place: the first has {first} batches behind it, "
            f"process {trainer.global_rank} has {done} ({folder}). Give an --out that all machines share."
        )


def _close_epoch(fit_loop: dict[str, Any]) -> None:
    # Lightning saves within `on_train_epoch_end`, where its counters say "epoch processed, not completed";
    # resumed from there it would end the epoch a second time. Written as completed, it begins the next one.
    epoch = fit_loop["epoch_progress"]
    for scope in ("total", "current"):
        epoch[scope]["completed"] = epoch[scope]["processed"]
    batch = fit_loop["epoch_loop.batch_progress"]
    batch["total"]["completed"] = batch["total"]["processed"]
    batch["current"] = dict.fromkeys(batch["current"], 0)
    batch["is_last_batch"] = False
