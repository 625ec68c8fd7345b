"""The detectors of `recipes/detect.py --variant small` on one thread: images a CPU second, and memory.

OMP_NUM_THREADS=1 python -m tests.bench.detectors

CPU time, so that other work on the machine counts little. One detector a process: memory is its peak.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

STEPS, BATCH, HEIGHT, WIDTH = 5, 4, 320, 427  # the size that the variant gives photographs of 640 x 480


def measure(name: str) -> str:
    """Return a row: training and evaluation in images a CPU second, peak memory in MB."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
    import detect
    from visionkit.task_config import DETECTOR_SETTINGS
    from visionkit.tasks import Detector

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = detect.small(detect.Config(detector=name))
    setting = DETECTOR_SETTINGS[name]
    task = Detector(
        config.backbone, init="pretrained", num_classes=3, detector=name, image_size=round(320 * 5 / 3),
        pyramid_channels=config.pyramid_channels, **{setting: getattr(config, setting)},
    ).to(memory_format=torch.channels_last)  # fmt: skip
    images = [torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8) for _ in range(BATCH)]
    corner = torch.rand(12, 2) * 250
    target = {"boxes": torch.cat((corner, corner + 50), 1), "labels": torch.randint(3, (12,))}
    batch = {"images": images, "targets": [target] * BATCH}
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)

    def train() -> None:
        task.training_step(batch, 0)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    trained = _rate(task.train(), train)
    evaluated = _rate(task.eval(), lambda: task.predict_step(batch))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    count = sum(parameter.numel() for parameter in task.parameters()) / 1e6
    return f"| {name} | {count:.2f} M | {trained:.2f} | {evaluated:.2f} | {peak:,.0f} |"


def _rate(task: torch.nn.Module, step) -> float:
    step()  # the first allocates
    start = time.process_time()
    for _ in range(STEPS):
        step()
    return STEPS * BATCH / (time.process_time() - start)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(sys.argv[1]))
    else:
        for each in ("faster_rcnn", "retinanet", "fcos"):
            subprocess.run([sys.executable, "-m", "tests.bench.detectors", each], check=True)
