"""What a detection run takes beside its training steps, and a validation beside its forward passes.

The variant `small` over drawn photographs of 640 x 480, for three epochs. Their splits are to each other as
those of BCCD, 205 to train on, 87 to validate and 72 to test. Both sides of a row start from one seed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image, ImageDraw
from torch import Tensor

from tests.bench.row import Row, Sides, Size, close, pick
from visionkit.run.requests import asking
from visionkit.run.training.device_policy import choose_policy
from visionkit.run.training.schedule_length import schedule_length
from visionkit.run.training.task_callbacks import task_callbacks
from visionkit.run.training.trainer import build_trainer

NAMES = ("round", "long", "small")
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
WIDE, HIGH, OBJECTS, EPOCHS = 640, 480, 13, 3


def draw_photographs(folder: Path, counts: dict[str, int]) -> Path:
    """Write JPEG files of noise with discs in three sizes, and COCO files of their boxes."""
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    for split, count in counts.items():
        (folder / split).mkdir()
        images, boxes = [], []
        for number in range(count):
            pixels = rng.integers(150, 220, (HIGH // 8, WIDE // 8, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((WIDE, HIGH))
            pen = ImageDraw.Draw(image)
            for _ in range(OBJECTS):
                kind = int(rng.integers(len(NAMES)))
                wide, high = ((90, 90), (120, 60), (35, 35))[kind]
                x, y = int(rng.integers(WIDE - wide)), int(rng.integers(HIGH - high))
                pen.ellipse((x, y, x + wide, y + high), fill=tuple(rng.integers(0, 140, 3).tolist()))
                box = {"id": len(boxes) + 1, "image_id": number, "category_id": kind, "iscrowd": 0}
                boxes.append(box | {"bbox": [x, y, wide, high], "area": wide * high})
            image.save(folder / split / f"{number}.jpg", quality=90)
            images.append({"id": number, "file_name": f"{number}.jpg", "width": WIDE, "height": HIGH})
        kinds = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
        content = {"images": images, "annotations": boxes, "categories": kinds}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


class Seen(Callback):
    """Keeps what a run had: its task and data, and the weights that its last step left."""

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.task, self.data = pl_module, trainer.datamodule

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.weights = {name: value.detach().clone() for name, value in pl_module.named_parameters()}


class Recipe:
    """`recipes/detect.py` over a folder of photographs."""

    def __init__(self, size: Size) -> None:
        from visionkit.commands import load_recipe

        self.folder = Path(tempfile.mkdtemp())
        train, val, test = pick(size, tiny=(8, 4, 4), quick=(24, 10, 8), full=(68, 29, 24))
        counts = {"train": train, "val": val, "test": test}
        data = draw_photographs(self.folder / "photographs", counts)
        self.module = load_recipe("detect", beside=str(RECIPES / "compare.py"))
        config = self.module.small(self.module.Config(data=str(data), init="pretrained"))
        config.images, config.image_size = EPOCHS * train, 64 if size == "tiny" else config.image_size
        config.accelerator, config.devices, config.jobs, config.progress = "cpu", "1", 1, False
        self.config = config

    @contextmanager
    def fitting(self, fit: Callable[..., Any]) -> Any:
        """Train by another function than the library's."""
        import visionkit.run

        before = visionkit.run.fit
        visionkit.run.fit = fit  # type: ignore[attr-defined]
        try:
            yield
        finally:
            visionkit.run.fit = before  # type: ignore[attr-defined]

    def run(self, out: str) -> Seen:
        """Run the recipe to its report."""
        shutil.rmtree(self.folder / out, ignore_errors=True)
        self.config.out, seen = str(self.folder / out), Seen()
        with asking(callbacks=[seen]):
            self.module.main(self.config)
        return seen

    def steps(self) -> Seen:
        """Take the training steps of that run, and do nothing else."""
        seen = Seen()
        with self.fitting(lambda *given, **settings: train_alone(seen, *given)):
            lightning.seed_everything(self.config.seeds[0], verbose=False)
            self.module.train(self.module.replace(self.config, seeds=[0]), self.folder / "steps")
        return seen

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def trainer_of(config: Any, task: Any, data: Any, folder: Path, callbacks: list[Callback]) -> Any:
    """The Trainer of a run, with these callbacks alone."""
    policy = choose_policy(config, task)
    if policy.channels_last:
        task.to(memory_format=torch.channels_last)
    plan = schedule_length(config, data, 1)
    return build_trainer(config, folder=folder, policy=policy, callbacks=callbacks, max_epochs=plan.epochs)


def train_alone(seen: Seen, config: Any, task: Any, data: Any) -> None:
    from visionkit.run.callbacks.step_seed import StepSeed

    callbacks = [StepSeed(data.seed), *task_callbacks(config, task), seen]
    trainer = trainer_of(config, task, data, Path(config.out), callbacks)
    trainer.limit_val_batches = 0
    trainer.fit(task, datamodule=data)


def whole_run(size: Size) -> Sides:
    recipe = Recipe(size)

    def alike(ours: Seen, theirs: Seen) -> None:
        close(atol=0)(ours.weights, theirs.weights)

    return Sides(lambda: recipe.run("runs"), recipe.steps, alike, close=recipe.close)


class Boxes(Callback):
    """Keeps the boxes that a validation scored."""

    def on_validation_start(self, *_: Any) -> None:
        self.boxes: list[Tensor] = []

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.boxes += [preds["boxes"].clone() for preds in outputs["preds"]]


def validation(size: Size) -> Sides:
    """A validation with all that a run does in its last one, and the network alone over the same images."""
    recipe = Recipe(size)
    trained = recipe.run("runs")
    task, kept = trained.task, Boxes()

    def ours() -> list[Tensor]:
        from visionkit.run import BoxPreview, CurveFile, Preview
        from visionkit.run.callbacks.image_scores import SaveImageScores

        folder = recipe.folder / "validated"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        callbacks = [SaveImageScores(folder), Preview(folder, BoxPreview(NAMES)), CurveFile(folder), kept]
        trainer = trainer_of(recipe.config, task, trained.data, folder, callbacks)
        trainer.fit_loop.max_epochs = 1
        trainer.validate(task, datamodule=trained.data, verbose=False)
        assert (folder / "predictions" / "val.jsonl").is_file()
        assert (folder / "predictions" / "curves.json").is_file()
        return kept.boxes

    batches = list(trained.data.val_dataloader())
    context = trainer_of(recipe.config, task, trained.data, recipe.folder, []).precision_plugin

    def theirs() -> list[Tensor]:
        task.eval()
        with torch.inference_mode(), context.forward_context():
            return [found.boxes for batch in batches for found in task.predict_step(batch)]

    return Sides(ours, theirs, close(atol=0), close=recipe.close)


ROWS = (
    Row("a detection run, 3 epochs of 68 photographs", "its training steps alone", whole_run, goal=1.18,
        limit="the forward passes of its evaluations", at_most=True, rounds=1, quick=False,
        note="Ends with previews, checkpoints, the test split and the report; the photographs are drawn."),
    Row("a validation of detections", "its forward passes alone", validation, goal=1.3,
        limit="the forward passes", at_most=True, rounds=3, quick=False,
        note="With reading, scores, previews and curves."),
)  # fmt: skip
