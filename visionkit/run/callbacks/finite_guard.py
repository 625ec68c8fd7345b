"""Stop before a non-finite number reaches the weights, and report the step, the loss terms and the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor

from visionkit.errors import RunError
from visionkit.files import to_plain
from visionkit.run.storage.disk import write_file

__all__ = ["FiniteGuard", "NonFiniteError"]

OVERFLOWS = 16


class NonFiniteError(RunError):
    """A loss or gradient was not finite."""


class FiniteGuard(Callback):
    """Checks the gradients just before each update, after they were averaged over the processes.

    A non-finite loss makes its gradients NaN, and by then a non-finite gradient of one process is in those of
    all, so every process decides the same without communication. The batch is saved; weights and running
    statistics stay as they were before the update.

    With a loss scale (16-mixed) a gradient too large for the scale is expected: the scaler skips the update
    and lowers the scale. Only `OVERFLOWS` of these in a row are an error.

    Args:
        folder: Where the offending batch is written, as `step-N-rank-R.pt`.
        skip: Updates that may be skipped before the run is stopped; 0 stops at the first.

    Attributes:
        skipped: Updates skipped so far.
    """

    def __init__(self, folder: str | Path, *, skip: int = 0) -> None:
        self.folder = Path(folder)
        self.skip = skip
        self.skipped = 0
        self._batches: list[Any] = []
        self._losses: list[Tensor] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._overflows = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the number of skipped updates."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count."""
        self.skipped = int(state_dict["skipped"])

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batches of this update, and the buffers before its forward passes."""
        if not self._batches and (self.skip or _scaled(trainer)):
            self._buffers = [(buffer, buffer.clone()) for buffer in pl_module.buffers()]
        self._batches.append(batch)

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Remember the losses of this update, and make the gradients of a non-finite one NaN."""
        detached = loss.detach()
        self._losses.append(detached)
        if loss.requires_grad:
            # Zero for a finite loss, NaN for any other.
            loss.register_hook(lambda grad: grad + detached * 0.0)

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Let this update happen, skip it, or stop the run."""
        batches, losses = self._batches, self._losses
        self._batches, self._losses = [], []
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not grads:
            return
        # One number decides, so that the device is synchronized once and not once a tensor.
        total = torch.nn.utils.get_total_norm(grads)
        # A sum of squares can overflow although every gradient is finite: then check each.
        finite = bool(total.isfinite()) or all(bool(grad.isfinite().all()) for grad in grads)
        if isinstance(trainer.strategy, FSDPStrategy):
            # Each process has a shard of the gradients, and sees only non-finite values of its own.
            finite = trainer.strategy.reduce_boolean_decision(finite, all=True)
        if finite:
            self._overflows = 0
            return
        if _scaled(trainer) and self._overflows < OVERFLOWS:
            self._overflows += 1
            self._restore_buffers()
            return
        text = self._report(trainer, pl_module, batches, losses)
        if self.skipped >= self.skip:
            raise NonFiniteError(text)
        self.skipped += 1
        optimizer.zero_grad(set_to_none=True)
        self._restore_buffers()
        lightning.pytorch.utilities.rank_zero_warn(f"{text} Update left out ({self.skipped} of {self.skip}).")

    @torch.no_grad()
    def _restore_buffers(self) -> None:
        for buffer, before in self._buffers:
            buffer.copy_(before)

    def _report(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        batches: list[Any],
        losses: list[Tensor],
    ) -> str:
        step, rank = trainer.global_step, trainer.global_rank
        ids = [name for batch in batches for name in _ids(batch)]
        terms = getattr(module, "loss_terms", None) or {
            "loss": losses[-1] if losses else torch.tensor(float("nan"))
        }
        bad = [
            name
            for name, p in module.named_parameters()
            if p.grad is not None and not p.grad.isfinite().all()
        ]
        path = self.folder / f"step-{step}-rank-{rank}.pt"
        content = {"step": step, "rank": rank, "batches": to_plain(batches, _on_host)}
        try:
            write_file(path, lambda part: torch.save(content, part))
            where = f"the batch is in {path}"
        except RunError as error:
            where = f"the batch could not be kept ({error})"
        shown = ", ".join(f"{name} = {float(value):.6g}" for name, value in terms.items())
        return (
            f"A loss or gradient is not finite at update {step} (process {rank}): {shown}; images: "
            f"{', '.join(ids[:16]) or 'unknown'}{' ...' if len(ids) > 16 else ''}; first gradient at fault: "
            f"{bad[0] if bad else 'on another process'}. The weights are as before this update and "
            f"{where}. Look at those images and targets; if they are right, lower --lr, set "
            "--optim.clip_norm, or use --precision 32-true."
        )


def _scaled(trainer: lightning.Trainer) -> bool:
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def _ids(batch: Any) -> list[str]:
    return [str(name) for name in batch.get("ids", [])] if isinstance(batch, dict) else []


def _on_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    return value if isinstance(value, str | int | float | bool | type(None)) else repr(value)
