"""Random evaluations of poses, in our form and scored by pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("map", "map50", "map75", "map_medium", "map_large", "ar", "ar50", "ar75", "ar_medium", "ar_large")


def random_poses(seed: int, *, images: int = 5, points: int = 3, classes: int = 2, most: int = 5):
    """Images with crowds, objects without a labelled point, empty images, ties and far misses."""
    draw = np.random.default_rng(seed)
    predictions, targets = [], []
    for number in sorted(draw.choice(10_000, images, replace=False)):
        count = int(draw.integers(0, most + 1)) if draw.random() < 0.85 else 0
        size = draw.choice([12, 40, 70, 150], (count, 2)) * draw.uniform(0.8, 1.2, (count, 2))
        corner = draw.uniform(0, 200, (count, 2))
        xy = corner[:, None] + draw.random((count, points, 2)) * size[:, None]
        flags = draw.choice([0, 1, 2], (count, points, 1), p=[0.3, 0.2, 0.5])
        flags[draw.random(count) < 0.2] = 0
        labels = draw.integers(0, classes, count)
        poses, named = [], []
        for pose, label, side in zip(xy, labels, size):
            for _ in range(int(draw.integers(0, 4))):
                poses.append(pose + draw.normal(0, draw.choice([0, 0.03, 0.1]) * side.max(), pose.shape))
                named.append(label if draw.random() < 0.85 else draw.integers(classes))
        for _ in range(int(draw.integers(0, 3))):
            poses.append(draw.uniform(0, 300, (points, 2)))
            named.append(draw.integers(classes))
        scores = draw.random(len(poses)).round(int(draw.choice([1, 4])))
        predictions.append(
            {
                "keypoints": torch.from_numpy(np.array(poses).reshape(-1, points, 2)),
                "scores": torch.from_numpy(scores),
                "labels": torch.tensor([int(label) for label in named], dtype=torch.int64),
            }
        )
        targets.append(
            {
                "boxes": np.concatenate((corner, corner + size), 1),
                "labels": labels.astype(np.int64),
                "iscrowd": (draw.random(count) < 0.15).astype(np.int64),
                "area": size.prod(1) * draw.uniform(0.4, 0.9, count),
                "keypoints": np.concatenate((xy, flags), 2),
                "image_id": int(number),
            }
        )
    return predictions, targets


def reference_scores(predictions, targets, *, classes: int, sigmas) -> dict[str, float]:
    """The ten scores of `COCOeval(iouType="keypoints")`."""
    truth = {
        "images": [{"id": each["image_id"]} for each in targets],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
        "annotations": [],
    }
    results = []
    for found, each in zip(predictions, targets, strict=True):
        image = each["image_id"]
        for k, label in enumerate(each["labels"]):
            box, pose = each["boxes"][k], each["keypoints"][k]
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": image, "category_id": int(label) + 1,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]], "area": float(each["area"][k]),
                "iscrowd": int(each["iscrowd"][k]), "keypoints": pose.ravel().tolist(),
                "num_keypoints": int((pose[:, 2] > 0).sum()),
            })  # fmt: skip
        for pose, score, label in zip(found["keypoints"], found["scores"], found["labels"], strict=True):
            flat = torch.cat((pose, torch.ones(len(pose), 1)), 1).flatten().tolist()
            row = {"image_id": image, "category_id": int(label) + 1, "keypoints": flat, "score": float(score)}
            results.append(row)
    if not results or not truth["annotations"]:
        return {}
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        scored = COCOeval(reference, reference.loadRes(results), "keypoints")
        scored.params.kpt_oks_sigmas = np.array(sigmas)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return dict(zip(NAMES, scored.stats.tolist(), strict=True))
