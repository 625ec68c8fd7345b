"""The weights of torchvision's detectors under the names of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from visionkit.backbones.norms import FrozenBatchNorm
from visionkit.backbones.weights import WeightsInfo, read_state_dict
from visionkit.config import NormPolicy, TransferConfig
from visionkit.data.formats.keypoints.skeleton import COCO_PERSON, Skeleton
from visionkit.errors import InputError, unknown_name
from visionkit.nn.detection.torchvision_state_dict import (
    dense_from_torchvision_names,
    from_torchvision_names,
)
from visionkit.task_config import (
    DETECTOR_SETTINGS,
    DetectorName,
    FCOSConfig,
    RCNNConfig,
    RetinaNetConfig,
)
from visionkit.tasks.detection.settings import DetectorConfig

__all__ = ["TorchvisionDetector", "read_detector"]


class _Model(NamedTuple):
    detector: DetectorName
    config: DetectorConfig
    head_norm: NormPolicy = "frozen"
    frozen_eps: float = 0.0  # of the frozen norms of torchvision's COCO weights


_MODELS = {
    "fasterrcnn_resnet50_fpn": _Model("faster_rcnn", RCNNConfig(anchor_spacing="grid")),
    "fasterrcnn_resnet50_fpn_v2": _Model(
        "faster_rcnn", RCNNConfig(head="four_conv", rpn_convs=2, anchor_spacing="grid"), "batch"
    ),
    "maskrcnn_resnet50_fpn": _Model("faster_rcnn", RCNNConfig(masks=True, anchor_spacing="grid")),
    "keypointrcnn_resnet50_fpn": _Model("faster_rcnn", RCNNConfig(anchor_spacing="grid")),
    "retinanet_resnet50_fpn": _Model("retinanet", RetinaNetConfig(anchor_spacing="grid")),
    "retinanet_resnet50_fpn_v2": _Model(
        "retinanet",
        RetinaNetConfig(norm="group", p6_from="c5", box_loss="giou", anchor_spacing="grid"),
    ),
    "fcos_resnet50_fpn": _Model("fcos", FCOSConfig(anchor_spacing="grid"), frozen_eps=1e-5),
}
_SIZE = (800, 1333)
_POINTS = "heads.keypoint_head.heatmaps."
_LAST = (
    "heads.box_head.classify.", "heads.box_head.regress.", "heads.mask_head.predict.", "head.class_logits.",
)  # fmt: skip


class TorchvisionDetector(NamedTuple):
    """The weights of a torchvision detector under the names of ours.

    Args:
        name: torchvision's name of the detector.
        model: Weights of pyramid and heads, by the names of `Detector.model`.
        body: Weights of the backbone, by torchvision's names.
    """

    name: str
    model: dict[str, Tensor]
    body: dict[str, Tensor]

    @property
    def num_classes(self) -> int:
        """Foreground classes of the weights."""
        if _MODELS[self.name].detector == "faster_rcnn":
            return int(self.model["heads.box_head.classify.weight"].shape[0]) - 1
        return int(self.model["head.class_logits.weight"].shape[0]) // _anchors(self.model)

    @property
    def num_keypoints(self) -> int:
        """Points of an object that the weights find; 0 of a detector without a keypoint head."""
        bias = self.model.get(f"{_POINTS}bias")
        return 0 if bias is None else len(bias)

    @property
    def frozen(self) -> bool:
        """Whether the backbone's norms are frozen.

        torchvision freezes the norms of weights that it knows to be trained; its version 2 and newly built
        models keep batch norms.
        """
        return not any(key.endswith("num_batches_tracked") for key in self.body)

    def settings(self, keypoints: Skeleton | Sequence[str] | None = None) -> dict[str, Any]:
        """Return the settings of a `Detector` that computes what torchvision's does.

        Args:
            keypoints: Points of its keypoint head; None: those of the weights.

        Raises:
            InputError: It has no keypoint head.
        """
        count = self.num_keypoints
        if keypoints is not None and not count:
            raise InputError(
                f"Expected no keypoints of {self.name}, whose weights have no keypoint head. Leave them out, "
                "or give keypointrcnn_resnet50_fpn."
            )
        if keypoints is None and count:
            person = count == len(COCO_PERSON.names)
            keypoints = COCO_PERSON if person else [f"point {index}" for index in range(count)]
        policy: NormPolicy = "frozen" if self.frozen else "batch"
        model = _MODELS[self.name]
        return {
            "detector": model.detector,
            DETECTOR_SETTINGS[model.detector]: model.config,
            "backbone": "torchvision/resnet50",
            "init": "scratch",
            "transfer": TransferConfig(norm=policy),
            "resize": _SIZE,
            "origin": {"init": "file", "weights": WeightsInfo(source="user", name=self.name).as_dict()},
            "head_norm": model.head_norm,
            "keypoints": keypoints,
        }

    def fill(self, task: Any, *, frozen_eps: float | None) -> None:
        """Load the weights into a detector that was built with `settings`.

        Last layers of another number of classes, or of keypoints, stay as they are.

        Args:
            task: Has `backbone`, `model`, `num_classes` and `num_keypoints`.
            frozen_eps: Epsilon of frozen norms; None: that of torchvision's COCO weights.

        Raises:
            InputError: The weights are not of that detector; some keys are named.
        """
        new = _LAST if task.num_classes != self.num_classes else ()
        new = new if task.num_keypoints == self.num_keypoints else (*new, _POINTS)
        state = {key: value for key, value in self.model.items() if not key.startswith(new)}
        target = task.model.state_dict()
        outside = [key for key in target if not key.startswith("source.source.")]
        missing = [key for key in outside if key not in state and not key.startswith(new)]
        unexpected = [key for key in state if key not in target or target[key].shape != state[key].shape]
        body = _body_names(task.backbone, self.body)
        missing += [key for key in task.backbone.state_dict() if key not in body]
        missing = [key for key in missing if not key.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise InputError(
                f"These are not the weights of {self.name}: {len(missing)} entries are missing "
                f"({', '.join(missing[:3])}) and {len(unexpected)} do not fit ({', '.join(unexpected[:3])})."
            )
        task.model.load_state_dict(state, strict=False)
        task.backbone.load_state_dict(body, strict=False)
        for module in task.backbone.modules() if self.frozen else ():
            if isinstance(module, FrozenBatchNorm) and isinstance(module.running_var, Tensor):
                # Moved into the variance, so that a checkpoint of the task carries it.
                eps = _MODELS[self.name].frozen_eps if frozen_eps is None else frozen_eps
                module.running_var.add_(eps - module.eps)


def read_detector(weights: Mapping[str, Tensor] | str | Path, name: str) -> TorchvisionDetector:
    """Return a torchvision detector's weights under the names of ours; see `Detector.from_torchvision`.

    Raises:
        InputError: The name is not known, or the file cannot be read.
    """
    if name not in _MODELS:
        raise unknown_name("torchvision detector", name, _MODELS)
    state = read_state_dict(weights) if isinstance(weights, str | Path) else weights
    if _MODELS[name].detector == "faster_rcnn":
        renamed = from_torchvision_names(state)
    else:
        renamed = dense_from_torchvision_names(state)
        anchors = _anchors(renamed)
        for key in ("head.class_logits.weight", "head.class_logits.bias"):
            by_class = renamed[key].unflatten(0, (anchors, -1))  # the background first
            renamed[key] = by_class[:, 1:].flatten(0, 1)
    body = {key.removeprefix("body."): renamed.pop(key) for key in list(renamed) if key.startswith("body.")}
    return TorchvisionDetector(name, renamed, body)


def _anchors(model: Mapping[str, Tensor]) -> int:
    """Return the anchors on a position of a one-stage head."""
    return int(model["head.box_offsets.weight"].shape[0]) // 4


def _body_names(backbone: nn.Module, body: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the body's entries under the backbone's names, which end as torchvision's do."""
    names = {key: key.removeprefix("net.model.") for key in backbone.state_dict()}
    return {key: body[name] for key, name in names.items() if name in body}
