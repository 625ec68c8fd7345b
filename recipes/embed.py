"""Embed images so that those of one class lie together, pretrained and from scratch, and compare the two.

python recipes/embed.py                                          # embedded scenes, both arms, two seeds
python recipes/embed.py --data people/ --variant verification    # a folder a person; test people never seen
python recipes/embed.py --data products/ --variant retrieval --retrieval.baselines true
python recipes/embed.py --data labels.csv --unseen_classes true --loss triplet --batch_size 64
torchrun --nproc-per-node 8 recipes/embed.py --data products/ --devices 8
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from visionkit.config import TableConfig
from visionkit.run import RunConfig, launch, setting
from visionkit.task_config import EmbeddingHead, RetrievalConfig, SceneConfig


@dataclass
class Config(RunConfig):
    """The settings of `embed.py`."""

    loss: Literal["arcface", "cosface", "triplet", "contrastive", "supcon"] = setting(
        "supcon", "arcface cosface triplet contrastive supcon"
    )
    head: EmbeddingHead = setting(EmbeddingHead(), "the vectors, and numbers of the loss")
    sampler: Literal["identities", "shuffle"] = setting(
        "identities", "identities: some images of each of some classes in a batch | shuffle"
    )
    images_per_class: int = setting(4, "with identities: images of each class in a batch", min=2)
    unseen_classes: bool = setting(
        False, "validate and test on classes that training never sees", group="data"
    )
    retrieval: RetrievalConfig = setting(RetrievalConfig(), "what is searched among what; few-shot episodes")
    select_by: str = setting("recall_at_1", "recall_at_1 map_at_r pair_auc ...: what weights are chosen by")
    table: TableConfig = setting(TableConfig(), "columns of a table of images", group="data")
    reduced_jpegs: bool = setting(
        False, "decode large JPEGs at 1/2, 1/4 or 1/8: quicker, slightly other pixels", group="data"
    )
    augment: Literal["basic", "randaugment", "trivial"] = setting("basic", "basic | randaugment | trivial")
    scenes: SceneConfig = setting(SceneConfig(1000, 500), "how many embedded scenes")


def open_splits(config: Config) -> Any:
    """Return the splits that `--data` names."""
    from visionkit.data import OpenOptions, SceneSizes, open_dataset, require_pairs

    sizes = SceneSizes(config.image_size, config.scenes.train_size, config.scenes.val_size)
    options = OpenOptions(
        table=config.table, scenes=sizes, unseen_classes=config.unseen_classes, **config.open_options()
    )
    splits = open_dataset(config.data, "classification", options)
    return require_pairs(splits, gallery=config.retrieval.gallery, max_dropped=config.checks.max_dropped)


def train(config: Config, folder: Path) -> dict[str, Any]:
    """Train one run in `folder` and return its result."""
    from visionkit.data import (
        DataModule,
        classification_eval,
        classification_train,
        stack_batch,
        training_classes,
    )
    from visionkit.run import NeighborPreview, fit
    from visionkit.tasks import Embedder

    splits, reads = open_splits(config), {"reduced_jpegs": config.reduced_jpegs}
    data = DataModule(
        splits,
        **config.data_options(),
        train_transform=classification_train(config.image_size, augment=config.augment, **reads),
        eval_transform=classification_eval(config.image_size, **reads),
        collate=stack_batch,
        eval_batch_size=4 * config.batch_size,
        sampler=config.sampler,
        images_per_class=config.images_per_class,
        gallery=config.retrieval.gallery,
    )
    classes = training_classes(splits)
    task = Embedder(
        config.backbone,
        **config.task_options(),
        loss=config.loss,
        num_classes=len(classes),
        class_names=classes,
        image_size=config.image_size,
        dim=config.head.dim or None,
        margin=config.head.margin,
        scale=config.head.scale,
        temperature=config.head.temperature,
        select_by=config.select_by,
        ways=config.retrieval.ways,
        shots=config.retrieval.shots,
    )
    return fit(config, task, data, folder=folder, callbacks=[NeighborPreview(folder, splits.classes)])


def score_baselines(config: Config, out: Path) -> None:
    """Score what needs no training on the images of each run, and write it beside the scores of the arms."""
    from visionkit.retrieval import (
        BASELINES,
        baseline_encoder,
        embedding_scores,
        trained_scores,
        write_scores,
    )

    how = {"backbone": config.backbone, "image_size": config.image_size, "device": config.accelerator}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in BASELINES}
    for folds in config.runs_of_folds():
        splits = open_splits(replace(config, folds=folds))
        for name in BASELINES:
            encode = baseline_encoder(name, splits.train, **how)
            rows[name].append(embedding_scores(encode, splits, gallery=config.retrieval.gallery))
    print(write_scores(out, rows | trained_scores(out), COLUMNS))
    print(f"scores      {out / 'scores.md'}")


def retrieval(config: Config) -> Config:
    """Variant: find images of the same known classes among those of training, by contrastive learning."""
    config.loss, config.select_by = "supcon", "map_at_r"
    config.retrieval = replace(config.retrieval, gallery="train")
    return config


def verification(config: Config) -> Config:
    """Variant: are two of the same person? ArcFace, on people that training never sees."""
    config.loss, config.unseen_classes, config.select_by = "arcface", True, "pair_auc"
    return config


def few_shot(config: Config) -> Config:
    """Variant: tell five new classes apart by one or five images of each; training has other classes."""
    config.loss, config.unseen_classes = "supcon", True
    config.retrieval = replace(config.retrieval, ways=5)
    config.select_by = "5way_1shot"
    return config


VARIANTS = (few_shot, retrieval, verification)
COLUMNS = (
    *("recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"),
    *("pair_auc", "pair_eer", "pair_accuracy"),
)
PATHS = ("data", "init")  # settings that name a file or a folder


def main(config: Config) -> Path:
    """Run every combination that `config` spans, then compare them; return the folder of it all."""
    from visionkit.run import is_first, run_recipe, trains

    config.out = config.out or "runs/embed"
    if config.retrieval.baselines:
        from visionkit.retrieval import check_baselines

        check_baselines(config.backbone)
    out = run_recipe(config, train, paths=PATHS)
    if config.retrieval.baselines and trains() and is_first():
        score_baselines(config, out)
    return out


if __name__ == "__main__":
    launch(main, Config, variants=VARIANTS, doc=__doc__, prog="embed.py")
