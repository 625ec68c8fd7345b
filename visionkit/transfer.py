"""What an init implies: the only code that says so.

From scratch nothing is frozen, the norms are trainable and there is one learning rate; asking otherwise is an
error, because random weights that never move are no baseline. With trained weights each task has defaults, in
one table. Both arms of a comparison have the same norms.
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

# task: (frozen through, norm, backbone rate as a share of the head's), for trained weights. From scratch only
# the norm holds. Detection sees few images a step, so its statistics are taken over all processes; the
# captioner's language model learns on fixed features first (Show, Attend and Tell, arXiv 1502.03044).
_DEFAULTS: dict[str, tuple[Reduction, NormPolicy, float]] = {
    "classification": (0, "batch", 0.3),
    "detection": (4, "sync", 1.0),
    "segmentation": (0, "batch", 0.3),
    "captioning": ("all", "batch", 0.1),
}


def is_trained(init: Init) -> bool:
    """Return whether an init brings trained weights: everything but "scratch" does."""
    return init != "scratch"


def resolve_transfer(task: str, init: Init, transfer: TransferConfig) -> TransferConfig:
    """Return `transfer` with the task's defaults in place of `None` (`probe_level` may stay `None`).

    Args:
        task: "classification", "detection", "segmentation" or "captioning".
        init: "pretrained", "scratch" or a path to weights.
        transfer: What the user asked for.

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
    """Return what the scratch arm of a comparison keeps of the pretrained arm's settings.

    Norm and probe level belong to the network and stay; freezing, unfreezing and rates by level come with
    trained weights and go.

    Raises:
        InputError: The norms are frozen, which random weights cannot have.
    """
    kept = TransferConfig(norm=transfer.norm, probe_level=transfer.probe_level)
    _refuse_for_scratch(kept)
    return kept


def apply_transfer(backbone: nn.Module, init: Init, transfer: TransferConfig) -> None:
    """Freeze what a resolved policy freezes before the first image, and check that its unfreezing can happen.

    Freezing is the backbone's own: parameters and running statistics, through `.train()`, never beyond its
    boundary.

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
    # From the last state to the first, so that a level that does not exist is named now, not hours later.
    for _, reduction in reversed(transfer.unfreeze_at):
        freeze_through(reduction)
    if transfer.freeze_through or transfer.unfreeze_at:
        freeze_through(transfer.freeze_through)


def fit_default(backbone: nn.Module, given: TransferConfig, resolved: TransferConfig) -> TransferConfig:
    """Return a resolved policy that freezes nothing where the task's default cannot be meant.

    A default names a reduction (detection: 4), which says nothing of a network whose blocks all share one
    reduction. What the user asked for is kept, and refused by the backbone if it has no such level.

    Args:
        backbone: Has `blocks()` if it is one of `visionkit.backbones`.
        given: What the user asked for.
        resolved: What `resolve_transfer` made of it.
    """
    blocks = getattr(backbone, "blocks", None)
    default = given.freeze_through is None and not given.unfreeze_at and resolved.freeze_through != "all"
    if default and resolved.freeze_through and blocks is not None and blocks():
        return replace(resolved, freeze_through=0)
    return resolved


def freeze_at(transfer: TransferConfig, images: int) -> Reduction:
    """Return how deep a resolved policy freezes after `images` seen: a pure function, nothing to save."""
    state = cast(Reduction, transfer.freeze_through)
    for at, reduction in transfer.unfreeze_at:
        if images >= at:
            state = reduction
    return state


@dataclass(frozen=True)
class LevelCount:
    """How many parameters of one level train and how many are frozen.

    Args:
        level: "reduction 4", ..., or "head" for everything outside the backbone.
        trainable: Parameters that train now.
        frozen: Parameters that do not.
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
    share = isinstance(freeze, float) and 0 < freeze < 1
    if not (freeze == "all" or share or (isinstance(freeze, int) and freeze >= 0)):
        wanted = "a reduction, a share of blocks (above 0, below 1), 0 or 'all'"
        raise InputError(expected("transfer.freeze_through", wanted, freeze))
    scale, decay = transfer.backbone_lr_scale, transfer.layer_decay
    if scale is None or scale <= 0:
        raise InputError(
            expected(
                "transfer.backbone_lr_scale",
                "above 0",
                scale,
                fix="To hold it still use freeze_through='all'.",
            )
        )
    if not 0 < decay <= 1:
        raise InputError(expected("transfer.layer_decay", "above 0 and at most 1", decay))
    before: tuple[float, float] = (0, float(freeze) if isinstance(freeze, int | float) else float("inf"))
    for at, reduction in transfer.unfreeze_at:
        if at <= before[0] or not 0 <= reduction < before[1]:
            wanted = (
                f"pairs (images, reduction), images rising from above 0, reduction falling from {freeze!r}"
            )
            fix = "For example ((5000, 16), (10000, 0))."
            raise InputError(expected("transfer.unfreeze_at", wanted, transfer.unfreeze_at, fix=fix))
        before = (at, reduction)
