"""A training and an evaluation step of the detector over a backbone by name: what came of it, as a row."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import torch

from visionkit.backbones import describe_backbone
from visionkit.errors import InputError
from visionkit.task_config import DETECTOR_SETTINGS, FCOSConfig, RCNNConfig, RetinaNetConfig
from visionkit.tasks import Detector

SMALL = RCNNConfig(
    head_width=16,
    anchor_scales=(2.0,),
    proposals_train=20,
    proposals_eval=10,
    box_samples=8,
    detections_per_img=5,
)
DENSE = {"convs": 1, "norm": "group", "topk_candidates": 10, "detections_per_img": 5, "score_threshold": 0.0}
CONFIGS = {
    "faster_rcnn": SMALL,
    # Of drawn weights no score is sure: points are decoded whatever the scores are.
    "keypoint_rcnn": replace(SMALL, score_threshold=0.0, keypoint_convs=1, keypoint_width=8),
    "retinanet": RetinaNetConfig(anchor_scales=(2.0,), **DENSE),
    "fcos": FCOSConfig(**DENSE),
}
ALL = (4, 8, 16, 32)
ASKED = {"faster_rcnn": ALL, "keypoint_rcnn": ALL, "retinanet": ALL[1:], "fcos": ALL[1:]}
POINTS = ("left", "right", "top")
# What a refusal must say: which reductions there are, or why there is none.
NAMED = re.compile(r"no maps aligned with the image|cannot be traced for its shapes|reductions? ")


FIXED = re.compile(r"takes images of (\d+)x(\d+) only")


def detect_over(
    name: str,
    *,
    reductions: tuple[int, ...] | None = None,
    size: int = 64,
    detector: str = "faster_rcnn",
) -> dict[str, Any]:
    """Return what came of a backbone.

    Args:
        name: Of the backbone.
        reductions: Those that the detector asks for that it has, or others if it has none of these; asked
            of the registry, which takes longer, if None.
        size: Least side of the images, which the coarsest reduction divides; that of the network where it
            takes one size only.
        detector: Over it, one of `ASKED`.

    Returns:
        `name`; `status`, one of "passes", "refused", "crash"; `reductions` that it was built with; `reason`
        of the refusal of all that the detector asks for, if it lacks some.
    """
    asked = ASKED[detector]
    row: dict[str, Any] = {"name": name, "status": "crash", "reductions": [], "reason": ""}
    try:
        has = reductions
        if has is None:
            levels = describe_backbone(name).levels
            every = tuple(level.reduction for level in levels)
            has = tuple(reduction for reduction in every if reduction in asked) or every
        if has != asked:
            try:
                _build(name, asked, detector)
            except InputError as error:
                row["reason"] = str(error)
            else:
                row["reason"] = f"built with {asked} although there is only {has}"
                return row
            if not NAMED.search(row["reason"]):
                return row
            if not has:
                return row | {"status": "refused"}
        try:
            _steps(_build(name, has, detector), math.ceil(size / has[-1]) * has[-1])
        except InputError as error:
            fixed = FIXED.search(str(error))
            if not fixed:
                raise
            _steps(_build(name, has, detector), int(fixed[1]))
        return row | {"status": "passes", "reductions": list(has)}
    except InputError as error:
        return row | {"status": "refused" if NAMED.search(str(error)) else "crash", "reason": str(error)}
    except Exception as error:
        return row | {"reason": f"{type(error).__name__}: {error}"}


def _build(name: str, reductions: tuple[int, ...], detector: str) -> Detector:
    torch.manual_seed(0)
    kind: Any = "faster_rcnn" if detector == "keypoint_rcnn" else detector
    config: dict[str, Any] = {DETECTOR_SETTINGS[kind]: CONFIGS[detector]}
    return Detector(
        name, init="scratch", num_classes=2, detector=kind, pyramid_channels=8, reductions=reductions,
        keypoints=POINTS if detector == "keypoint_rcnn" else None, **config,
    )  # fmt: skip


def _steps(task: Detector, size: int) -> None:
    images = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(2)]
    boxes = torch.tensor([[4.0, 6.0, 30.0, 40.0]])
    points = torch.tensor([[[8.0, 10.0, 2.0], [25.0, 12.0, 1.0], [0.0, 0.0, 0.0]]])  # the last: not labelled
    targets = [
        {"boxes": boxes, "labels": torch.tensor([1]), "keypoints": points},
        {"boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.int64), "keypoints": points[:0]},
    ]
    loss = task.train().training_step({"images": images, "targets": targets}, 0)["loss"]
    loss.backward()
    if not bool(loss.isfinite()):
        raise ValueError(f"the loss is {float(loss)}")
    idle = [name for name, p in task.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        raise ValueError(f"no gradient for {', '.join(idle[:3])}")
    task.eval()
    with torch.inference_mode():
        detections = task(images)
    if len(detections) != 2 or any(detection["boxes"].shape[1] != 4 for detection in detections):
        raise ValueError("detections of another form")
    if not all(bool(value.isfinite().all()) for detection in detections for value in detection.values()):
        raise ValueError("detections that are not finite")
    if task.skeleton is not None:
        counts = [len(detection["boxes"]) for detection in detections]
        shapes = [tuple(detection["keypoints"].shape) for detection in detections]
        if 0 in counts or shapes != [(count, len(POINTS), 2) for count in counts]:
            raise ValueError(f"{counts} objects, but points of the shapes {shapes}")
