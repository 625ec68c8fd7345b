"""torchvision's detectors as ours, from their state dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from visionkit.backbones.norms import FrozenBatchNorm
from visionkit.backbones.weights import WeightsInfo, read_state_dict
from visionkit.config import NormPolicy, OptimConfig, TransferConfig
from visionkit.errors import InputError, unknown_name
from visionkit.nn.detection.torchvision_state_dict import from_torchvision_names
from visionkit.task_config import RCNNConfig

if TYPE_CHECKING:
    from visionkit.tasks.detection.task import Detector

__all__ = ["build"]

_MODELS: dict[str, dict[str, Any]] = {
    "fasterrcnn_resnet50_fpn": {},
    "fasterrcnn_resnet50_fpn_v2": {"head": "four_conv", "rpn_convs": 2},
    "maskrcnn_resnet50_fpn": {"masks": True},
}
_SIZE = (800, 1333)


def build(
    kind: type[Detector],
    weights: Mapping[str, Tensor] | str | Path,
    *,
    name: str,
    num_classes: int | None,
    class_names: Sequence[str] | None,
    optim: OptimConfig,
    lr: float,
    frozen_eps: float,
) -> Detector:
    """Return the detector; see `Detector.from_torchvision`."""
    if name not in _MODELS:
        raise unknown_name("torchvision detector", name, _MODELS)
    state = read_state_dict(weights) if isinstance(weights, str | Path) else weights
    renamed = from_torchvision_names(state)
    body = {key.removeprefix("body."): renamed.pop(key) for key in list(renamed) if key.startswith("body.")}
    # torchvision freezes the norms of weights it knows to be trained; its version 2 and freshly built models
    # keep batch norms.
    frozen = not any(key.endswith("num_batches_tracked") for key in body)
    policy: NormPolicy = "frozen" if frozen else "batch"
    own = int(renamed["heads.box_head.classify.weight"].shape[0]) - 1
    classes = own if num_classes is None else num_classes
    info = WeightsInfo(source="user", name=name).as_dict()
    task = kind(
        "torchvision/resnet50",
        init="scratch",
        num_classes=classes,
        rcnn=RCNNConfig(anchor_spacing="grid", **_MODELS[name]),
        transfer=TransferConfig(norm=policy),
        optim=optim,
        lr=lr,
        resize=_SIZE,
        class_names=class_names,
        origin={"init": "file", "weights": info},
        head_norm="batch" if name.endswith("_v2") else "frozen",
    )
    _fill(task, renamed, body, replaced=num_classes is not None and num_classes != own, name=name)
    if frozen:
        for module in task.backbone.modules():
            if isinstance(module, FrozenBatchNorm) and isinstance(module.running_var, Tensor):
                # Moved into the variance, so that a checkpoint of this task carries it.
                module.running_var.add_(frozen_eps - module.eps)
    return task


def _fill(
    task: Detector, state: dict[str, Tensor], body: dict[str, Tensor], *, replaced: bool, name: str
) -> None:
    last = ("heads.box_head.classify.", "heads.box_head.regress.", "heads.mask_head.predict.")
    if replaced:
        state = {key: value for key, value in state.items() if not key.startswith(last)}
    own = task.model.state_dict()
    rest = [key for key in own if not key.startswith("source.source.")]
    lacking = [key for key in rest if key not in state and not (replaced and key.startswith(last))]
    strange = [key for key in state if key not in own or own[key].shape != state[key].shape]
    inner = _body_names(task, body)
    lacking += [key for key in task.backbone.state_dict() if key not in inner]
    lacking = [key for key in lacking if not key.endswith("num_batches_tracked")]
    if lacking or strange:
        raise InputError(
            f"These are not the weights of {name}: {len(lacking)} entries are missing "
            f"({', '.join(lacking[:3])}) and {len(strange)} do not fit ({', '.join(strange[:3])})."
        )
    task.model.load_state_dict(state, strict=False)
    task.backbone.load_state_dict(inner, strict=False)


def _body_names(task: Detector, body: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the body's entries under the backbone's own names, which end as torchvision's do."""
    ours = task.backbone.state_dict()
    return {key: body[end] for key in ours for end in [key.removeprefix("net.model.")] if end in body}
