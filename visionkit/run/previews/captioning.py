"""Previews of captioning: the canvas, what is said of it, and what people say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning
from PIL import Image

from visionkit.metrics.rouge import rouge_l
from visionkit.run.previews.image_grid import caption_panel, to_pil
from visionkit.text.tokenize import tokenize

__all__ = ["CaptionPreview", "said_of"]

_LETTERS = 19


class CaptionPreview:
    """Describes and draws the images of a `Captioner`; a `PreviewKind`.

    The worst images are those whose caption is least like its references (1 - ROUGE-L, which, unlike CIDEr,
    an image has by itself).
    """

    def training(self, batch: dict[str, Any], count: int) -> list[Image.Image]:
        """Return the first images of a training batch with the caption that is taught first."""
        images, several = batch["images"][:count], batch["references"][:count]
        return [
            caption_panel(to_pil(image), _lines(texts[0], None))
            for image, texts in zip(images, several, strict=True)
        ]

    def rows(self, module: lightning.LightningModule, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return references, caption, its probability a word and 1 - ROUGE-L of every canvas."""
        said = said_of(module, batch)
        references = [[tokenize(text) for text in several] for several in batch["references"]]
        likeness = rouge_l([prediction.tokens for prediction in said], references)
        return [
            {
                "id": name,
                "truth": " / ".join(batch["references"][place]),
                "prediction": said[place].caption,
                "confidence": math.exp(said[place].log_prob / (len(said[place].tokens) + 1)),
                "right": list(said[place].tokens) in references[place],
                "loss": 1.0 - likeness[place],
            }
            for place, name in enumerate(batch["ids"])
        ]

    def image(self, batch: dict[str, Any], position: int, row: dict[str, Any]) -> Image.Image:
        """Return the image itself, small."""
        return to_pil(batch["images"][position])

    def panel(self, canvas: Image.Image, row: dict[str, Any]) -> Image.Image:
        """Return the image with the caption and the first reference below it."""
        reference = str(row["truth"]).split(" / ")[0]
        return caption_panel(canvas, [*_lines(row["prediction"], row["right"]), *_lines(reference, None)])


def said_of(module: Any, batch: dict[str, Any]) -> Sequence[Any]:
    """Return what a captioner says of a batch: what it has just said in evaluation, where that is at hand."""
    said = module.predictions
    if [prediction.id for prediction in said] == list(batch["ids"]):
        return list(said)
    return list(module.predict_step(batch))


def _lines(text: str, right: bool | None) -> list[tuple[str, bool | None]]:
    """Break a sentence into three lines; what does not fit is cut."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > _LETTERS and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    lines = [*lines[:2], " ".join(lines[2:])] if len(lines) > 3 else lines + [""] * (3 - len(lines))
    return [(line, right) for line in lines]
