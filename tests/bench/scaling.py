"""How costs grow: with images, classes and boxes an image; and what that is as a power.

python -m tests.bench.scaling scaling.json scaling.png          # CPU time, one thread, a minute or two
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from tests.bench.row_metrics import CLASSES, evaluation
from visionkit.data.samplers import TrainBatchSampler
from visionkit.metrics.detection import CocoAP
from visionkit.metrics.segmentation import confusion_counts
from visionkit.nn.detection.roi_align import RoIPool


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
        return meter.result()

    return run


def count(classes: int) -> Callable[[], object]:
    truth = torch.randint(0, classes, (8, 256, 256))
    guess = torch.randint(0, classes, (8, 256, 256))
    return lambda: confusion_counts(guess, truth, num_classes=classes)


def pool(regions: int) -> Callable[[], object]:
    maps = [torch.randn(1, 256, 320 // r, 320 // r, requires_grad=True) for r in (4, 8, 16, 32)]
    corner = torch.rand(regions, 2) * 220
    boxes = [torch.cat((corner, corner + 20 + torch.rand(regions, 2) * 80), 1)]
    layer = RoIPool((4, 8, 16, 32), output_size=7)
    return lambda: layer(maps, boxes).sum().backward()


def order(samples: int) -> Callable[[], object]:
    made = TrainBatchSampler(samples, batch_size=32, seed=0)
    return lambda: made.epoch_order(0)


def power(sizes: list[int], seconds: list[float]) -> float:
    """The exponent of the growth over the larger half of the sizes: the slope between logarithms."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half - 1 :]), np.log(seconds[half - 1 :]), 1)[0])


def draw(found: dict[str, dict]) -> Figure:
    """One line a cost, relative to its smallest size, beside linear growth."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    widest = 1.0
    for name, one in found.items():
        grown = np.array(one["sizes"]) / one["sizes"][0]
        widest = max(widest, grown[-1])
        label = f"{name} (power {one['power']:.2f})"
        axes.plot(grown, np.array(one["seconds"]) / one["seconds"][0], marker="o", markersize=3, label=label)
    axes.plot([1, widest], [1, widest], color="#888888", linestyle=":", label="linear")
    axes.set(
        xscale="log", yscale="log", xlabel="size, over the smallest", ylabel="CPU time, over the smallest"
    )
    axes.legend(frameon=False, fontsize=8)
    return figure


def main(out: str, plot: str = "") -> None:
    torch.set_num_threads(1)
    curves = {
        "COCO evaluation: images of 50 detections": ([125, 250, 500, 1000, 2000], lambda n: score(n, 50)),
        "COCO evaluation: detections of 200 images": ([25, 50, 100, 200, 400], lambda n: score(200, n)),
        "confusion of 8 maps of 256 x 256: classes": ([20, 80, 320, 1280], count),
        "RoIAlign, forward and backward: regions": ([64, 128, 256, 512, 1024], pool),
        "order of an epoch: samples": ([10_000, 40_000, 160_000, 640_000], order),
    }
    found = {}
    for name, (sizes, make) in curves.items():
        seconds = [best(make(size)) for size in sizes]
        found[name] = {"sizes": sizes, "seconds": seconds, "power": round(power(sizes, seconds), 2)}
        print(f"{name}: power {found[name]['power']}")
    Path(out).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if plot:
        draw(found).savefig(plot, dpi=130)


if __name__ == "__main__":
    main(*sys.argv[1:])
