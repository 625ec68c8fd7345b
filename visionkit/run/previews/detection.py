"""Previews of detection: true boxes, right and wrong detections; the file of precision-recall curves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from visionkit.drawing.panels import GAP, add_title, caption_panel, join_grid
from visionkit.drawing.row_panels import draw_prediction, draw_truth
from visionkit.files import write_text
from visionkit.run.previews.to_pil import to_pil
from visionkit.run.training.best_effort import BestEffort
from visionkit.tasks.detection.image_batch import Detections

__all__ = ["BoxPreview", "CurveFile"]

SIDE = 320  # pixels of the longer side; names on boxes need more than a label
_MAX_BOXES = 100  # boxes of an image in the predictions file


class BoxPreview:
    """Describes and draws the images of a `Detector`; a `PreviewKind`.

    A detection is right if it has the class of an object that no better one matches, and IoU 0.5 with it. The
    "loss" of an image is the fraction of objects and detections without a match.

    Args:
        classes: The names, by label.
        threshold: Minimum score of a detection that is drawn and counted.
        edges: Pairs of keypoints that a line joins, where objects have keypoints.
    """

    def __init__(
        self, classes: Sequence[str], *, threshold: float = 0.5, edges: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.classes, self.edges = list(classes), [list(edge) for edge in edges]
        self.threshold = threshold

    def training(self, batch: dict[str, Any], count: int) -> list[Image.Image]:
        """Return the first images of a training batch with their boxes."""
        panels = []
        for image, target in list(zip(batch["images"], batch["targets"], strict=True))[:count]:
            canvas = to_pil(image, side=SIDE)
            row = {
                "size": list(image.shape[-2:]),
                "true_boxes": target["boxes"].tolist(),
                "true_labels": self._names(target["labels"]),
                **self._poses("true_poses", target.get("keypoints")),
            }
            lines: list[tuple[str, bool | None]] = [(self._count(target["labels"]), None)]
            panels.append(caption_panel(draw_truth(canvas, row), lines, side=SIDE))
        return panels

    def rows(
        self, module: lightning.LightningModule, batch: dict[str, Any], preds: Sequence[dict[str, Tensor]]
    ) -> list[dict[str, Any]]:
        """Return truth, prediction, confidence and loss of every image of a batch, with their boxes."""
        rows = []
        sizes = [tuple(t.get("size", i.shape[-2:])) for t, i in zip(batch["targets"], batch["images"])]
        for name, pred, target, image, size in zip(
            batch["ids"], preds, batch["targets"], batch["images"], sizes, strict=True
        ):
            detections = Detections.on_host(pred, class_names=None, name=name)
            ratio = torch.tensor([size[1] / image.shape[-1], size[0] / image.shape[-2]] * 2)
            real = target.get("iscrowd", torch.zeros_like(target["labels"])).cpu() == 0
            truth, labels = target["boxes"].cpu()[real] * ratio, target["labels"].cpu()[real]
            keep = detections.scores >= self.threshold
            boxes, pred_labels, scores = (
                values[keep] for values in (detections.boxes, detections.labels, detections.scores)
            )
            right = _matches(boxes, pred_labels, truth, labels)
            total = len(boxes) + len(truth)
            rows.append(
                {
                    "id": name,
                    "truth": self._count(labels),
                    "prediction": self._count(pred_labels),
                    "confidence": float(scores.mean()) if len(scores) else None,
                    "loss": 1 - 2 * sum(right) / total if total else 0.0,
                    "size": [int(size[0]), int(size[1])],
                    "true_boxes": _listed(truth),
                    "true_labels": self._names(labels[:_MAX_BOXES]),
                    "boxes": _listed(boxes),
                    "labels": self._names(pred_labels[:_MAX_BOXES]),
                    "scores": [round(score, 4) for score in scores[:_MAX_BOXES].tolist()],
                    "right": right[:_MAX_BOXES],
                    **self._poses("true_poses", _scaled(target.get("keypoints"), real, ratio)),
                    **self._poses("poses", _scaled(detections.keypoints, keep, None)),
                }
            )
        return rows

    def images(self, batch: dict[str, Any], index: int, row: dict[str, Any]) -> dict[str, Image.Image]:
        """Return the image itself, small."""
        return {"image": to_pil(batch["images"][index], side=SIDE)}

    def panel(self, images: dict[str, Image.Image], row: dict[str, Any]) -> Image.Image:
        """Return true boxes beside right (green) and wrong (red) detections, with their counts below."""
        image = images["image"]
        drawn = {"truth": draw_truth(image, row), "prediction": draw_prediction(image, row)}
        parts = [add_title(part, name) for name, part in drawn.items()]
        lines = [(f"is {row['truth']}", None), (f"said {row['prediction']}", row["loss"] == 0)]
        return caption_panel(join_grid(parts, columns=2, gap=GAP // 2), [*lines, (str(row["id"]), None)])

    def _poses(self, name: str, points: Tensor | None) -> dict[str, Any]:
        """Return the points of objects by a name, with the edges; nothing where objects have none."""
        if points is None:
            return {}
        labelled = points[..., 2] > 0 if points.shape[-1] == 3 else torch.ones_like(points[..., 0]) > 0
        poses = [
            [[round(x, 1), round(y, 1)] if there else None for (x, y, *_), there in zip(pose, known)]
            for pose, known in zip(points[:_MAX_BOXES].tolist(), labelled.tolist())
        ]
        return {name: poses, "edges": self.edges}

    def _names(self, labels: Tensor) -> list[str]:
        return [self.classes[label] for label in labels.tolist()]

    def _count(self, labels: Tensor) -> str:
        counts = Counter(labels.tolist())
        return ", ".join(f"{counts[label]} {self.classes[label]}" for label in sorted(counts)) or "none"


class CurveFile(BestEffort, Callback):
    """Writes the precision-recall curves and the AP by class of the last validation, for the report.

    Args:
        folder: The run's folder; the file is `predictions/curves.json`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "predictions" / "curves.json"

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the scores of the task."""
        scores = getattr(pl_module, "detection_scores", None)
        if scores is None or not trainer.is_global_zero:
            return
        with self.best_effort("The file of curves"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            content = {"curves": scores.curves, "ap": {k: v for k, v in scores.per_class.items() if v >= 0}}
            write_text(self.path, json.dumps(content))


def _matches(boxes: Tensor, preds: Tensor, truth: Tensor, labels: Tensor) -> list[bool]:
    """Return for each detection, best first, whether it matches an object that no better one matches."""
    overlap = box_iou(boxes, truth) * (preds[:, None] == labels[None])
    right = []
    for row in overlap:
        best = int(row.argmax()) if len(row) else -1
        hit = best >= 0 and float(row[best]) >= 0.5
        if hit:
            overlap[:, best] = 0
        right.append(hit)
    return right


def _scaled(points: Tensor | None, chosen: Tensor, ratio: Tensor | None) -> Tensor | None:
    """Return the chosen ones of keypoints `(N, K, 2)` or `(N, K, 3)`, in another frame."""
    if points is None:
        return None
    remaining = points.cpu()[chosen].clone()
    if ratio is not None:
        remaining[..., :2] *= ratio[:2]
    return remaining


def _listed(boxes: Tensor) -> list[list[float]]:
    return [[round(value, 1) for value in box] for box in boxes[:_MAX_BOXES].tolist()]
