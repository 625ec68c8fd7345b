"""Previews of segmentation: image, truth and prediction side by side, a colour for each class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from visionkit.metrics.segmentation import confusion_counts, segmentation_scores
from visionkit.run.previews.image_grid import GAP, INK, LINE, PAPER, join_grid, to_pil

__all__ = ["MaskPreview", "class_colors", "paint"]

SIDE = 220
_OPAQUE = 0.62  # of a class's colour over the image
_IGNORED = (96, 96, 96)
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
        font = ImageFont.load_default(size=11)
        labels, left, lines = [], 4, 1
        for name in names:
            width = round(font.getlength(name)) + 22
            if left + width > canvas.width and left > 4:
                left, lines = 4, lines + 1
            labels.append((name, left, canvas.height + 4 + LINE * lines))
            left += width
        panel = Image.new("RGB", (canvas.width, canvas.height + LINE * (lines + 1) + 6), PAPER)
        panel.paste(canvas, (0, 0))
        draw = ImageDraw.Draw(panel)
        draw.text((4, canvas.height + 2), f"{row['answer']}   {row['id']}", fill=INK, font=font)
        for name, x, y in labels:
            draw.rectangle((x, y + 2, x + 10, y + 12), fill=colors[self.classes.index(name)])
            draw.text((x + 14, y), name, fill=INK, font=font)
        return panel

    def _strip(self, image: Tensor, maps: Sequence[Tensor]) -> Image.Image:
        plain = to_pil(image, side=SIDE)
        painted = [paint(plain, mask, len(self.classes), ignore_index=self.ignore_index) for mask in maps]
        return join_grid([plain, *painted], columns=len(maps) + 1, gap=GAP // 2)

    def _named(self, counts: Tensor) -> list[str]:
        total = max(1, int(counts.sum()))
        order = counts.argsort(descending=True, stable=True).tolist()
        return [self.classes[index] for index in order if int(counts[index]) > _MIN_FRACTION * total]


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """Return a colour for each class, the same for any count: hues a golden angle apart."""
    colors = []
    for index in range(count):
        saturation, value = ((0.75, 0.95), (0.95, 0.70), (0.45, 0.90))[index % 3]
        red, green, blue = colorsys.hsv_to_rgb((0.58 + index * 0.61803) % 1.0, saturation, value)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colors


def paint(canvas: Image.Image, mask: Tensor, classes: int, *, ignore_index: int = 255) -> Image.Image:
    """Return the image with the colours of a class map blended over it.

    Args:
        canvas: An image of any size.
        mask: `(H, W)` class numbers, resized to the image by the nearest pixel.
        classes: How many classes there are.
        ignore_index: Value of ignored pixels, which are grey.
    """
    table = np.array([*class_colors(classes), _IGNORED], dtype=np.uint8)
    values = mask.numpy()
    indices = np.where((values == ignore_index) | (values >= classes), classes, values)
    colors = Image.fromarray(table[indices]).resize(canvas.size, Image.Resampling.NEAREST)
    return Image.blend(canvas, colors, _OPAQUE)
