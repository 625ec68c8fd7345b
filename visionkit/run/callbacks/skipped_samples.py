"""Samples that were left out because they cannot be read: written to disk, counted over all processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn

from visionkit.data.datamodule import DataModule
from visionkit.distributed import all_gather_objects

__all__ = ["SkippedSamples"]

Entry = tuple[str, int, str]


class SkippedSamples(Callback):
    """Writes what a data module left out as `samples-rank-R.jsonl`, a line a sample: split, index, why.

    A resumed run reads the lines first, so that its counts are those of an uninterrupted one. After each
    epoch and evaluation the processes gather their lists, so that all of them decide the same on the limit.

    Args:
        folder: Where the lines are written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._written: set[tuple[str, int]] = set()

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Read the samples that earlier starts of this run left out."""
        data = _data(trainer)
        if data is None:
            return
        paths = sorted(self.folder.glob("samples-rank-*.jsonl"))
        if trainer.ckpt_path is None:
            if trainer.is_global_zero:
                for path in paths:
                    path.unlink(missing_ok=True)
            return
        entries = [entry for path in paths for entry in _read(path)]
        self._written = {entry[:2] for entry in entries}
        data.note_skipped(entries)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write new entries."""
        self._write(trainer)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write new entries."""
        self._write(trainer)

    def on_test_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write new entries."""
        self._write(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Gather the entries of all processes."""
        self._gather(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Gather the entries of all processes."""
        self._gather(trainer)

    def on_test_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Gather the entries of all processes."""
        self._gather(trainer)

    def _write(self, trainer: lightning.Trainer) -> None:
        data = _data(trainer)
        if data is None or not data.skipped:
            return
        new = [entry for entry in _entries(data) if entry[:2] not in self._written]
        if not new:
            return
        if not self._written:
            rank_zero_warn(f"A sample cannot be read and is left out: {new[0][2]} See {self.folder}.")
        self._written |= {entry[:2] for entry in new}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"samples-rank-{trainer.global_rank}.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in new)

    def _gather(self, trainer: lightning.Trainer) -> None:
        data = _data(trainer)
        if data is None or trainer.world_size == 1:
            return
        parts: list[list[Entry]] = all_gather_objects(_entries(data))
        data.note_skipped(sorted({(str(s), int(i), str(t)) for part in parts for s, i, t in part}))


def _data(trainer: lightning.Trainer) -> DataModule | None:
    data = trainer.datamodule  # type: ignore[attr-defined]
    return data if isinstance(data, DataModule) and data.train_data.on_error != "raise" else None


def _entries(data: DataModule) -> list[Entry]:
    return [(split, index, text) for split, texts in data.skipped.items() for index, text in texts.items()]


def _read(path: Path) -> list[Entry]:
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            split, index, text = json.loads(line)
        except ValueError:  # a line that a kill cut short
            continue
        entries.append((str(split), int(index), str(text)))
    return entries
