"""Images of a run: the training batch as the model gets it, and what it says of validation images.

Drawing never fails the training: a fault is a warning, and previews stop. A task's own kind of image
(boxes, masks, captions) is a `PreviewKind`; what is done with it is the same for all.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from visionkit.distributed import all_gather_objects
from visionkit.files import finite, to_plain
from visionkit.printable import printable_values
from visionkit.run.previews.image_grid import join_grid
from visionkit.run.training.careful import Careful

__all__ = ["Preview", "PreviewKind", "is_last_validation"]

Row = dict[str, Any]


class PreviewKind(Protocol):
    """How one task's images are described and drawn. No method changes the batch or the model."""

    def training(self, batch: dict[str, Any], count: int) -> list[Image.Image]:
        """Return the first `count` images of a training batch, as the model gets them, with targets."""
        ...

    def rows(self, module: lightning.LightningModule, batch: dict[str, Any]) -> list[Row]:
        """Return one plain row an image: "id", "truth", "prediction", "confidence", "loss" (high is bad)."""
        ...

    def image(self, batch: dict[str, Any], position: int, row: Row) -> Image.Image:
        """Return the small image that the report shows for a row (boxes and masks drawn in)."""
        ...

    def panel(self, image: Image.Image, row: Row) -> Image.Image:
        """Return that image with truth and prediction written to it, for the grid."""
        ...


@dataclass
class _Kept:
    """Rows of all images, and the images of few: the worst, and a fixed draw."""

    worst: int
    drawn: int
    rows: list[Row] = field(default_factory=list)
    images: dict[str, Image.Image] = field(default_factory=dict)
    top: list[Row] = field(default_factory=list)
    sample: list[Row] = field(default_factory=list)

    def add(self, rows: Sequence[Row], image: Callable[[int, Row], Image.Image]) -> None:
        self.rows += rows
        # Only the few that are kept are ranked again: a batch must not sort the whole split.
        self.top = sorted([*self.top, *rows], key=_badness)[: self.worst]
        self.sample = sorted([*self.sample, *rows], key=_lot)[: self.drawn]
        chosen = self.chosen()
        for position, row in enumerate(rows):
            if row["id"] in chosen:
                self.images[row["id"]] = image(position, row)
        self.images = {name: kept for name, kept in self.images.items() if name in chosen}

    def merge(self, other: _Kept) -> None:
        self.rows += other.rows
        self.images |= other.images
        self.top = sorted([*self.top, *other.top], key=_badness)[: self.worst]
        self.sample = sorted([*self.sample, *other.sample], key=_lot)[: self.drawn]

    def chosen(self) -> set[str]:
        return {row["id"] for row in (*self.top, *self.sample)}


class Preview(Careful, Callback):
    """Writes `figures/` (train-batch.png, val-worst.png, val-random.png) and `predictions/val.jsonl`.

    The predictions are those of the last validation: the same weights that the final score is of.

    Args:
        folder: The run's folder.
        kind: How this task's images are described and drawn.
        worst: How many of the worst validation images are kept.
        drawn: How many drawn at random are kept: the same ones in every arm.
        batch: How many images of the training batch are shown.
    """

    def __init__(
        self, folder: str | Path, kind: PreviewKind, *, worst: int = 16, drawn: int = 16, batch: int = 32
    ) -> None:
        self.folder = Path(folder)
        self.kind = kind
        self.batch = batch
        self._sizes = (worst, drawn)
        self._kept: _Kept | None = None

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the first training batch, once a run."""
        path = self.folder / "figures" / "train-batch.png"
        if batch_idx == 0 and trainer.current_epoch == 0 and trainer.is_global_zero and not path.exists():
            with self.careful("Previews"):
                path.parent.mkdir(parents=True, exist_ok=True)
                named = (
                    {**batch, "ids": [_name(value) for value in batch["ids"]]} if "ids" in batch else batch
                )
                join_grid(self.kind.training(named, self.batch)).save(path)

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin to collect, if this is the last validation."""
        self._kept = _Kept(*self._sizes) if is_last_validation(trainer) else None

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect what the model says of one batch."""
        kept = self._kept
        if kept is None or self.problem or "ids" not in batch or len(batch["ids"]) == 0:
            return
        batch = {**batch, "ids": [_name(value) for value in batch["ids"]]}
        with self.careful("Previews"), torch.no_grad(), trainer.precision_plugin.forward_context():
            rows = self.kind.rows(pl_module, batch)
            kept.add(rows, lambda position, row: self.kind.image(batch, position, row))

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Bring the processes together and write, on the first one."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        # Every process takes part, whatever happened before: a missing one would hang the others.
        parts = all_gather_objects(kept)
        if trainer.is_global_zero and not self.problem:
            with self.careful("Previews"):
                self._write(parts)

    def _write(self, parts: list[_Kept]) -> None:
        merged = _Kept(*self._sizes)
        for part in parts:
            merged.merge(part)
        if not merged.rows:
            return
        figures = self.folder / "figures"
        (figures / "val").mkdir(parents=True, exist_ok=True)
        names: dict[str, str] = {}
        for number, name in enumerate(sorted(merged.chosen() & set(merged.images))):
            names[name] = f"figures/val/{number:03d}.png"
            merged.images[name].save(self.folder / names[name])
        for title, rows in (("worst", merged.top), ("random", merged.sample)):
            shown = [row for row in rows if row["id"] in merged.images]
            if shown:
                panels = [self.kind.panel(merged.images[row["id"]], row) for row in shown]
                join_grid(panels).save(figures / f"val-{title}.png")
        (self.folder / "predictions").mkdir(exist_ok=True)
        lines = [
            json.dumps(
                {"id": row["id"], "image": names.get(row["id"])} | printable_values(to_plain(row, finite))
            )
            + "\n"
            for row in sorted(merged.rows, key=_badness)
        ]
        (self.folder / "predictions" / "val.jsonl").write_text("".join(lines), encoding="utf-8")


def _badness(row: Row) -> tuple[float, str]:
    value = row.get("loss")
    known = isinstance(value, int | float) and not math.isnan(value)
    return (-float(value or 0.0) if known else math.inf, str(row["id"]))


def _lot(row: Row) -> bytes:
    # The draw is a function of the id: the same images in every arm, on any number of processes.
    return hashlib.sha256(str(row["id"]).encode("utf-8", "surrogateescape")).digest()


def _name(value: Any) -> str:
    return str(value.item() if isinstance(value, torch.Tensor) else value)


def is_last_validation(trainer: lightning.Trainer) -> bool:
    """Return whether a validation is the last of a fit, or may be: where only updates are counted, any is."""
    last = trainer.max_epochs in (None, -1) or trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
    return last and not trainer.sanity_checking
