"""Previews of classification: single labels, multiple labels, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from visionkit.drawing.panels import caption_panel
from visionkit.run.previews.to_pil import to_pil

__all__ = ["ClassPreview"]

_MAX_CLASSES = 60  # classes whose probabilities are written, for each image


class ClassPreview:
    """Describes and draws the images of a `Classifier`; a `PreviewKind`.

    Args:
        classes: The names, in the order of the logits; empty for regression.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)

    def training(self, batch: dict[str, Any], count: int) -> list[Image.Image]:
        """Return the first images of a training batch with their (perhaps mixed) labels."""
        images, labels = batch["images"][:count], batch["labels"][:count].detach().cpu()
        texts = [self._name_target(label) for label in labels]
        if "labels_b" in batch:
            others = [self._name_target(label) for label in batch["labels_b"][:count].detach().cpu()]
            lam = torch.as_tensor(batch["lam"]).detach().float().cpu().expand(len(batch["images"])).tolist()
            texts = [
                a if a == b or weight > 0.99 else f"{weight:.2f} {a} + {1 - weight:.2f} {b}"
                for a, b, weight in zip(texts, others, lam[:count], strict=True)
            ]
        return [
            caption_panel(to_pil(image), [(text, None)]) for image, text in zip(images, texts, strict=True)
        ]

    def rows(
        self, module: lightning.LightningModule, batch: dict[str, Any], preds: Tensor
    ) -> list[dict[str, Any]]:
        """Return truth, prediction, confidence and loss of every image of a batch."""
        labels = batch["labels"].detach().cpu()
        logits = preds.detach().float().cpu()  # (B, K)
        if labels.dtype == torch.int64 and labels.dim() == 1:
            rows = self._single(logits, labels)
        elif _is_binary(labels) and len(self.classes) == labels.shape[-1]:
            rows = self._multiple(logits, labels)
        else:
            units = getattr(module, "standardize", None)
            std = torch.ones(logits.shape[1]) if units is None else units.std.detach().float().cpu()
            rows = _numbers(logits, labels, std)
        return [{"id": name} | row for name, row in zip(batch["ids"], rows, strict=True)]

    def images(self, batch: dict[str, Any], index: int, row: dict[str, Any]) -> dict[str, Image.Image]:
        """Return the image itself, small."""
        return {"image": to_pil(batch["images"][index])}

    def panel(self, images: dict[str, Image.Image], row: dict[str, Any]) -> Image.Image:
        """Return the image with truth and prediction below it."""
        right = row.get("right", row["prediction"] == row["truth"])
        confidence = "" if row["confidence"] is None else f" {100 * row['confidence']:.0f}%"
        answer = row.get("answer") or _text(row["prediction"])
        lines = [(f"is {_text(row['truth'])}", None), (f"said {answer}{confidence}", right)]
        return caption_panel(images["image"], lines)

    def _single(self, logits: Tensor, labels: Tensor) -> list[dict[str, Any]]:
        losses = functional.cross_entropy(logits, labels, reduction="none").tolist()
        probs = logits.softmax(dim=1)
        tops, preds = probs.max(dim=1)
        return [
            {"truth": self._name(truth), "prediction": self._name(pred), "confidence": top, "loss": loss}
            | _probabilities(row)
            for truth, pred, top, loss, row in zip(
                labels.tolist(), preds.tolist(), tops.tolist(), losses, probs, strict=True
            )
        ]

    def _multiple(self, logits: Tensor, labels: Tensor) -> list[dict[str, Any]]:
        losses = functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
        probs = logits.sigmoid()
        # The confidence of a set of labels is that of its least certain label.
        confidences = torch.maximum(probs, 1 - probs).amin(dim=1).tolist()
        means = losses.mean(dim=1).tolist()
        return [
            {"truth": self._names(truth), "prediction": self._names(pred), "confidence": prob, "loss": loss}
            | _probabilities(row)
            for truth, pred, prob, loss, row in zip(
                labels > 0.5, probs > 0.5, confidences, means, probs, strict=True
            )
        ]

    def _name(self, index: int) -> str:
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"

    def _names(self, chosen: Tensor) -> list[str]:
        return [self._name(index) for index in chosen.nonzero().flatten().tolist()]

    def _name_target(self, label: Tensor) -> str:
        if label.dim() == 0:
            return self._name(int(label))
        if len(self.classes) != label.numel():
            return _text([round(value, 3) for value in label.flatten().tolist()])
        weights = [(float(w), self._name(index)) for index, w in enumerate(label.tolist()) if w > 0.01]
        parts = [name if w > 0.99 else f"{w:.2f} {name}" for w, name in sorted(weights, reverse=True)]
        return " + ".join(parts) or "none"


def _probabilities(row: Tensor) -> dict[str, list[float]]:
    """Return the probabilities of the classes as they are written, if they are few; ROC curves need them."""
    if len(row) > _MAX_CLASSES:
        return {}
    return {"probabilities": [float(f"{value:.6g}") for value in row.tolist()]}


def _is_binary(labels: Tensor) -> bool:
    return bool(((labels == 0) | (labels == 1)).all())


def _numbers(outputs: Tensor, labels: Tensor, std: Tensor) -> list[dict[str, Any]]:
    outputs, labels = outputs.reshape(len(outputs), -1), labels.float().reshape(len(labels), -1)
    losses = ((outputs - labels) / std).square().mean(dim=1).tolist()
    # A number is not right or wrong: its answer gives the error.
    return [
        {
            "truth": _rounded(truth),
            "prediction": _rounded(pred),
            "answer": f"{_text(_rounded(pred))}, off by {_text(_errors(pred, truth))}",
            "right": None,
            "confidence": None,
            "loss": loss,
        }
        for truth, pred, loss in zip(labels, outputs, losses, strict=True)
    ]


def _errors(pred: Tensor, truth: Tensor) -> list[str]:
    return [f"{value:.4g}" for value in (pred - truth).abs().tolist()]


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 4) for value in values]


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
