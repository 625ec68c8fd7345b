"""Classify images, from pretrained weights and from scratch, and compare the two.

python recipes/classify.py                                       # embedded scenes, both arms, two seeds
python recipes/classify.py --data photos/ --backbone timm/resnet50 --init both --image_size 224
python recipes/classify.py --data tags.csv --target multi --table.separator "|" --fractions 0.02 0.1 0.5 1
torchrun --nproc-per-node 8 recipes/classify.py --data photos/ --devices 8
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from visionkit.config import OptimConfig, TableConfig, TransferConfig
from visionkit.run import RunConfig, launch, setting
from visionkit.task_config import SceneConfig


@dataclass
class Config(RunConfig):
    """The settings of `classify.py`."""

    target: Literal["single", "multi", "regression"] = setting("single", "single | multi | regression")
    table: TableConfig = setting(TableConfig(), "columns of a table of images", group="data")
    reduced_jpegs: bool = setting(
        False, "decode large JPEGs at 1/2, 1/4 or 1/8: quicker, slightly other pixels", group="data"
    )
    class_weights: Literal["none", "balanced"] | float = setting(
        "none",
        "none | balanced | 0 to 1: weight of a class, its fraction of images to minus this",
        min=0,
        max=1,
    )
    sampler: Literal["shuffle", "balanced"] = setting(
        "shuffle", "shuffle | balanced: every class equally often"
    )
    augment: Literal["basic", "randaugment", "trivial"] = setting("basic", "basic | randaugment | trivial")
    mix: list[str] = setting(
        [], "batch transforms: mixup cutmix erase", choices=("mixup", "cutmix", "erase"), unique=True
    )
    label_smoothing: float = setting(0.1, "mass moved from the true class to all", min=0, below=1)
    scenes: SceneConfig = setting(SceneConfig(1000, 500), "how many embedded scenes")


def open_splits(config: Config) -> Any:
    """Return the splits that `--data` names."""
    from visionkit.data import OpenOptions, SceneSizes, open_dataset

    sizes = SceneSizes(config.image_size, config.scenes.train_size, config.scenes.val_size)
    options = OpenOptions(target=config.target, table=config.table, scenes=sizes, **config.open_options())
    return open_dataset(config.data, "classification", options)


def train(config: Config, folder: Path) -> dict[str, Any]:
    """Train one run in `folder` and return its result."""
    from visionkit.data import (
        DataModule,
        balanced_weights,
        batch_transform,
        classification_eval,
        classification_train,
        image_counts,
        stack_batch,
    )
    from visionkit.run import ClassPreview, Preview, fit
    from visionkit.tasks import Classifier

    splits, reads = open_splits(config), {"reduced_jpegs": config.reduced_jpegs}
    data = DataModule(
        splits,
        **config.data_options(),
        train_transform=classification_train(config.image_size, augment=config.augment, **reads),
        eval_transform=classification_eval(config.image_size, **reads),
        collate=stack_batch,
        batch_transform=batch_transform(*config.mix),
        eval_batch_size=4 * config.batch_size,
        sampler=config.sampler,
    )
    weights = None
    if config.class_weights != "none":
        counts = image_counts(data.train_reader, len(splits.classes))
        weights = balanced_weights(counts, power=config.class_weights, classes=splits.classes)
    task = Classifier(
        config.backbone,
        **config.task_options(),
        num_classes=len(splits.classes),
        image_size=config.image_size,
        target=config.target,
        label_smoothing=config.label_smoothing if config.target == "single" else 0.0,
        class_weights=weights,
        class_names=splits.classes,
    )
    return fit(config, task, data, folder=folder, callbacks=[Preview(folder, ClassPreview(splits.classes))])


def linear_probe(config: Config) -> Config:
    """Variant: only the head learns, over frozen features; there is no scratch arm to it."""
    config.init, config.transfer, config.lr = "pretrained", TransferConfig(freeze_through="all"), 1e-2
    return config


def low_data(config: Config) -> Config:
    """Variant: the low-data curve, every fraction trained for the same number of images."""
    config.fractions, config.images = [0.02, 0.1, 0.5, 1.0], config.images or 60_000
    return config


def strong(config: Config) -> Config:
    """Variant: a long schedule with the augmentation of current ImageNet recipes and averaged weights."""
    config.augment, config.mix = "trivial", ["mixup", "cutmix", "erase"]
    config.optim = OptimConfig(schedule="cosine", warmup=0.05, weight_decay=0.05, ema=0.9998)
    return config


VARIANTS = (linear_probe, low_data, strong)
PATHS = ("data", "init")  # settings that name a file or a folder


def main(config: Config) -> Path:
    """Run every combination that `config` spans, then compare them; return the folder of it all."""
    from visionkit.run import run_recipe

    config.out = config.out or "runs/classify"
    return run_recipe(config, train, paths=PATHS)


if __name__ == "__main__":
    launch(main, Config, variants=VARIANTS, doc=__doc__, prog="classify.py")
