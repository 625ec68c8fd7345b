"""What scenes know that photographs do not say: are the named things there, and did it look at them?"""

from __future__ import annotations

import hashlib
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
from visionkit.metrics.running_sums import RunningSums
from visionkit.run.previews.callback import is_last_validation
from visionkit.run.previews.captioning import said_of
from visionkit.run.previews.image_grid import caption_panel, join_grid, to_pil
from visionkit.run.training.careful import Careful
from visionkit.text.tokenize import tokenize

__all__ = ["CaptionFacts", "attention_panels"]

_SUMS = ("things", "both", "relation", "images", "inside", "chance", "elsewhere", "words")
_MOST_WORDS = 10


class CaptionFacts(Careful, Callback):
    """Logs whether captions are true and whether attention lies on what is being said.

    For captions of the form "a RELATION b" (scenes): `val/objects` (share of the true things that are named),
    `val/relation` (share of captions whose things and relation are all true), `val/relation_given_objects`
    (the same among captions whose two things are true). For decoders that attend, where the batch has
    `boxes` and `labels`: `val/attention_in_box` (share of attention inside the box of the thing that the word
    names) beside `val/attention_by_chance` (the share that even attention would have) and
    `val/attention_elsewhere` (on the image's other things).

    At the last validation it draws `figures/attention.png`: some images, word by word.

    Args:
        folder: The run's folder.
        classes: Names of the things, by label.
        drawn: How many images are drawn: the same ones in every arm.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str], *, drawn: int = 5) -> None:
        self.folder = Path(folder)
        self.classes = [" ".join(tokenize(name)) for name in classes]
        self.drawn = drawn
        self.tally = RunningSums(_SUMS)
        self._panels: dict[bytes, list[Image.Image]] = {}

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin to count."""
        self._start(pl_module)

    def on_test_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin to count."""
        self._start(pl_module)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count what was said of a batch."""
        self._add(pl_module, batch, draw=is_last_validation(trainer))

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count what was said of a batch."""
        self._add(pl_module, batch, draw=False)

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Log the shares; write the figure on the first process."""
        self._log(pl_module, "val")
        if self._panels and trainer.is_global_zero:
            with self.careful("The figure of attention"):
                path = self.folder / "figures" / "attention.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                rows = [self._panels[key] for key in sorted(self._panels)]
                wide = max(len(row) for row in rows)
                blank = Image.new("RGB", rows[0][0].size, "white")
                flat = [panel for row in rows for panel in (*row, *[blank] * (wide - len(row)))]
                join_grid(flat, columns=wide).save(path)

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the shares."""
        self._log(pl_module, "test")

    def _start(self, module: lightning.LightningModule) -> None:
        self.tally.to(module.device)
        self.tally.reset()
        self._panels = {}

    def _add(self, module: lightning.LightningModule, batch: Any, *, draw: bool) -> None:
        if not isinstance(batch, dict) or len(batch["ids"]) == 0 or "references" not in batch:
            return
        said = said_of(module, batch)
        references = [[tokenize(text) for text in several] for several in batch["references"]]
        for things, both, relation in relation_scores([p.tokens for p in said], references):
            self.tally.add(things=things, both=both, relation=relation, images=1)
        if "boxes" not in batch or "labels" not in batch:
            return
        height, width = batch["images"].shape[-2:]
        for place, prediction in enumerate(said):
            if prediction.attention is None:
                continue
            names = [self.classes[label] for label in batch["labels"][place].tolist()]
            boxes = batch["boxes"][place].cpu()
            looked = attention_in_boxes(
                prediction.attention, prediction.tokens, boxes, names, size=(height, width)
            )
            self.tally.add(**looked._asdict())
            if draw and not self.problem:
                with self.careful("The figure of attention"):
                    self._draw(batch, place, prediction, boxes, names)

    def _draw(self, batch: Any, place: int, prediction: Any, boxes: Tensor, names: list[str]) -> None:
        lot = hashlib.sha256(str(batch["ids"][place]).encode("utf-8", "surrogateescape")).digest()
        if len(self._panels) >= self.drawn and lot > max(self._panels):
            return
        self._panels[lot] = attention_panels(batch["images"][place], prediction, boxes, names)
        for key in sorted(self._panels)[self.drawn :]:
            del self._panels[key]

    def _log(self, module: lightning.LightningModule, split: str) -> None:
        sums = self.tally.reduce()
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
    """Return the image with its boxes, and then one panel a word: light where attention lies.

    Args:
        image: `(3, H, W)`.
        prediction: A `CaptionPrediction` with attention.
        boxes: `(N, 4)` xyxy in pixels.
        names: Of the N things.
    """
    canvas = to_pil(image)
    scale = canvas.width / image.shape[-1]
    whole = canvas.copy()
    for box in boxes.tolist():
        ImageDraw.Draw(whole).rectangle([scale * value for value in box], outline="#ffffff", width=1)
    words = list(prediction.tokens)[:_MOST_WORDS]
    things = words_of_things(words, names)
    panels = [caption_panel(whole, [(f"{prediction.id}"[-20:], None), ("", None)])]
    for place, word in enumerate(words):
        lit = _light(canvas, prediction.attention[place])
        note, right = "", None
        if place in things:
            box = boxes[things[place]]
            corners = [scale * value for value in box.tolist()]
            ImageDraw.Draw(lit).rectangle(corners, outline="#ffd33d", width=2)
            weights = prediction.attention[place]
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
