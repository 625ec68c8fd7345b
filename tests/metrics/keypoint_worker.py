"""One process of the test that the scores of poses are equal on 1, 2 and 3 processes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.metrics.metric_cases import CASES, IMAGES, hexes
from tests.processes import together


def main(rank: int, folder: str) -> None:
    cases = [case for case in CASES if case.name in ("poses", "keypoints")]
    for world in range(max(1, rank + 1), 4):
        told = {}
        with together(folder, rank, world):
            for case in cases:
                metric = case.build()
                metric.update(*case.batch(*range(rank, IMAGES, world)))
                if rank == 0:  # objects that came twice
                    metric.update(*case.batch(3, 4))
                told[case.name] = hexes(metric.compute())
        Path(folder, f"{world}-{rank}.json").write_text(json.dumps(told))
