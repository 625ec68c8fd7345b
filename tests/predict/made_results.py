"""Results of every kind without a network: what the writers take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from visionkit.data import read_image
from visionkit.predict.result import Result
from visionkit.tasks.captioning.prediction import CaptionPrediction
from visionkit.tasks.classification.prediction import predictions
from visionkit.tasks.detection.image_batch import Detections
from visionkit.tasks.embedding.prediction import EmbeddingPrediction
from visionkit.tasks.keypoints.prediction import KeypointPrediction
from visionkit.tasks.segmentation.prediction import SegmentationPrediction

NAMES = ("bat", "café", "cat")


def photos(folder: Path, names: tuple[str, ...] = ("a.png", "b.png", "deep/a.png")) -> list[Path]:
    """Small noise images of different sizes."""
    draw, files = np.random.default_rng(0), []
    for index, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (40 + index, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, format="PNG")
        files.append(file)
    return files


def prediction(kind: str, size: tuple[int, int], number: int) -> Any:
    """A prediction that is not of a network, another one for each number."""
    rng = torch.Generator().manual_seed(number)
    height, width = size
    if kind == "detection":
        count = number % 4  # an image without detections, too
        corner = torch.rand(count, 2, generator=rng) * torch.tensor([width - 10.0, height - 10.0])
        boxes = torch.cat((corner, corner + 1 + 8 * torch.rand(count, 2, generator=rng)), dim=1)
        scores = torch.linspace(0.9, 0.3, count)
        labels = torch.arange(count) % len(NAMES)
        return Detections(boxes, scores, labels, tuple(NAMES[i] for i in labels.tolist()))
    if kind == "segmentation":
        return SegmentationPrediction(torch.randint(len(NAMES), size, generator=rng), NAMES)
    if kind == "captioning":
        return CaptionPrediction("a cat", ("a", "cat"), -1.5, (("a cat", -1.5), ("a bat", -2.0)))
    if kind == "embedding":
        return EmbeddingPrediction(torch.nn.functional.normalize(torch.randn(5, generator=rng), dim=0))
    if kind == "keypoints":
        points = torch.rand(len(NAMES), 2, generator=rng) * torch.tensor([float(width), float(height)])
        scores = torch.rand(len(NAMES), generator=rng) if number % 2 else None
        return KeypointPrediction(points, scores, NAMES, ((0, 1),))
    target = {"multi": "multi", "regression": "regression"}.get(kind, "single")
    return predictions(torch.randn(1, len(NAMES), generator=rng), target, names=NAMES, ids=None)[0]


def result(file: Path | str, kind: str, number: int) -> Result:
    """The result of a file."""
    image = read_image(file)
    size = (int(image.shape[-2]), int(image.shape[-1]))
    family = "classification" if kind in ("single", "multi", "regression") else kind
    return Result(str(file), str(file), size, prediction(kind, size, number), family, NAMES, image)


def results(files: list[Path], kind: str) -> list[Result]:
    """The results of files."""
    return [result(file, kind, number) for number, file in enumerate(files, start=1)]
