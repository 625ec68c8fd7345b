"""The six tasks over tiny backbones, and checkpoints of them as a run writes them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import lightning
import torch

from visionkit.run.storage.checkpoint import AtomicCheckpointIO
from visionkit.task_config import DeepPoseConfig, RCNNConfig
from visionkit.tasks import Captioner, Classifier, Detector, Embedder, KeypointRegressor, Segmenter
from visionkit.text.vocabulary import Vocabulary

# Its maps end before a convolution that only its vector has: a detector cuts it off.
CUT = "timm/test_efficientnet"
KINDS = ("Classifier", "Detector", "Segmenter", "Captioner", "Embedder", "KeypointRegressor")
NAMES = ("ant", "bee", "cat")


def small_task(
    kind: str, backbone: str = CUT, *, init: str = "scratch", names: Any = NAMES, **more: Any
) -> Any:
    """A task whose weights are drawn, running statistics too, so that no two parts are alike by chance."""
    torch.manual_seed(zlib.crc32(init.encode()) % 1000 + KINDS.index(kind))
    shared = {"init": init, **more}
    if kind == "Captioner":
        words = Vocabulary(names)
        sizes = {"embed": 8, "hidden": 8, "attention": 8}
        task: lightning.LightningModule = Captioner(backbone, vocabulary=words, **sizes, **shared)
    elif kind == "Detector":
        rcnn = RCNNConfig(head_width=16, proposals_eval=20, anchor_scales=(4.0,), masks=True)
        shared = {"rcnn": rcnn, "pyramid_channels": 8, **shared}
        task = Detector(backbone, num_classes=len(names), class_names=names, **shared)
    elif kind == "Segmenter":
        task = Segmenter(backbone, num_classes=len(names), class_names=names, channels=16, **shared)
    elif kind == "Embedder":
        task = Embedder(backbone, num_classes=len(names), class_names=names, dim=8, **shared)
    elif kind == "KeypointRegressor":
        config = DeepPoseConfig(stages=1, cells=1, width=8, channels=8, stage_width=8)
        shared = {"skeleton": names, "deeppose": config, "image_size": 64, **shared}
        task = KeypointRegressor(backbone, **shared)
    else:
        task = Classifier(backbone, num_classes=len(names), class_names=names, **shared)
    if init == "scratch":
        for name, value in task.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                value.uniform_(0.5, 1.5)
    special = {
        "Detector": {"name": "DetectionEval", "resize": {"name": "Resize", "size": 64, "max_size": 96}},
        "KeypointRegressor": {"name": "KeypointCrop", "size": [64, 64], "around": "box", "padding": 1.25},
    }
    task.model_facts = {
        "preprocess": special.get(kind, {"name": "CenterCrop", "size": 64, "fraction": 1.0}),
        "data": {"name": "insects", "options": {}}, "eval_batch_size": 2,
        "weights": {"source": "timm", "name": "x", "training_data": "ImageNet-1k", "licence": "apache-2.0"},
    }  # fmt: skip
    return task.eval()


def save_checkpoint(task: Any, folder: Path, name: str = "best") -> Path:
    """Write a checkpoint into a run's folder, and return it."""
    content = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    content["pytorch-lightning_version"] = "2.6.0"
    task.on_save_checkpoint(content)
    file = folder / "checkpoints" / f"{name}.ckpt"
    AtomicCheckpointIO().save_checkpoint(content, file)
    return file


def predictions_of(task: Any) -> Any:
    """What a task predicts on two fixed images, as plain tensors and texts."""
    draw = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=draw)
    return [vars(each) for each in task.predict_step({"images": images, "ids": ["a", "b"]})]
