"""The callback that writes what each image added to the scores of the last validation and of the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback

from visionkit.compare.resampling.image_scores import write_image_scores
from visionkit.data.datamodule import DataModule
from visionkit.data.folds import group_names
from visionkit.run.training.best_effort import BestEffort
from visionkit.tasks.hooks import TaskHooks
from visionkit.types import Reader

__all__ = ["SaveImageScores"]


class SaveImageScores(BestEffort, Callback):
    """Writes `predictions/val-scores.npz` at each validation and `predictions/test-scores.npz` at the test.

    A comparison resamples the images of these files. The last validation leaves its file; that of the test
    is of the weights that were tested. Tasks that keep no rows leave none.

    Args:
        folder: The run's folder.
        group_by: What keeps images together, as `visionkit.data.folds.group_names` takes it; empty: nothing.
    """

    def __init__(self, folder: str | Path, *, group_by: str = "") -> None:
        self.folder = Path(folder) / "predictions"
        self.group_by = group_by

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Ask the task to collect rows."""
        if isinstance(pl_module, TaskHooks):
            pl_module.save_image_rows = True

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the rows of the validation."""
        if not trainer.sanity_checking:
            self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the rows of the test."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: lightning.Trainer, module: lightning.LightningModule, split: str) -> None:
        columns: Mapping[str, Any] = getattr(module, "image_rows", None) or {}
        if not columns or not trainer.is_global_zero or self.problem:
            return
        with self.best_effort("The scores of each image"):
            data = getattr(trainer, "datamodule", None)
            reader = getattr(data.splits, split) if isinstance(data, DataModule) else None
            groups = self._groups(reader, columns["ids"])
            self.folder.mkdir(parents=True, exist_ok=True)
            write_image_scores(self.folder / f"{split}-scores.npz", {**columns, **groups})

    def _groups(self, reader: Reader | None, ids: Any) -> dict[str, Any]:
        """Return "groups", the group of each image, where images are grouped."""
        if not self.group_by or reader is None:
            return {}
        names = group_names(reader, self.group_by, strict=False)
        group_of = dict(zip(map(str, getattr(reader, "ids", ())), names, strict=True))
        return {"groups": np.array([group_of[name] for name in ids])}
