"""One process of the test that AP is equal on 1, 2 and 3 processes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.metrics.detections import random_evaluation
from tests.processes import together
from visionkit.metrics.detection import CocoAP


def main(rank: int, folder: str) -> None:
    evaluation = random_evaluation(5, images=8, masks=True)
    for world in range(max(1, rank + 1), 4):
        with together(folder, rank, world):
            metric = CocoAP(["a", "b", "c", "d"], masks=True)
            shard = [part[rank::world] for part in evaluation]
            metric.update(*shard)
            if rank == 0:  # an image that came twice
                metric.update(*[part[3:5] for part in evaluation])
            scores = metric.result()
            told = {name: value.hex() for name, value in (scores.values | scores.per_class).items()}
        Path(folder, f"{world}-{rank}.json").write_text(json.dumps(told))
