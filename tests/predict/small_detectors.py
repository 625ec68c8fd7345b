"""Small detectors of the tests of exports."""

from __future__ import annotations

import torch

from visionkit.task_config import RCNNConfig
from visionkit.tasks import Detector

NAMES = ("a", "b", "c")
BACKBONE = {"backbone": "timm/test_resnet", "init": "scratch"}


def small_rcnn(reductions, *, masks, keypoints=None):
    settings = {"proposals_eval": 40, "detections_per_img": 12, "score_threshold": 0.01, "head_width": 16}
    settings |= {"keypoint_convs": 1, "keypoint_width": 8}
    rcnn = RCNNConfig(masks=masks, **settings)
    named = {"num_classes": 3, "class_names": NAMES, "pyramid_channels": 16, "reductions": reductions}
    return Detector(**BACKBONE, **named, rcnn=rcnn, keypoints=keypoints)


def one_stage(detector, config, **more):
    settings = {"topk_candidates": 40, "detections_per_img": 12, "score_threshold": 0.01}
    named = {"num_classes": 3, "class_names": NAMES, "pyramid_channels": 16, "detector": detector}
    task = Detector(**BACKBONE, **named, **{detector: config(**settings, **more)})
    for name, parameter in task.model.head.named_parameters():
        if name.startswith(("class_logits", "box_offsets")):  # as drawn, all scores would be nearly equal
            torch.nn.init.normal_(parameter, std=0.3)
    return task
