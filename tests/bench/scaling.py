"""How costs grow: with pictures, classes and boxes a picture; and what that is as a power.

python -m tests.bench.scaling scaling.json          # CPU time, one thread, a minute or two
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.bench.row_metrics import CLASSES, evaluation
from visionkit.metrics.detection import CocoAP
from visionkit.metrics.segmentation import confusion_counts

SIZES = (50, 100, 200, 400)


def best(call: Callable[[], object], rounds: int = 3) -> float:
    """The least CPU seconds of a few calls: what others take from the machine only adds."""
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return min(spent)


def score(images: int, found: int) -> Callable[[], object]:
    predictions, targets, ids = evaluation(images, found)

    def run() -> object:
        meter = CocoAP([str(i) for i in range(CLASSES)])
        meter.update(predictions, targets, ids)
        return meter.reduce()

    return run


def count(classes: int) -> Callable[[], object]:
    truth = torch.randint(0, classes, (8, 256, 256))
    guess = torch.randint(0, classes, (8, 256, 256))
    return lambda: confusion_counts(guess, truth, num_classes=classes)


def power(sizes: list[int], seconds: list[float]) -> float:
    """The exponent of the growth: the slope between logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main(out: str) -> None:
    torch.set_num_threads(1)
    curves = {
        "COCO evaluation, pictures (50 detections each)": ([*SIZES], lambda n: score(n, 50)),
        "COCO evaluation, detections a picture (100 pictures)": ([12, 25, 50, 100], lambda n: score(100, n)),
        "confusion matrix, classes (8 maps of 256 x 256)": ([5, 20, 80, 320], count),
    }
    found = {}
    for name, (sizes, make) in curves.items():
        seconds = [best(make(size)) for size in sizes]
        found[name] = {"sizes": sizes, "seconds": seconds, "power": round(power(sizes, seconds), 2)}
        print(f"{name}: power {found[name]['power']}")
    Path(out).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
