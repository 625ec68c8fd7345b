"""Freezing, norms and learning rates that follow from `init`: defaults of each task, checks, freezing.

This is the only module that depends on `init` so. From scratch nothing is frozen, the norms are trainable and
there is one learning rate; other settings are an error, because random weights that are not trained are no
baseline. With trained weights each task has defaults, in one table. Both arms of a comparison have the same
norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast, get_args

from torch import nn

from visionkit.config import NormPolicy, TransferConfig
from visionkit.errors import InputError, expected, unknown_name
from visionkit.types import Init

__all__ = [
    "LevelCount",
    "apply_transfer",
    "fit_default",
    "freeze_at",
    "is_trained",
    "resolve_transfer",
    "scratch_arm",
    "summary",
    "transfer_from",
]

Reduction = int | float | Literal["all"]

# task: (frozen through, norm, backbone rate as a fraction of the head's), for trained weights. From scratch
# only the norm applies. Detection sees few images a step, so its statistics are taken over all processes; the
# captioner's language model learns on fixed features first (Show, Attend and Tell, arXiv 1502.03044).
_DEFAULTS: dict[str, tuple[Reduction, NormPolicy, float]] = {
    "classification": (0, "batch", 0.3),
    "detection": (4, "sync", 1.0),
    "segmentation": (0, "batch", 0.3),
    "captioning": ("all", "batch", 0.1),
    "embedding": (0, "batch", 0.3),
    "keypoints": (0, "batch", 1.0),
}


def is_trained(init: Init) -> bool:
    """Return whether an init means trained weights: all but "scratch" do."""
    return init != "scratch"


def resolve_transfer(task: str, init: Init, transfer: TransferConfig) -> TransferConfig:
    """Return `transfer` with the task's defaults in place of `None` (`probe_level` may stay `None`).

    Args:
        task: "classification", "detection", "segmentation", "captioning", "embedding" or
            "keypoints".
        init: "pretrained", "scratch", the name of weights or a path to them.
        transfer: The settings of the user.

    Raises:
        InputError: Random weights would be frozen, have frozen norms or a rate of their own; or the
            unfreezing is not in order.
    """
    if task not in _DEFAULTS:
        raise unknown_name("task", task, _DEFAULTS)
    freeze, norm, rate = _DEFAULTS[task]
    if transfer.norm is not None and transfer.norm not in get_args(NormPolicy):
        raise unknown_name("norm", transfer.norm, get_args(NormPolicy))
    if not is_trained(init):
        _refuse_for_scratch(transfer)
        return replace(transfer, freeze_through=0, norm=transfer.norm or norm, backbone_lr_scale=1.0)
    if transfer.freeze_through is None and transfer.unfreeze_at:
        freeze = "all"
    resolved = replace(
        transfer,
        freeze_through=freeze if transfer.freeze_through is None else transfer.freeze_through,
        norm=transfer.norm or norm,
        backbone_lr_scale=rate if transfer.backbone_lr_scale is None else transfer.backbone_lr_scale,
    )
    _check(resolved)
    return resolved


def scratch_arm(transfer: TransferConfig) -> TransferConfig:
    """Return the settings of the scratch arm of a comparison, from those of the pretrained arm.

    Norm and probe level belong to the network and are the same; freezing, unfreezing and rates by level are
    for trained weights and are dropped.

    Raises:
        InputError: The norms are frozen, which random weights cannot have.
    """
    scratch = TransferConfig(norm=transfer.norm, probe_level=transfer.probe_level)
    _refuse_for_scratch(scratch)
    return scratch


def apply_transfer(backbone: nn.Module, init: Init, transfer: TransferConfig) -> None:
    """Freeze the backbone as a resolved policy does at the start, and check that its unfreezing is possible.

    Freezing covers the parameters and running statistics of the backbone, also after `.train()`, and nothing
    outside it.

    Args:
        backbone: Has `freeze_through(reduction)`.
        init: Where its weights come from.
        transfer: Resolved.

    Raises:
        InputError: Random weights would be frozen, or the backbone has no such level.
    """
    if not is_trained(init):
        _refuse_for_scratch(transfer)
    freeze_through = getattr(backbone, "freeze_through", None)
    if freeze_through is None:
        if transfer.freeze_through or transfer.unfreeze_at:
            raise InputError(
                f"Freezing needs a backbone with freeze_through(), but {type(backbone).__name__} has none. "
                "Build it with visionkit.backbones (yours: register_backbone)."
            )
        return
    # From the last state to the first, so that a level that does not exist is reported now, not hours later.
    for _, reduction in reversed(transfer.unfreeze_at):
        freeze_through(reduction)
    if transfer.freeze_through or transfer.unfreeze_at:
        freeze_through(transfer.freeze_through)


def fit_default(backbone: nn.Module, given: TransferConfig, resolved: TransferConfig) -> TransferConfig:
    """Return a resolved policy that freezes nothing where the task's default does not apply.

    A default is a reduction (detection: 4), which does not fit a network whose blocks all have one reduction.
    The user's setting is not changed; the backbone refuses it if it has no such level.

    Args:
        backbone: Has `blocks()` if it is one of `visionkit.backbones`.
        given: The settings of the user.
        resolved: The result of `resolve_transfer` for them.
    """
    blocks = getattr(backbone, "blocks", None)
    default = given.freeze_through is None and not given.unfreeze_at and resolved.freeze_through != "all"
    if default and resolved.freeze_through and blocks is not None and blocks():
        return replace(resolved, freeze_through=0)
    return resolved


def freeze_at(transfer: TransferConfig, images: int) -> Reduction:
    """Return how much a resolved policy freezes after `images` images: a pure function, nothing to save."""
    state = cast(Reduction, transfer.freeze_through)
    for at, reduction in transfer.unfreeze_at:
        if images >= at:
            state = reduction
    return state


@dataclass(frozen=True)
class LevelCount:
    """Number of trainable and frozen parameters of one level.

    Args:
        level: "reduction 4", ..., or "head" for everything outside the backbone.
        trainable: Number of parameters that train.
        frozen: Number of parameters that do not.
    """

    level: str
    trainable: int
    frozen: int


def summary(module: nn.Module, backbone: nn.Module | None) -> list[LevelCount]:
    """Return trainable and frozen parameters by level, the backbone's levels first, then the head.

    Args:
        module: The task.
        backbone: Its backbone; without `stages()` it is one row.
    """
    inside = {} if backbone is None else dict(backbone.named_parameters())
    stages = getattr(backbone, "stages", None)
    rows: dict[str, list[nn.Parameter]] = {}
    if stages is not None:
        for reduction, names in stages():
            rows[f"reduction {reduction}"] = [inside[name] for name in names]
    elif inside:
        rows["backbone"] = list(inside.values())
    known = {id(parameter) for parameter in inside.values()}
    rows["head"] = [p for p in module.parameters() if id(p) not in known]
    return [
        LevelCount(
            level,
            sum(p.numel() for p in parameters if p.requires_grad),
            sum(p.numel() for p in parameters if not p.requires_grad),
        )
        for level, parameters in rows.items()
    ]


def transfer_from(value: TransferConfig | Mapping[str, Any]) -> TransferConfig:
    """Return a config from itself or from its plain dict, as checkpoints and YAML hold it.

    Raises:
        InputError: A key is not known.
    """
    if isinstance(value, TransferConfig):
        return value
    known = [field.name for field in fields(TransferConfig)]
    for name in value:
        if name not in known:
            raise unknown_name("transfer setting", name, known)
    plain = dict(value)
    plain["unfreeze_at"] = tuple((int(at), to) for at, to in plain.get("unfreeze_at", ()))
    return TransferConfig(**plain)


def _refuse_for_scratch(transfer: TransferConfig) -> None:
    way_out = (
        "Use init='pretrained' or a weights file, or leave it out (scratch_arm() does so for a comparison)."
    )
    if transfer.freeze_through or transfer.unfreeze_at:
        asked = f"freeze_through={transfer.freeze_through!r}" if transfer.freeze_through else "unfreeze_at"
        raise InputError(f"init='scratch' with {asked} would freeze random weights. {way_out}")
    if transfer.norm == "frozen":
        raise InputError(
            "init='scratch' with norm='frozen' would keep random statistics, which do not normalise. "
            "Use norm 'batch', 'sync' or 'group' (both arms of a comparison have the same)."
        )
    if transfer.backbone_lr_scale not in (None, 1.0) or transfer.layer_decay != 1.0:
        raise InputError(
            f"init='scratch' has one learning rate, but backbone_lr_scale={transfer.backbone_lr_scale} and "
            f"layer_decay={transfer.layer_decay} ask for several. {way_out}"
        )


def _check(transfer: TransferConfig) -> None:
    freeze = transfer.freeze_through
    is_fraction = isinstance(freeze, float) and 0 < freeze < 1
    if not (freeze == "all" or is_fraction or (isinstance(freeze, int) and freeze >= 0)):
        expected_text = "a reduction, a fraction of blocks (above 0, below 1), 0 or 'all'"
        raise InputError(expected("transfer.freeze_through", expected_text, freeze))
    scale, decay = transfer.backbone_lr_scale, transfer.layer_decay
    if scale is None or scale <= 0:
        raise InputError(
            expected(
                "transfer.backbone_lr_scale",
                "above 0",
                scale,
                fix="To keep it fixed use freeze_through='all'.",
            )
        )
    if not 0 < decay <= 1:
        raise InputError(expected("transfer.layer_decay", "above 0 and at most 1", decay))
    before: tuple[float, float] = (0, float(freeze) if isinstance(freeze, int | float) else float("inf"))
    for at, reduction in transfer.unfreeze_at:
        if at <= before[0] or not 0 <= reduction < before[1]:
            expected_text = (
                f"pairs (images, reduction), images rising from above 0, reduction falling from {freeze!r}"
            )
            fix = "For example ((5000, 16), (10000, 0))."
            raise InputError(expected("transfer.unfreeze_at", expected_text, transfer.unfreeze_at, fix=fix))
        before = (at, reduction)
