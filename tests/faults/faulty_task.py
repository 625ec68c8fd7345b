"""The tiny task with a non-finite number put where a case says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.run.tiny import TinyTask

KINDS = (
    "nan loss",
    "inf loss",
    "-inf loss",
    "inf beside the loss",
    "nan gradient",
    "inf gradient",
    "nan image",
)


@dataclass(frozen=True)
class Case:
    """A fault of a kind in the batches `at` (counted from 1), on one process."""

    kind: str
    at: tuple[int, ...]
    accumulate: int = 1
    precision: str = "32-true"
    skip: int = 0
    rank: int = 0

    @property
    def update(self) -> int:
        """The update that the first fault must stop, counted from 0 (7 batches an epoch)."""
        epoch, batch = divmod(self.at[0] - 1, 7)
        return epoch * -(-7 // self.accumulate) + batch // self.accumulate


class FaultyTask(TinyTask):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.before: dict[str, Tensor] = {}
        self.faulty_ids: list[str] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        ready = int(self.trainer.fit_loop.epoch_loop.batch_progress.total.ready)
        wrong = ready in self.case.at and self.trainer.global_rank == self.case.rank
        kind = self.case.kind if wrong else ""
        if wrong:
            self.before = {name: value.clone() for name, value in self.named_parameters()}
            self.faulty_ids = list(batch["ids"])
        if kind == "nan image":
            batch = {**batch, "images": batch["images"].clone()}
            batch["images"][0, 0, 0, 0] = torch.nan
        loss = super().training_step(batch, batch_idx)
        if kind.endswith(" loss") and "beside" not in kind:
            loss = loss * float(kind.split()[0])
        elif kind == "inf beside the loss":
            loss = loss + float("inf")  # its gradients are those of the finite loss
        elif kind.endswith("gradient"):
            value, spot = float(kind.split()[0]), self.net[-1].bias
            handle = spot.register_hook(lambda grad: (handle.remove(), grad + value)[1])
        return loss
