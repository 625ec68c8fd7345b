"""`LightningCLI` runs every task from a YAML file alone."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from PIL import Image

from visionkit import Captioner, Classifier, Detector, FolderData, Segmenter
from visionkit.data import Skeleton, TrainingVocabulary, open_dataset, skeleton_of
from visionkit.errors import InputError

OPTIM = {"schedule": "constant", "warmup": 0.0, "optimizer": "lamb"}
TASKS = {
    "classification": (Classifier, {"num_classes": 20}),
    "detection": (
        Detector,
        {
            "num_classes": 20, "pyramid_channels": 8, "transfer": {"norm": "batch"},
            "rcnn": {"head_width": 8, "proposals_train": 20, "proposals_eval": 10, "box_samples": 8},
        },
    ),
    "segmentation": (Segmenter, {"num_classes": 21, "channels": 8}),
    "captioning": (
        Captioner,
        {
            "embed": 8, "hidden": 8, "attention": 8,
            "vocabulary": {
                "class_path": "visionkit.data.TrainingVocabulary",
                "init_args": {"root": "scenes", "min_count": 2, "train": 12},
            },
        },
    ),
}  # fmt: skip


DETECTOR = TASKS["detection"][1]
TASKS["keypoints"] = (
    Detector, {**DETECTOR, "rcnn": {**DETECTOR["rcnn"], "keypoint_convs": 1, "keypoint_width": 8}}
)  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_lightning_runs_a_task_from_yaml_alone(name: str, tmp_path) -> None:
    kind, settings = TASKS[name]
    splits = open_dataset("scenes", name)
    if name != "captioning":
        settings["num_classes"] = len(splits.classes)
    if name == "keypoints":  # all objects of each image: a detector finds them
        settings["keypoints"] = list(skeleton_of(splits).names)
    data = {
        "root": "scenes",
        "task": name,
        "image_size": 64,
        "batch_size": 4,
        "scenes": [12, 4],
        "min_count": 2,
        "whole_images": name == "keypoints",
    }
    trainer = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
    }  # fmt: skip
    model = {"backbone": "timm/test_resnet", "init": "scratch", "optim": OPTIM, **settings}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"trainer": trainer, "model": model, "data": data}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cli = LightningCLI(
            kind, FolderData, args=["fit", "--config", str(tmp_path / "run.yaml")], save_config_callback=None
        )
    assert cli.trainer.global_step == 3
    assert type(cli.trainer.optimizers[0]).__name__ == "Lamb"
    assert cli.model.monitor[0] in cli.trainer.callback_metrics
    assert all(
        value.isfinite().all() for value in cli.model.state_dict().values() if value.is_floating_point()
    )


def test_a_folder_gives_its_classes_and_words() -> None:
    data = FolderData("scenes", task="classification", image_size=32, batch_size=2, scenes=(4, 2))
    assert data.num_classes == len(data.class_names) > 2
    assert data.vocabulary is None
    captions = FolderData(
        "scenes", task="captioning", image_size=32, batch_size=2, scenes=(12, 2), min_count=2
    )
    assert captions.vocabulary.words == TrainingVocabulary("scenes", min_count=2, train=12).words
    batch = next(iter(captions.train_dataloader()))
    assert batch["tokens"].dtype == torch.int64
    with pytest.raises(InputError, match="Did you mean 'detection'"):
        FolderData("scenes", task="detecton")
    with pytest.raises(InputError, match="at least 1 pixel"):
        FolderData("scenes", task="detection", image_size=0)


def test_images_with_all_their_objects_are_for_a_detector_with_keypoints(tmp_path) -> None:
    rows = ["path,split,left_x,left_y,right_x,right_y"]
    for index, split in enumerate(("train", "train", "val")):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{index}.png")
        rows += [f"{index}.png,{split},{place},5,{place + 9},12" for place in (3, 20)]
    (tmp_path / "points.csv").write_text("\n".join(rows))
    one, whole = (
        FolderData(str(tmp_path), task="keypoints", image_size=32, batch_size=2, whole_images=each, workers=0)
        for each in (False, True)
    )
    assert one.skeleton == whole.skeleton == Skeleton(("left", "right"))
    assert (len(one.splits.train), len(whole.splits.train)) == (4, 2)
    assert next(iter(one.train_dataloader()))["keypoints"].shape == (2, 2, 3)
    batch = next(iter(whole.train_dataloader()))
    assert [target["keypoints"].shape for target in batch["targets"]] == [(2, 2, 3)] * 2
    with pytest.raises(InputError, match="whole_images belongs to task='keypoints', but this is 'detection'"):
        FolderData("scenes", task="detection", whole_images=True)


def test_without_a_trainer_the_order_is_the_same_with_workers() -> None:
    passes = []
    for workers in (0, 1):
        data = FolderData(
            "scenes", task="classification", image_size=32, batch_size=8, scenes=(24, 2), workers=workers
        )
        loader = data.train_dataloader()
        passes.append([[name for batch in loader for name in batch["ids"]] for _ in range(2)])
    assert passes[0] == passes[1]
    assert passes[0][0] != passes[0][1]
    assert all(len(each) == 24 for each in passes[0])


def test_a_signal_to_the_group_of_the_process_reaches_no_worker() -> None:
    data = FolderData("scenes", task="classification", image_size=32, batch_size=8, scenes=(8, 2), workers=1)
    data.collate = lambda samples: {"group": os.getpgrp()}
    assert next(iter(data.train_dataloader()))["group"] != os.getpgrp()
