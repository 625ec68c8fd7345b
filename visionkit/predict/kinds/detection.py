"""Boxes of objects, perhaps with masks or keypoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from visionkit.drawing.boxes import NamedBox, draw_boxes
from visionkit.drawing.class_colors import Color, class_colors
from visionkit.drawing.panels import add_below
from visionkit.drawing.skeleton import draw_skeleton
from visionkit.metrics.coco.masks import encode_runs
from visionkit.predict.kinds.blocks import MUTED, block_width, legible, text_block, text_size
from visionkit.predict.kinds.kind import Kind, class_name
from visionkit.tasks.detection.image_batch import Detections

__all__ = ["DETECTION"]

_SUMMARY_SCORE = 0.5  # minimum score of a detection that the line counts
_OPAQUE = 0.45  # of a mask's colour over the image
_LABEL = 0.9  # height of names on the image, beside other text


def _to_dict(prediction: Detections, names: Sequence[str]) -> dict[str, Any]:
    labels: list[int] = prediction.labels.tolist()
    content: dict[str, Any] = {
        "boxes": prediction.boxes.tolist(),
        "scores": prediction.scores.tolist(),
        "labels": labels,
        "names": [class_name(label, names) for label in labels],
    }
    if prediction.masks is not None:
        content["masks"] = [
            {"size": [int(side) for side in run["size"]], "counts": run["counts"].decode("ascii")}
            for run in encode_runs(prediction.masks)
        ]
    if prediction.keypoints is not None and prediction.keypoint_scores is not None:
        content["keypoints"] = prediction.keypoints.tolist()
        content["keypoint_scores"] = prediction.keypoint_scores.tolist()
        content["keypoint_names"] = list(prediction.keypoint_names)
        content["edges"] = [list(edge) for edge in prediction.edges]
    return content


def _summary(prediction: Detections, names: Sequence[str]) -> str:
    counts = Counter(prediction.labels[prediction.scores >= _SUMMARY_SCORE].tolist())
    counted = ", ".join(f"{counts[label]} {class_name(label, names)}" for label in sorted(counts))
    return counted or f"nothing with a score of {_SUMMARY_SCORE:g} or more"


def _draw(prediction: Detections, names: Sequence[str], image: Tensor, min_score: float) -> Image.Image:
    """Return the image with masks, points, boxes, names and scores of its objects, the best on top."""
    canvas = legible(image)
    size = text_size(canvas)
    shown = (prediction.scores >= min_score).nonzero().flatten()
    if not len(shown):
        text = f"nothing with a score of {min_score:g} or more"
        return add_below(canvas, text_block(text, width=block_width(canvas), size=size, color=MUTED))
    labels: list[int] = prediction.labels[shown].tolist()
    palette = class_colors(max(labels) + 1)
    colors = [palette[label] for label in labels]
    line = max(2, round(size / 6))
    if prediction.masks is not None:
        canvas = _lay_over(canvas, [prediction.masks[index] for index in shown], colors, line)
    ratio = torch.tensor([canvas.width / image.shape[-1], canvas.height / image.shape[-2]] * 2)
    boxes = (prediction.boxes[shown] * ratio).tolist()
    scores = prediction.scores[shown].tolist()
    texts = [f"{class_name(label, names)} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    named = [NamedBox(*each) for each in zip(boxes, texts, colors, strict=True)]
    draw_boxes(canvas, named, size=round(size * _LABEL), line=line)
    if prediction.keypoints is not None:
        points = (prediction.keypoints[shown] * ratio[:2]).tolist()
        for pose, color in reversed(list(zip(points, colors, strict=True))):
            draw_skeleton(canvas, pose, prediction.edges, [color] * len(pose), line=line)
    return canvas


def _lay_over(
    canvas: Image.Image, masks: Sequence[Tensor], colors: Sequence[Color], line: int
) -> Image.Image:
    """Return the image with masks `(H, W)` in transparent colours, with outlines, the first on top."""
    pixels = np.array(canvas)
    for mask, color in reversed(list(zip(masks, colors, strict=True))):
        whole = np.asarray(Image.fromarray(mask.numpy()).resize(canvas.size, Image.Resampling.NEAREST))
        rows, columns = (np.flatnonzero(whole.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            continue
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        inside, area = whole[part], pixels[part]
        outside = functional.pad(torch.from_numpy(np.float32(1) - inside)[None, None], [line] * 4, value=1.0)
        near = functional.max_pool2d(outside, (2 * line + 1, 1), stride=1)  # a square, one side at a time
        edge = functional.max_pool2d(near, (1, 2 * line + 1), stride=1)[0, 0].numpy() > 0
        area[inside] = (1 - _OPAQUE) * area[inside] + _OPAQUE * np.array(color)
        area[inside & edge] = color
    return Image.fromarray(pixels)


def _collate(
    images: list[Tensor], sizes: list[tuple[int, int]], ids: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """Return a batch whose detections are in the frames of the originals; the task moves the images."""
    return {"images": images, "ids": list(ids), "targets": [{"size": size} for size in sizes]}


def _preprocess(side: int) -> dict[str, Any]:
    """Return the resize of evaluation: `side` is the longest side, 5/3 of the short one."""
    resize = {"name": "Resize", "size": max(1, round(side * 3 / 5)), "max_size": side}
    return {"name": "DetectionEval", "resize": resize}


DETECTION = Kind(
    name="detection",
    task="Detector",
    to_dict=_to_dict,
    summary=_summary,
    draw=_draw,
    collate=_collate,
    preprocess=_preprocess,
)
