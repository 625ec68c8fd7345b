# ruff: noqa: E501
"""Run folders without training: learning curves of known shape, written as a real run would write them."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionkit.config import roles
from visionkit.run.config import RunConfig
from visionkit.types import init_is_path

CLASSES = ["animals", "food", "vehicles", "buildings", "plants"]
FINAL = {"pretrained": 0.56, "scratch": 0.24}
ROLES = {name: role for name, role in roles(RunConfig).items() if role != "identity"}
PACE = {"pretrained": 700.0, "scratch": 2200.0}


def curve(
    init: str, seed: int, fraction: float, *, points: int = 6, size: int = 1000
) -> list[tuple[int, float]]:
    """Rising exponentials: pretrained is higher and faster; less data is lower."""
    rng = random.Random(f"{init}-{seed}-{fraction}")
    top = FINAL.get(init, 0.4) * (0.55 + 0.45 * fraction) + rng.uniform(-0.02, 0.02)
    per_epoch = int(size * fraction)
    pace = PACE.get(init, 1500.0) * fraction
    return [
        (n, top * (1 - math.exp(-n / pace)) + rng.uniform(-0.005, 0.005))
        for n in range(per_epoch, per_epoch * points + 1, per_epoch)
    ]


def make_run(
    parent: Path,
    init: str = "pretrained",
    seed: int = 0,
    fraction: float = 1.0,
    *,
    points: list[tuple[int, float]] | None = None,
    predictions: int = 0,
    config: dict[str, Any] | None = None,
    changes: dict[str, Any] | None = None,
    classes: list[str] = CLASSES,
    task: str = "classification",
    monitor: tuple[str, str] = ("val/top1", "max"),
) -> Path:
    """Write one finished run below `parent` and return its folder."""
    weights = Path(init).stem if init_is_path(init) else Path(init).name
    folder = parent / f"{weights}-f{fraction:g}-s{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    points = points if points is not None else curve(init, seed, fraction)
    write_metrics(folder, points, monitor[0])
    settings = {
        "backbone": "packaged/efficientnet_lite0", "data": "scenes", "init": "both", "seeds": [0, 1], "epochs": 6,
        "batch_size": 32, "lr": 0.001, "transfer": {"freeze_through": None, "norm": None}, "out": str(parent),
    } | (config or {})  # fmt: skip
    result: dict[str, Any] = {
        "schema": 1, "task": task, "status": "finished", "init": init, "seed": seed, "fraction": fraction,
        "metrics": {monitor[0]: points[-1][1], "val/macro_f1": points[-1][1] * 0.95, "test/top1": points[-1][1] - 0.01},
        "monitor": list(monitor), "images_seen": points[-1][0],
        "weights": {"source": "none" if init == "scratch" else "packaged", "tag": "efficientnet_lite0",
                    "trained_on": "ImageNet-1k", "licence": "Apache-2.0", "digest": "0123abcd"},
        "config": settings, "roles": ROLES, "env": {"python": "3.11", "torch": "2.15", "device": "cpu"},
        "seconds": {"fit": 50.0 + seed, "total": 60.0 + seed}, "images_per_second": 118.0 + seed,
        "peak_memory_mb": 900.0, "parameters": {"total": 3_400_000, "trainable": 3_400_000},
        "data": {"name": "scenes", "sizes": {"train": int(1000 * fraction), "val": 400}, "classes": list(classes),
                 "facts": {"composed": True, "attribution": "OpenMoji, CC BY-SA 4.0"}, "fingerprint": "d41d8c"},
        "equal": {"norm": "batch", "schedule": "cosine over 6,000 images", "order": f"order-{fraction}-{seed}"},
        "predictions": "predictions/val.jsonl" if predictions else None,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result | (changes or {})))
    (folder / "config.yaml").write_text("backbone: packaged/efficientnet_lite0\n")
    (folder / "cmd.txt").write_text("python recipes/classify.py --data scenes --init both\n")
    if predictions:
        write_predictions(folder, predictions, classes, points[-1][1], random.Random(seed))
    return folder


def make_comparison(parent: Path, *, seeds: tuple[int, ...] = (0, 1), fractions: tuple[float, ...] = (1.0,),
                    predictions: int = 0) -> list[Path]:  # fmt: skip
    """Write both arms for all seeds and fractions."""
    return [
        make_run(parent, init, seed, fraction, predictions=predictions)
        for fraction in fractions
        for init in ("pretrained", "scratch")
        for seed in seeds
    ]


def write_metrics(folder: Path, points: list[tuple[int, float]], monitor: str) -> None:
    split, name = monitor.split("/")
    with (folder / "metrics.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "epoch", "images", "split", "name", "value"])
        for epoch, (images, value) in enumerate(points):
            rows.writerow([images // 32, epoch, images, "train", "loss", 2 - value])
            rows.writerow([images // 32, epoch, images, split, name, value])


def write_predictions(
    folder: Path, count: int, classes: list[str], accuracy: float, rng: random.Random
) -> None:
    (folder / "predictions").mkdir()
    (folder / "figures" / "val").mkdir(parents=True)
    lines = []
    for index in range(count):
        image = None
        if index < 24:
            pixels = np.random.default_rng(index).integers(0, 255, (6, 6, 3), dtype=np.uint8)
            image = f"figures/val/{index:03d}.png"
            Image.fromarray(pixels).resize((96, 96)).save(folder / image)
        truth = index * 7 % len(classes)
        right = rng.random() < accuracy
        guess = truth if right else rng.randrange(len(classes))
        lines.append(
            {"id": f"val/{index}", "image": image, "truth": classes[truth], "prediction": classes[guess],
             "confidence": rng.uniform(0.3, 1), "loss": rng.uniform(0, 1) if guess == truth else rng.uniform(1, 5)}
        )  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "predictions" / "val.jsonl").write_text(text)
