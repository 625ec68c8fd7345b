"""One process of the test that scores are equal on 1, 2 and 3 processes."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.processes import together
from visionkit.metrics.segmentation import SegmentationMetric


def images(count: int):
    generator = torch.Generator().manual_seed(11)
    for index in range(count):
        maps = torch.randint(0, 5 + index % 3, (2, 9 + index, 14 - index), generator=generator)
        maps[1][torch.rand(maps[1].shape, generator=generator) < 0.2] = 255
        yield maps[0], maps[1]


def main(rank: int, folder: str) -> None:
    for world in range(max(1, rank + 1), 4):
        with together(folder, rank, world):
            meter = SegmentationMetric(7, boundary_tolerance=0.05)
            for prediction, truth in list(images(5))[rank::world]:
                meter.update(prediction, truth)
            scores = {name: value.hex() for name, value in meter.result().named().items()}
        Path(folder, f"{world}-{rank}.json").write_text(json.dumps(scores))
