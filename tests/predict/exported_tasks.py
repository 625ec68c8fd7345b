"""A small task of every kind that can be exported."""

from __future__ import annotations

import torch

from tests.predict.small_detectors import BACKBONE, NAMES, one_stage, small_rcnn
from visionkit.task_config import Decoding, DeepPoseConfig, FCOSConfig, HeatmapConfig, RetinaNetConfig
from visionkit.tasks import Captioner, Classifier, Embedder, KeypointRegressor, Segmenter
from visionkit.text.vocabulary import Vocabulary

CROP = {"name": "CenterCrop", "size": 64, "fraction": 1.0}


def _classifier(target):
    scale = {"target_mean": 1900.0, "target_std": 50.0} if target == "regression" else {}
    return Classifier(**BACKBONE, num_classes=3, target=target, class_names=NAMES, image_size=64, **scale)


def _regressor(**head):
    config = DeepPoseConfig(stages=1, cells=2, width=8, channels=8, stage_width=8)
    head = head or {"deeppose": config}
    return KeypointRegressor(**BACKBONE, skeleton=NAMES, image_size=64, **head)


MAKE = {
    "single": lambda: _classifier("single"),
    "multi": lambda: _classifier("multi"),
    "regression": lambda: _classifier("regression"),
    "embedding": lambda: Embedder(**BACKBONE, num_classes=3, class_names=NAMES, dim=8, image_size=64),
    "keypoints": lambda: _regressor(),
    "heatmap": lambda: _regressor(head="heatmap", heatmap=HeatmapConfig(channels=8)),
    "segmentation": lambda: Segmenter(
        **BACKBONE, num_classes=3, class_names=NAMES, channels=8, decoder="fcn"
    ),
    "detection": lambda: small_rcnn((16, 32), masks=False),
    "masks": lambda: small_rcnn((4, 8, 16, 32), masks=True),
    "retinanet": lambda: one_stage("retinanet", RetinaNetConfig, norm="group", anchor_scales=(2.0, 3.0)),
    "fcos": lambda: one_stage("fcos", FCOSConfig),
    "captioning": lambda: Captioner(
        **BACKBONE,
        vocabulary=Vocabulary([f"w{number}" for number in range(20)]),
        decoder="show_attend_tell",
        embed=8,
        hidden=8,
        attention=8,
        image_size=64,
        decoding=Decoding(beams=1, max_length=3),
    ),
}


DETECTORS = ("detection", "masks", "retinanet", "fcos")


def exported_task(kind):
    torch.manual_seed(0)
    task = MAKE[kind]().eval()
    resize = {"name": "DetectionEval", "resize": {"name": "Resize", "size": 64, "max_size": 96}}
    native = {"name": "Native"}
    detects = dict.fromkeys(DETECTORS, resize)
    shown = {"name": "KeypointCrop", "size": [64, 64], "around": "box", "padding": 1.25}
    points = dict.fromkeys(("keypoints", "heatmap"), shown)
    preprocess = {**detects, **points, "segmentation": native}.get(kind, CROP)
    task.model_facts = {"preprocess": preprocess, "data": {"name": "x"}, "eval_batch_size": 2}
    return task
