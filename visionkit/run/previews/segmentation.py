"""Previews of segmentation: image, truth and prediction side by side, a colour for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from visionkit.drawing.class_colors import class_colors, legend, paint
from visionkit.drawing.image_text import draw_text, fit_text
from visionkit.drawing.panels import GAP, INK, LINE, PAPER, TEXT_SIZE, add_below, add_title, join_grid
from visionkit.metrics.segmentation import confusion_counts, segmentation_scores
from visionkit.run.previews.to_pil import to_pil

__all__ = ["MaskPreview"]

SIDE = 256
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
        """Return the first images of a training batch, each beside its mask, with a legend."""
        panels = []
        for image, mask in list(zip(batch["images"], batch["masks"], strict=True))[: max(1, count // 2)]:
            plain = to_pil(image, side=SIDE)
            strip = self._strip(plain, truth=self._map(mask.detach().cpu(), plain.size))
            counts = torch.bincount(mask[mask < len(self.classes)].long().flatten().cpu())
            panels.append(add_below(strip, self._legend(self._named(counts), strip.width)))
        return panels

    def rows(
        self, module: lightning.LightningModule, batch: dict[str, Any], preds: Sequence[Tensor]
    ) -> list[dict[str, Any]]:
        """Return the classes of truth and prediction, and the scores, of each image."""
        self._maps = [each.detach().cpu() for each in preds]
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
            })  # fmt: skip
        return rows

    def images(self, batch: dict[str, Any], index: int, row: dict[str, Any]) -> dict[str, Image.Image]:
        """Return the image, and the maps of truth and prediction with the class numbers as pixels."""
        image = to_pil(batch["images"][index], side=SIDE)
        truth = batch["masks"][index].detach().cpu()
        return {
            "image": image,
            "truth_map": self._map(truth, image.size),
            "prediction_map": self._map(self._maps[index], image.size),
        }

    def panel(self, images: dict[str, Image.Image], row: dict[str, Any]) -> Image.Image:
        """Return image, truth and prediction side by side, with the score and the colours of the classes."""
        strip = self._strip(images["image"], truth=images["truth_map"], prediction=images["prediction_map"])
        answer = fit_text(f"{row['answer']}   {row['id']}", TEXT_SIZE, strip.width - 8)
        named = self._legend([*row["truth"], *row["prediction"]], strip.width)
        panel = Image.new("RGB", (strip.width, strip.height + LINE + named.height), PAPER)
        panel.paste(strip, (0, 0))
        panel.paste(named, (0, strip.height + LINE))
        draw_text(ImageDraw.Draw(panel), (4, strip.height + 2), answer, size=TEXT_SIZE, fill=INK)
        return panel

    def _strip(self, image: Image.Image, **maps: Image.Image) -> Image.Image:
        painted = {
            name: paint(image, np.asarray(numbers), len(self.classes)) for name, numbers in maps.items()
        }
        parts = [add_title(part, name) for name, part in {"image": image, **painted}.items()]
        return join_grid(parts, columns=len(parts), gap=GAP // 2)

    def _map(self, mask: Tensor, size: tuple[int, int]) -> Image.Image:
        """Return class numbers as an image of a size; ignored pixels have the largest number there is."""
        values = mask.numpy()
        few = len(self.classes) < 256
        ignored = (values == self.ignore_index) | (values >= len(self.classes))
        numbers = np.where(ignored, 255 if few else 65535, values).astype(np.uint8 if few else np.uint16)
        drawn = Image.fromarray(numbers).resize(size, Image.Resampling.NEAREST)
        if few:
            colors = [*class_colors(len(self.classes)), *[(96, 96, 96)] * (256 - len(self.classes))]
            drawn.putpalette([part for color in colors for part in color])
        return drawn

    def _legend(self, names: Sequence[str], width: int) -> Image.Image:
        colors = class_colors(len(self.classes))
        entries = [(colors[self.classes.index(name)], name) for name in dict.fromkeys(names)]
        return legend(entries, width=width, size=TEXT_SIZE)

    def _named(self, counts: Tensor) -> list[str]:
        total = max(1, int(counts.sum()))
        order = counts.argsort(descending=True, stable=True).tolist()
        return [self.classes[index] for index in order if int(counts[index]) > _MIN_FRACTION * total]
