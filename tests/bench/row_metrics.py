"""Scores: COCO's average precision, a confusion matrix of class maps."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import numpy as np
import torch
import torchmetrics
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from tests.bench.row import Row, Sides, Size, close, pick, same
from tests.metrics.detections import reference_scores, to_coco
from visionkit.metrics.detection import CocoAP
from visionkit.metrics.segmentation import SegmentationMetric

CLASSES = 80


def evaluation(images: int, found: int) -> tuple[list[dict], list[dict], list[str]]:
    """Images with about seven objects and `found` detections, of COCO's size and classes."""
    rng = np.random.default_rng(0)
    predictions, targets, ids = [], [], []
    for number in range(images):
        count = int(rng.integers(1, 14))
        low = rng.uniform(0, 400, (count, 2))
        boxes = np.concatenate((low, low + rng.uniform(8, 200, (count, 2))), 1)
        boxes = np.round(8 * boxes) / 8  # sides without rounding, for peers that compute them in 32 bits
        labels = rng.integers(0, CLASSES, count)
        near = rng.integers(0, count, found)
        detected = boxes[near] + rng.normal(0, 12, (found, 4))
        detected[:, 2:] = np.maximum(detected[:, 2:], detected[:, :2] + 1)
        detected = np.round(8 * detected) / 8
        named = np.where(rng.random(found) < 0.5, labels[near], rng.integers(0, CLASSES, found))
        predictions.append(
            {
                "boxes": torch.tensor(detected, dtype=torch.float32),
                "scores": torch.tensor(rng.random(found), dtype=torch.float32),
                "labels": torch.tensor(named),
            }
        )
        targets.append(
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32),
                "labels": torch.tensor(labels),
                "iscrowd": torch.zeros(count, dtype=torch.int64),
            }
        )
        ids.append(str(number))
    return predictions, targets, ids


def coco(peer: str) -> Callable[[Size], Sides]:
    def build(size: Size) -> Sides:
        images, found = pick(size, tiny=(8, 10), quick=(150, 100), full=(1000, 100))
        predictions, targets, ids = evaluation(images, found)
        truth, results = to_coco(predictions, targets, ids, categories=list(range(1, CLASSES + 1)))
        held = 0.0

        def ours() -> float:
            nonlocal held
            meter = CocoAP([str(i) for i in range(CLASSES)])
            for start in range(0, images, 8):
                part = slice(start, start + 8)
                meter.update(predictions[part], targets[part], ids[part])
            held = sum(a.nbytes for a in [*meter.detections, *meter.truths])
            return meter.result().values["map"]

        def pycocotools() -> float:  # finds its dictionaries made already
            return float(reference_scores(truth, [dict(result) for result in results])[0]["map"])

        def torchmetric() -> float:
            meter = MeanAveragePrecision(backend="faster_coco_eval", sync_on_compute=False)
            meter.warn_on_many_detections = False
            for start in range(0, images, 8):
                meter.update(predictions[start : start + 8], targets[start : start + 8])
            with contextlib.redirect_stdout(io.StringIO()):
                return float(meter.compute()["map"])

        return Sides(
            ours,
            pycocotools if peer == "pycocotools" else torchmetric,
            # The fast peer computes overlaps in 32 bits.
            close(atol=1e-6 if peer == "pycocotools" else 1e-4),
            facts=lambda: {"bytes a detection": round(held / (images * found), 1), "images": images},
        )

    return build


def confusion(size: Size) -> Sides:
    side, count = pick(size, tiny=(32, 2), quick=(256, 8), full=(512, 8))
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 21, (count, side, side), generator=rng)
    guess = torch.where(torch.rand(truth.shape, generator=rng) < 0.7, truth, (truth + 1) % 21)
    truth[:, :4] = 255
    ours = SegmentationMetric(21)
    theirs = torchmetrics.JaccardIndex("multiclass", num_classes=21, ignore_index=255)

    def run_ours() -> Tensor:
        ours.reset()
        ours.update(guess, truth)
        return ours.confmat

    def run_theirs() -> Tensor:
        theirs.reset()
        theirs.update(guess, truth)
        return theirs.confmat

    return Sides(run_ours, run_theirs, same)


ROWS = (
    Row("COCO evaluation", "pycocotools", coco("pycocotools"), goal=9.0,
        limit="overlaps and sorts of all boxes", package="pycocotools", rounds=3),
    Row("COCO evaluation, fast peer", "torchmetrics with faster-coco-eval", coco("torchmetrics"), goal=3.0,
        limit="overlaps and sorts of all boxes", package="torchmetrics", rounds=5),
    Row("confusion matrix of class maps", "torchmetrics JaccardIndex", confusion, goal=3.0,
        limit="one read of the maps", package="torchmetrics"),
)  # fmt: skip
