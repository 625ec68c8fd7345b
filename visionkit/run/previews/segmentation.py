"""Previews of segmentation: image, truth and prediction side by side, a colour for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
from PIL import Image, ImageDraw
from torch import Tensor

from visionkit.metrics.segmentation import confusion_counts, segmentation_scores
from visionkit.run.previews.class_colors import class_colors, legend, paint
from visionkit.run.previews.image_grid import GAP, INK, LINE, PAPER, TEXT_SIZE, join_grid, to_pil
from visionkit.run.previews.image_text import draw_text, fit_text

__all__ = ["MaskPreview"]

SIDE = 220
_MIN_FRACTION = 0.005  # classes with a smaller fraction of the pixels are not named


class MaskPreview:
    """Describes and draws the images of a `Segmenter`; a `PreviewKind`.

    A row's "loss" is one minus the mIoU of the image; None if all of its pixels are ignored.

    Args:
        classes: The names, by class number.
        ignore_index: Value of ignored pixels.
    """

    def __init__(self, classes: Sequence[str], *, ignore_index: int = 255) -> None:
        self.classes = list(classes)
        self.ignore_index = ignore_index
        self._maps: list[Tensor] = []  # predictions for the latest batch

    def training(self, batch: dict[str, Any], count: int) -> list[Image.Image]:
        """Return the first images of a training batch, each beside its mask."""
        pairs = list(zip(batch["images"], batch["masks"], strict=True))[: max(1, count // 2)]
        return [self._strip(image, [mask.detach().cpu()]) for image, mask in pairs]

    def rows(self, module: lightning.LightningModule, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the classes of truth and prediction, and the scores, of each image."""
        predictions = module.predict_step({"images": batch["images"], "ids": batch["ids"]}, 0)
        self._maps = [prediction.mask for prediction in predictions]
        rows = []
        for name, pred, mask in zip(batch["ids"], self._maps, batch["masks"], strict=True):
            truth = mask.detach().cpu()
            counts = confusion_counts(
                pred, truth, num_classes=len(self.classes), ignore_index=self.ignore_index
            )
            scores = segmentation_scores(counts)
            known = bool(counts.any())
            answer = f"mIoU {scores.miou:.2f}, {100 * scores.pixel_accuracy:.0f}% of the pixels"
            rows.append({
                "id": name,
                "truth": self._named(counts.sum(1)),
                "prediction": self._named(counts.sum(0)),
                "confidence": None,
                "loss": 1 - scores.miou if known else None,
                "answer": answer if known else "nothing counts here",
                "panels": 3,
            })  # fmt: skip
        return rows

    def image(self, batch: dict[str, Any], index: int, row: dict[str, Any]) -> Image.Image:
        """Return image, truth and prediction side by side."""
        truth = batch["masks"][index].detach().cpu()
        return self._strip(batch["images"][index], [truth, self._maps[index]])

    def panel(self, canvas: Image.Image, row: dict[str, Any]) -> Image.Image:
        """Return the strip with its score and the colours of its classes below it."""
        names = list(dict.fromkeys([*row["truth"], *row["prediction"]]))
        colors = class_colors(len(self.classes))
        answer = fit_text(f"{row['answer']}   {row['id']}", TEXT_SIZE, canvas.width - 8)
        named = legend(
            [(colors[self.classes.index(name)], name) for name in names], width=canvas.width, size=TEXT_SIZE
        )
        panel = Image.new("RGB", (canvas.width, canvas.height + LINE + named.height), PAPER)
        panel.paste(canvas, (0, 0))
        panel.paste(named, (0, canvas.height + LINE))
        draw_text(ImageDraw.Draw(panel), (4, canvas.height + 2), answer, size=TEXT_SIZE, fill=INK)
        return panel

    def _strip(self, image: Tensor, maps: Sequence[Tensor]) -> Image.Image:
        plain = to_pil(image, side=SIDE)
        painted = [paint(plain, mask, len(self.classes), ignore_index=self.ignore_index) for mask in maps]
        return join_grid([plain, *painted], columns=len(maps) + 1, gap=GAP // 2)

    def _named(self, counts: Tensor) -> list[str]:
        total = max(1, int(counts.sum()))
        order = counts.argsort(descending=True, stable=True).tolist()
        return [self.classes[index] for index in order if int(counts[index]) > _MIN_FRACTION * total]
