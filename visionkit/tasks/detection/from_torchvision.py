"""The weights of torchvision's detectors under the names of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from visionkit.backbones.norms import FrozenBatchNorm
from visionkit.backbones.weights import WeightsInfo, read_state_dict
from visionkit.config import NormPolicy, TransferConfig
from visionkit.errors import InputError, unknown_name
from visionkit.nn.detection.torchvision_state_dict import from_torchvision_names
from visionkit.task_config import RCNNConfig

__all__ = ["TorchvisionDetector", "read_detector"]

_MODELS: dict[str, dict[str, Any]] = {
    "fasterrcnn_resnet50_fpn": {},
    "fasterrcnn_resnet50_fpn_v2": {"head": "four_conv", "rpn_convs": 2},
    "maskrcnn_resnet50_fpn": {"masks": True},
}
_SIZE = (800, 1333)
_LAST = ("heads.box_head.classify.", "heads.box_head.regress.", "heads.mask_head.predict.")


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
        return int(self.model["heads.box_head.classify.weight"].shape[0]) - 1

    @property
    def frozen(self) -> bool:
        """Whether the backbone's norms are frozen.

        torchvision freezes the norms of weights that it knows to be trained; its version 2 and newly built
        models keep batch norms.
        """
        return not any(key.endswith("num_batches_tracked") for key in self.body)

    def settings(self) -> dict[str, Any]:
        """Return the settings of a `Detector` that computes what torchvision's does."""
        policy: NormPolicy = "frozen" if self.frozen else "batch"
        return {
            "backbone": "torchvision/resnet50",
            "init": "scratch",
            "rcnn": RCNNConfig(anchor_spacing="grid", **_MODELS[self.name]),
            "transfer": TransferConfig(norm=policy),
            "resize": _SIZE,
            "origin": {"init": "file", "weights": WeightsInfo(source="user", name=self.name).as_dict()},
            "head_norm": "batch" if self.name.endswith("_v2") else "frozen",
        }

    def fill(self, task: Any, *, frozen_eps: float) -> None:
        """Load the weights into a detector that was built with `settings`.

        Last layers of another number of classes stay as they are.

        Args:
            task: Has `backbone`, `model` and `num_classes`.
            frozen_eps: Epsilon of frozen norms.

        Raises:
            InputError: The weights are not of that detector; some keys are named.
        """
        replaced = task.num_classes != self.num_classes
        state = {key: value for key, value in self.model.items() if not (replaced and key.startswith(_LAST))}
        target = task.model.state_dict()
        outside = [key for key in target if not key.startswith("source.source.")]
        missing = [key for key in outside if key not in state and not (replaced and key.startswith(_LAST))]
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
                module.running_var.add_(frozen_eps - module.eps)


def read_detector(weights: Mapping[str, Tensor] | str | Path, name: str) -> TorchvisionDetector:
    """Return a torchvision detector's weights under the names of ours; see `Detector.from_torchvision`.

    Raises:
        InputError: The name is not known, or the file cannot be read.
    """
    if name not in _MODELS:
        raise unknown_name("torchvision detector", name, _MODELS)
    state = read_state_dict(weights) if isinstance(weights, str | Path) else weights
    renamed = from_torchvision_names(state)
    body = {key.removeprefix("body."): renamed.pop(key) for key in list(renamed) if key.startswith("body.")}
    return TorchvisionDetector(name, renamed, body)


def _body_names(backbone: nn.Module, body: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the body's entries under the backbone's names, which end as torchvision's do."""
    names = {key: key.removeprefix("net.model.") for key in backbone.state_dict()}
    return {key: body[name] for key, name in names.items() if name in body}
