"""Random detection evaluations, in our form and scored by pycocotools."""

from __future__ import annotations

import contextlib
import io
import random

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = [
    *("map", "map50", "map75", "map_small", "map_medium", "map_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
]


def random_evaluation(
    seed: int, *, images: int = 6, classes: int = 4, most: int = 6, masks: bool = False, side: int = 160
):
    """Images with crowds, empty ones, ties, missing classes, noisy hits and far misses."""
    generator = np.random.default_rng(seed)
    predictions, targets, ids = [], [], []
    used = generator.permutation(classes)[: max(1, classes - 1)]  # one class never has an object
    for number in sorted(generator.choice(10_000, images, replace=False)):
        count = int(generator.integers(0, most + 1)) if generator.random() < 0.8 else 0
        size = generator.choice([6, 20, 50, 110], (count, 2)) * generator.uniform(0.8, 1.2, (count, 2))
        corner = generator.uniform(0, 1, (count, 2)) * (side - size).clip(0)
        boxes = np.concatenate((corner, corner + size), 1).clip(0, side).astype(np.float32)
        labels = generator.choice(used, count)
        found, named = [], []
        for box, label in zip(boxes, labels):
            for _ in range(int(generator.integers(0, 4))):
                found.append(box + generator.normal(0, generator.choice([0, 1, 5]), 4))
                named.append(label if generator.random() < 0.8 else generator.integers(classes))
        for _ in range(int(generator.integers(0, 5))):
            corner_far = generator.uniform(0, side - 20, 2)
            found.append(np.concatenate((corner_far, corner_far + generator.uniform(3, 60, 2))))
            named.append(generator.integers(classes))
        detected = np.array(found, dtype=np.float32).reshape(-1, 4)
        detected = np.concatenate((detected[:, :2], np.maximum(detected[:, 2:], detected[:, :2] + 0.5)), 1)
        detected = detected.clip(0, side)
        scores = generator.random(len(found)).round(int(generator.choice([1, 4])))
        prediction = {
            "boxes": torch.from_numpy(detected).float(),
            "scores": torch.tensor(scores, dtype=torch.float32),
            "labels": torch.tensor([int(n) for n in named], dtype=torch.int64),
        }
        target = {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(labels.astype(np.int64)),
            "iscrowd": torch.from_numpy((generator.random(count) < 0.2).astype(np.int64)),
        }
        if masks:
            for each in (prediction, target):
                each["masks"] = _ellipses(each["boxes"], side)
        predictions.append(prediction)
        targets.append(target)
        ids.append(str(number))
    return predictions, targets, ids


def _ellipses(boxes: torch.Tensor, side: int) -> torch.Tensor:
    grid = torch.arange(side) + 0.5
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=0.1)
    x = (grid[None] - middle[:, :1]) / half[:, :1]
    y = (grid[None] - middle[:, 1:]) / half[:, 1:]
    return (x[:, None] ** 2 + y[:, :, None] ** 2 <= 1).to(torch.uint8)


def to_coco(predictions, targets, ids, *, categories, masks=False, side=160):
    """The same evaluation as COCO dictionaries with the given (non-contiguous) category ids."""
    annotations, results = [], []
    for prediction, target, name in zip(predictions, targets, ids):
        for index, box in enumerate(target["boxes"].double().tolist()):
            wide, high = box[2] - box[0], box[3] - box[1]
            entry = {
                "id": 7 + 3 * len(annotations),
                "image_id": int(name),
                "category_id": categories[int(target["labels"][index])],
                "bbox": [box[0], box[1], wide, high],
                "area": wide * high,
                "iscrowd": int(target["iscrowd"][index]),
            }
            if masks:
                entry["segmentation"] = _rle(target["masks"][index])
                entry["area"] = float(coco_mask.area(entry["segmentation"]))
            annotations.append(entry)
        for index, box in enumerate(prediction["boxes"].double().tolist()):
            entry = {
                "image_id": int(name),
                "category_id": categories[int(prediction["labels"][index])],
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "score": float(prediction["scores"][index]),
            }
            if masks:
                entry["segmentation"] = _rle(prediction["masks"][index])
                del entry["bbox"]
            results.append(entry)
    truth = {
        "info": {},
        "images": [{"id": int(name), "height": side, "width": side} for name in ids],
        "categories": [{"id": c, "name": str(c)} for c in categories],
        "annotations": annotations,
    }
    return truth, results


def _rle(mask: torch.Tensor):
    return coco_mask.encode(np.asfortranarray(mask.numpy()))


def reference_scores(truth, results, kind: str = "bbox"):
    """pycocotools' twelve numbers, and its map of each category."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        found = coco.loadRes(results) if results else COCO()
        if not results:
            found.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": []}
            found.createIndex()
        evaluation = COCOeval(coco, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = [p[p > -1].mean() if (p > -1).any() else -1.0 for p in precision.transpose(2, 0, 1)]
    return dict(zip(NAMES, evaluation.stats)), per_class


def shuffled(evaluation, seed: int):
    """The same images in another order."""
    order = list(range(len(evaluation[2])))
    random.Random(seed).shuffle(order)
    return tuple([part[i] for i in order] for part in evaluation)
