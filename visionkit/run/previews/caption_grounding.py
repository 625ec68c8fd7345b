"""Grounding of captions of scenes: whether named objects and relations are true, and where attention lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image, ImageDraw
from torch import Tensor

from visionkit.data.scenes.attention_accuracy import attention_in_boxes, box_cover, words_of_things
from visionkit.data.scenes.relations import relation_scores
from visionkit.drawing.panels import caption_panel, join_grid, save_image
from visionkit.metrics.running_sums import RunningSums
from visionkit.run.previews.callback import is_last_validation, preds_of, random_order
from visionkit.run.previews.to_pil import to_pil
from visionkit.run.training.best_effort import BestEffort
from visionkit.tasks.captioning.prediction import CaptionPrediction
from visionkit.text.tokenize import tokenize

__all__ = ["CaptionGrounding", "attention_panels"]

_SUMS = ("things", "both", "relation", "images", "inside", "chance", "elsewhere", "words")
_MAX_WORDS = 10


class CaptionGrounding(BestEffort, Callback):
    """Logs whether captions of scenes are true, and whether attention lies on the object that a word names.

    For captions of the form "a RELATION b": `val/objects` (fraction of the true objects that are named),
    `val/relation` (fraction of captions whose objects and relation are true), `val/relation_given_objects`
    (the same among captions whose two objects are true). For decoders with attention, if the batch has
    `boxes` and `labels`: `val/attention_in_box` (fraction of attention inside the box of the object that the
    word names), `val/attention_by_chance` (the same for uniform attention) and `val/attention_elsewhere` (on
    the image's other objects).

    At the last validation it draws `figures/attention.png`: some images, word by word.

    Args:
        folder: The run's folder.
        classes: Names of the objects, by label.
        num_images: Images that are drawn: the same ones in every arm.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str], *, num_images: int = 5) -> None:
        self.folder = Path(folder)
        self.classes = [" ".join(tokenize(name)) for name in classes]
        self.num_images = num_images
        self.sums = RunningSums(_SUMS)
        self._panels: dict[bytes, list[Image.Image]] = {}

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Reset the counts."""
        self._start(pl_module)

    def on_test_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Reset the counts."""
        self._start(pl_module)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        *_: Any,
    ) -> None:
        """Count one batch."""
        self._add(outputs, batch, draw=is_last_validation(trainer))

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        *_: Any,
    ) -> None:
        """Count one batch."""
        self._add(outputs, batch, draw=False)

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Log the fractions; write the figure on the first process."""
        self._log(pl_module, "val")
        if self._panels and trainer.is_global_zero:
            with self.best_effort("The figure of attention"):
                path, folder = (
                    self.folder / "figures" / "attention.png",
                    self.folder / "figures" / "attention",
                )
                folder.mkdir(parents=True, exist_ok=True)
                rows = [self._panels[key] for key in sorted(self._panels)]
                for idx, row in enumerate(rows):  # for the report, where arms stand below each other
                    save_image(join_grid(row, columns=len(row)), folder / f"{idx}.jpg", {"quality": 88})
                columns = max(len(row) for row in rows)
                blank = Image.new("RGB", rows[0][0].size, "white")
                flat = [panel for row in rows for panel in (*row, *[blank] * (columns - len(row)))]
                save_image(join_grid(flat, columns=columns), path)

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the fractions."""
        self._log(pl_module, "test")

    def _start(self, module: lightning.LightningModule) -> None:
        self.sums.to(module.device)
        self.sums.reset()
        self._panels = {}

    def _add(self, outputs: Any, batch: Any, *, draw: bool) -> None:
        if not isinstance(batch, dict) or len(batch["ids"]) == 0 or "references" not in batch:
            return
        predictions: Sequence[CaptionPrediction] = preds_of(outputs)
        references = [[tokenize(text) for text in texts] for texts in batch["references"]]
        for things, both, relation in relation_scores([p.tokens for p in predictions], references):
            self.sums.add(things=things, both=both, relation=relation, images=1)
        if "boxes" not in batch or "labels" not in batch:
            return
        height, width = batch["images"].shape[-2:]
        for idx, prediction in enumerate(predictions):
            if prediction.attention is None:
                continue
            names = [self.classes[label] for label in batch["labels"][idx].tolist()]
            boxes = batch["boxes"][idx].cpu()
            attention = attention_in_boxes(
                prediction.attention, prediction.tokens, boxes, names, size=(height, width)
            )
            self.sums.add(**attention._asdict())
            if draw and not self.problem:
                with self.best_effort("The figure of attention"):
                    self._draw(batch, idx, prediction, boxes, names)

    def _draw(self, batch: Any, idx: int, prediction: Any, boxes: Tensor, names: list[str]) -> None:
        key = random_order(batch["ids"][idx])
        if len(self._panels) >= self.num_images and key > max(self._panels):
            return
        self._panels[key] = attention_panels(batch["images"][idx], prediction, boxes, names)
        for key in sorted(self._panels)[self.num_images :]:
            del self._panels[key]

    def _log(self, module: lightning.LightningModule, split: str) -> None:
        sums = self.sums.reduce()
        values: dict[str, float] = {}
        if sums["images"]:
            values["objects"] = sums["things"] / sums["images"]
            values["relation"] = sums["relation"] / sums["images"]
        if sums["both"]:
            values["relation_given_objects"] = sums["relation"] / sums["both"]
        if sums["words"]:
            values["attention_in_box"] = sums["inside"] / sums["words"]
            values["attention_by_chance"] = sums["chance"] / sums["words"]
            values["attention_elsewhere"] = sums["elsewhere"] / sums["words"]
        module.log_dict({f"{split}/{name}": value for name, value in values.items()}, sync_dist=False)


def attention_panels(
    image: Tensor, prediction: Any, boxes: Tensor, names: Sequence[str]
) -> list[Image.Image]:
    """Return the image with its boxes, then one panel a word, bright where attention lies.

    Args:
        image: `(3, H, W)`.
        prediction: A `CaptionPrediction` with attention.
        boxes: `(N, 4)` xyxy in pixels.
        names: Of the N objects.
    """
    canvas = to_pil(image)
    scale = canvas.width / image.shape[-1]
    overview = canvas.copy()
    for box in boxes.tolist():
        ImageDraw.Draw(overview).rectangle([scale * value for value in box], outline="#ffffff", width=1)
    words = list(prediction.tokens)[:_MAX_WORDS]
    things = words_of_things(words, names)
    panels = [caption_panel(overview, [(f"{prediction.id}"[-20:], None), ("", None)])]
    for idx, word in enumerate(words):
        lit = _light(canvas, prediction.attention[idx])
        note, right = "", None
        if idx in things:
            box = boxes[things[idx]]
            corners = [scale * value for value in box.tolist()]
            ImageDraw.Draw(lit).rectangle(corners, outline="#ffd33d", width=2)
            weights = prediction.attention[idx]
            cover = box_cover(box[None], weights.shape, size=(image.shape[-2], image.shape[-1]))[0]
            inside = float((weights * cover).sum())
            note, right = f"{100 * inside:.0f}% in the box", inside > float(cover.mean())
        panels.append(caption_panel(lit, [(word, None), (note, right)]))
    return panels


def _light(canvas: Image.Image, weights: Tensor) -> Image.Image:
    """Darken an image where attention (h, w) is small."""
    strength = (weights / weights.max().clamp(min=1e-9)).float()
    mask = torch.nn.functional.interpolate(
        strength[None, None], size=(canvas.height, canvas.width), mode="bilinear", align_corners=False
    )[0, 0]
    shade = (0.25 + 0.75 * mask.clamp(0, 1)).numpy()[..., None]
    return Image.fromarray((np.asarray(canvas) * shade).astype(np.uint8))
