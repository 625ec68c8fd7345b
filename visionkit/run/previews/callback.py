"""The callback that writes preview images and the predictions file of a run.

An error while drawing does not end the training: it becomes a warning, and previews stop. How the images of a
task are described and drawn (labels, boxes, masks, captions) is a `PreviewKind`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from visionkit.data.datamodule import DataModule
from visionkit.data.keyed_dataset import KeyedDataset, Unreadable
from visionkit.distributed import all_gather_objects
from visionkit.drawing.panels import join_grid, save_image
from visionkit.errors import InputError
from visionkit.files import finite, to_plain, write_text
from visionkit.printable import printable_values
from visionkit.run.previews.to_pil import to_pil
from visionkit.run.training.best_effort import BestEffort
from visionkit.types import Key

__all__ = ["Preview", "PreviewKind", "is_last_validation", "preds_of", "random_order"]

Row = dict[str, Any]
Images = dict[str, Image.Image]
NUM_INPUTS = 4  # images whose activations `visionkit watch` shows
NUM_EXAMPLES = 6  # training images that the report shows


class PreviewKind(Protocol):
    """How one task's images are described and drawn. No method changes the batch or the model."""

    def training(self, batch: dict[str, Any], count: int) -> list[Image.Image]:
        """Return the first `count` images of a training batch, as the model receives them, with targets."""
        ...

    def rows(self, module: lightning.LightningModule, batch: dict[str, Any], preds: Any) -> list[Row]:
        """Return one row of plain values an image: "id", "truth", "prediction", "confidence", "loss".

        Args:
            module: The task.
            batch: What it was evaluated on.
            preds: What it found: `preds` of its `validation_step`.
        """
        ...

    def images(self, batch: dict[str, Any], index: int, row: Row) -> Images:
        """Return the small "image" of a row; class maps "truth_map" and "prediction_map" of the same size."""
        ...

    def panel(self, images: Images, row: Row) -> Image.Image:
        """Return that image with truth and prediction, for the grid."""
        ...


@dataclass
class _Selection:
    """Rows of all images; images of the worst and of a fixed random draw."""

    num_worst: int
    num_random: int
    rows: list[Row] = field(default_factory=list)
    images: dict[str, Images] = field(default_factory=dict)
    worst: list[Row] = field(default_factory=list)
    random: list[Row] = field(default_factory=list)

    def add(self, rows: Sequence[Row], images: Callable[[int, Row], Images]) -> None:
        self.rows += rows
        self._select(rows, rows)
        chosen = self.chosen()
        for idx, row in enumerate(rows):
            if row["id"] in chosen:
                self.images[row["id"]] = images(idx, row)
        self.images = {name: drawn for name, drawn in self.images.items() if name in chosen}

    def merge(self, other: _Selection) -> None:
        self.rows += other.rows
        self.images |= other.images
        self._select(other.worst, other.random)

    def chosen(self) -> set[str]:
        return {row["id"] for row in (*self.worst, *self.random)}

    def _select(self, worst: Sequence[Row], random: Sequence[Row]) -> None:
        # Only the selected rows are sorted with the new ones: a batch must not sort all rows of the split.
        self.worst = sorted([*self.worst, *worst], key=_worst_first)[: self.num_worst]
        self.random = sorted([*self.random, *random], key=_random_key)[: self.num_random]


class Preview(BestEffort, Callback):
    """Writes `figures/` (train-batch.png, val-worst.png, val-random.png, watch/) and `predictions/val.jsonl`.

    The predictions are those of the last validation: the same weights that the final score is of.

    Args:
        folder: The run's folder.
        kind: How this task's images are described and drawn.
        num_worst: Validation images with the highest loss that are drawn.
        num_random: Validation images drawn at random: the same ones in every arm.
        num_saved: Random images that are kept for the report, where they stand beside those of other arms.
        num_train: Images of the training batch that are drawn.
        split: What is validated, for the names of the files.
    """

    def __init__(
        self,
        folder: str | Path,
        kind: PreviewKind,
        *,
        num_worst: int = 16,
        num_random: int = 16,
        num_saved: int = 64,
        num_train: int = 32,
        split: str = "val",
    ) -> None:
        self.folder = Path(folder)
        self.split = split
        self.kind = kind
        self.num_train = num_train
        self.num_random = num_random
        self._sizes = (num_worst, max(num_random, num_saved))
        self._selection: _Selection | None = None

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the first training batch of a run."""
        path = self.folder / "figures" / "train-batch.png"
        if batch_idx == 0 and trainer.current_epoch == 0 and trainer.is_global_zero and not path.exists():
            with self.best_effort("Previews"):
                path.parent.mkdir(parents=True, exist_ok=True)
                named = (
                    {**batch, "ids": [_name(value) for value in batch["ids"]]} if "ids" in batch else batch
                )
                save_image(join_grid(self.kind.training(named, self.num_train)), path)
                self._write_inputs(batch)
                self._write_examples(trainer)

    def _write_inputs(self, batch: Any) -> None:
        """Write the first images as the network receives them, without labels, for `visionkit watch`."""
        images = batch["images"][:NUM_INPUTS] if isinstance(batch, dict) and "images" in batch else []
        for idx, image in enumerate(images):
            if len(image) in (1, 3):
                path = self.folder / "figures" / "watch" / f"{idx}.png"
                path.parent.mkdir(exist_ok=True)
                save_image(to_pil(image, side=max(image.shape[-2:])), path)

    def _write_examples(self, trainer: lightning.Trainer) -> None:
        """Write some training images with their targets, as evaluation would see them, for the report."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, DataModule):
            return
        reader, folder = data.splits.train, self.folder / "figures" / "examples"
        plain = KeyedDataset(reader, data.eval_transform, seed=data.seed, on_error="drop")
        count = min(NUM_EXAMPLES, len(reader))
        read = [plain[Key(0, idx * len(reader) // count)] for idx in range(count)]
        folder.mkdir(exist_ok=True)
        for idx, sample in enumerate(each for each in read if not isinstance(each, Unreadable)):
            (panel,) = self.kind.training(dict(data.collate([sample])), 1)
            save_image(panel, folder / f"{idx}.jpg", {"quality": 88})

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start collecting, if this is the last validation."""
        self._selection = _Selection(*self._sizes) if is_last_validation(trainer) else None

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        *_: Any,
    ) -> None:
        """Collect the predictions for one batch."""
        selection = self._selection
        if selection is None or self.problem or "ids" not in batch or len(batch["ids"]) == 0:
            return
        batch = {**batch, "ids": [_name(value) for value in batch["ids"]]}
        with self.best_effort("Previews"), torch.no_grad(), trainer.precision_plugin.forward_context():
            rows = self.kind.rows(pl_module, batch, preds_of(outputs))
            selection.add(rows, lambda index, row: self.kind.images(batch, index, row))

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Gather the selections of all processes, and write them on the first."""
        selection, self._selection = self._selection, None
        if selection is None:
            return
        # Every process takes part, whatever failed before: a missing one would hang the others.
        parts = all_gather_objects(selection)
        if trainer.is_global_zero and not self.problem:
            with self.best_effort("Previews"):
                self._write(parts)

    def write_rows(self, rows: Sequence[Row], images: Callable[[int, Row], Images]) -> None:
        """Write the predictions file and the images of all rows of a split at once.

        Args:
            rows: One for each image.
            images: Gives the images of a row by its number; called for the worst and for some random ones.
        """
        selection = _Selection(*self._sizes)
        selection.add(rows, images)
        self._write([selection])

    def _write(self, parts: list[_Selection]) -> None:
        merged = _Selection(*self._sizes)
        for part in parts:
            merged.merge(part)
        if not merged.rows:
            return
        figures = self.folder / "figures"
        (figures / self.split).mkdir(parents=True, exist_ok=True)
        names: dict[str, dict[str, str]] = {}
        for idx, name in enumerate(sorted(merged.chosen() & set(merged.images))):
            names[name] = self._save(f"figures/{self.split}/{idx:03d}", merged.images[name])
        for title, rows in (("worst", merged.worst), ("random", merged.random[: self.num_random])):
            shown = [row for row in rows if row["id"] in merged.images]
            if shown:
                panels = [self.kind.panel(merged.images[row["id"]], row) for row in shown]
                save_image(join_grid(panels), figures / f"{self.split}-{title}.png")
        (self.folder / "predictions").mkdir(exist_ok=True)
        lines = [
            json.dumps(
                {"id": row["id"], "image": None}
                | names.get(row["id"], {})
                | printable_values(to_plain(row, finite))
            )
            + "\n"
            for row in sorted(merged.rows, key=_worst_first)
        ]
        write_text(self.folder / "predictions" / f"{self.split}.jsonl", "".join(lines))

    def _save(self, stem: str, images: Images) -> dict[str, str]:
        """Write the images of a row; return their paths below the folder by the row's keys."""
        paths = {}
        for key, image in images.items():
            photo = image.mode == "RGB"  # class maps must not be changed
            paths[key] = f"{stem}.jpg" if photo else f"{stem}-{key.removesuffix('_map')}.png"
            save_image(image, self.folder / paths[key], {"quality": 90} if photo else {"optimize": True})
        return paths


def preds_of(outputs: Any) -> Any:
    """Return what a task found in a batch, from what its `validation_step` or `test_step` returned.

    Raises:
        InputError: It returned no `preds`.
    """
    if isinstance(outputs, Mapping) and outputs.get("preds") is not None:
        return outputs["preds"]
    got = f"the keys {sorted(map(str, outputs))}" if isinstance(outputs, Mapping) else type(outputs).__name__
    raise InputError(
        f"Expected validation_step and test_step to return a dict with `preds`, but got {got}. Return "
        "{'preds': ...} from both, as the tasks of visionkit do, or train without this callback."
    )


def _worst_first(row: Row) -> tuple[float, str]:
    value = row.get("loss")
    known = isinstance(value, int | float) and not math.isnan(value)
    return (-float(value or 0.0) if known else math.inf, str(row["id"]))


def _name(value: Any) -> str:
    return str(value.item() if isinstance(value, torch.Tensor) else value)


def _random_key(row: Row) -> bytes:
    return random_order(row["id"])


def random_order(name: Any) -> bytes:
    """Return the sort key of an image for random draws: the same in every arm, on any processes."""
    return hashlib.sha256(str(name).encode("utf-8", "surrogateescape")).digest()


def is_last_validation(trainer: lightning.Trainer) -> bool:
    """Return whether a validation is the last of a fit; without a limit in epochs any may be, so all are."""
    last = trainer.max_epochs in (None, -1) or trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
    return last and not trainer.sanity_checking
