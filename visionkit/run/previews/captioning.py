"""Previews of captioning: the image with the generated caption and a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning
from PIL import Image

from visionkit.drawing.image_text import wrap_text
from visionkit.drawing.panels import SIDE, TEXT_SIZE, caption_panel
from visionkit.metrics.rouge import rouge_l
from visionkit.run.previews.to_pil import to_pil
from visionkit.tasks.captioning.prediction import CaptionPrediction
from visionkit.text.tokenize import tokenize

__all__ = ["CaptionPreview"]

_LINES = 3
_SAVED_SIDE = 256  # of the images that the report shows


class CaptionPreview:
    """Describes and draws the images of a `Captioner`; a `PreviewKind`.

    A row's "loss" is 1 - ROUGE-L of the caption: unlike CIDEr it is defined for a single image.
    """

    def training(self, batch: dict[str, Any], count: int) -> list[Image.Image]:
        """Return the first images of a training batch with the first of their captions."""
        pairs = list(zip(batch["images"], batch["references"], strict=True))[:count]
        return [caption_panel(to_pil(image), _lines(texts[0], None)) for image, texts in pairs]

    def rows(
        self, module: lightning.LightningModule, batch: dict[str, Any], preds: Sequence[CaptionPrediction]
    ) -> list[dict[str, Any]]:
        """Return references, caption, its mean probability a word and 1 - ROUGE-L of every image."""
        references = [[tokenize(text) for text in texts] for texts in batch["references"]]
        scores = rouge_l([prediction.tokens for prediction in preds], references)
        return [
            {
                "id": name,
                "truth": " / ".join(texts),
                "prediction": prediction.caption,
                "confidence": math.exp(prediction.log_prob / (len(prediction.tokens) + 1)),
                "right": list(prediction.tokens) in tokens,
                "loss": 1.0 - score,
            }
            for name, texts, prediction, tokens, score in zip(
                batch["ids"], batch["references"], preds, references, scores, strict=True
            )
        ]

    def images(self, batch: dict[str, Any], index: int, row: dict[str, Any]) -> dict[str, Image.Image]:
        """Return the image itself, small."""
        return {"image": to_pil(batch["images"][index], side=_SAVED_SIDE)}

    def panel(self, images: dict[str, Image.Image], row: dict[str, Any]) -> Image.Image:
        """Return the image with the caption and the first reference below it."""
        reference = str(row["truth"]).split(" / ")[0]
        small = images["image"].copy()
        small.thumbnail((SIDE, SIDE))
        return caption_panel(small, [*_lines(row["prediction"], row["right"]), *_lines(reference, None)])


def _lines(text: str, right: bool | None) -> list[tuple[str, bool | None]]:
    """Break a sentence into three lines; the last one takes the rest."""
    lines = wrap_text(text, TEXT_SIZE, SIDE - 4, max_lines=_LINES)
    return [(line, right) for line in lines + [""] * (_LINES - len(lines))]
