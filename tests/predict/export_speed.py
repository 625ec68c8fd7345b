"""The table of speeds in `reference/export.md`: `python -m tests.predict.export_speed [TASK ...]`."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.bench.timing import time_pairs
from visionkit.predict.export import export
from visionkit.predict.export.check import reference
from visionkit.predict.export.check_images import check_batches, check_images
from visionkit.predict.export.onnx_model import open_session, run_session
from visionkit.task_config import Decoding
from visionkit.tasks import Captioner, Classifier, Detector, Segmenter
from visionkit.text.vocabulary import Vocabulary

SETTINGS: dict[str, Any] = {"backbone": "packaged/efficientnet_lite0", "init": "scratch"}
CROP = {"name": "CenterCrop", "size": 224, "fraction": 1.0}
RESIZE = {"name": "Resize", "size": 320, "max_size": 320}


def tasks() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield the four tasks with new heads, by name, and how images are resized for them."""
    yield "classifier", Classifier(**SETTINGS, num_classes=37), CROP
    yield "segmenter", Segmenter(**SETTINGS, num_classes=12), {"name": "Native"}
    yield "detector", Detector(**SETTINGS, num_classes=20), {"name": "DetectionEval", "resize": RESIZE}
    words = Vocabulary([f"w{number}" for number in range(3000)])
    yield (
        "captioner",
        Captioner(**SETTINGS, vocabulary=words, decoding=Decoding(beams=1, max_length=20)),
        CROP,
    )


def main(names: Sequence[str]) -> None:
    """Export each that is named, or all, time the file beside the task, and print a row."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, _ = check_images(None, None, channels=3)
    for name, task, preprocess in tasks():
        if names and name not in names:
            continue
        task.eval()
        with tempfile.TemporaryDirectory() as folder:
            made = export(task, Path(folder) / "x.onnx", preprocess=preprocess)
            session = open_session(made.path, threads=1)
        image = check_batches(task, images, preprocess, size=None)[0].float() / 255
        file = partial(run_session, session, made.metadata, image)
        pairs = time_pairs(file, partial(reference, task, image), rounds=9, least=0.1)
        ours, theirs = (1000 * value for value in pairs.medians())
        ratio = statistics.median(pairs.ratios(at_most=False))
        size = " x ".join(map(str, image.shape[-2:]))
        worst = made.metadata["check"]["largest_difference"]
        print(f"| {name} | {size} | {ours:.3g} | {theirs:.3g} | {ratio:.1f} |", worst, made.speed, flush=True)
        outputs = file()
        print({key: value.tolist() for key, value in outputs.items() if key in ("count", "tokens")})


if __name__ == "__main__":
    main(sys.argv[1:])
