"""Optimizers, parameter groups, and learning-rate schedules counted in images.

A schedule is a pure function of the images seen, so a subset, another batch size or another number of devices
keeps its shape, and a resume needs no state but the number of updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import lightning
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from visionkit.compat import skip_graph_capture_check, trainer_of
from visionkit.config import OptimConfig, TransferConfig
from visionkit.errors import InputError, expected

__all__ = [
    "build_optimizer",
    "describe_rate",
    "images_per_step",
    "parameter_groups",
    "schedule_scale",
    "total_images",
]


def build_optimizer(
    module: nn.Module,
    backbone: nn.Module | None,
    config: OptimConfig,
    transfer: TransferConfig,
    lr: float,
    *,
    total_images: float,
    global_batch: int,
) -> dict[str, Any]:
    """Return the optimizer and its scheduler, stepped by update, as `configure_optimizers` returns them.

    The rate of an update is that of the schedule at the middle of its images, so neither the first nor the
    last update has rate zero.

    Args:
        module: The task.
        backbone: Its backbone, whose parameters have a rate of their own, if there is one.
        config: Optimizer and schedule.
        transfer: Resolved: rates by level, and which levels unfreeze later.
        lr: Peak rate of the head, for the batch `config.batch` (for the actual one when that is 0).
        total_images: Images over all processes until the end; infinite only for schedule "constant".
        global_batch: Images an update over all processes.

    Raises:
        InputError: The schedule does not fit into the training, or no parameter is to be trained.
    """
    trainer = trainer_of(module)
    _check_length(config, transfer, total_images, epochs=getattr(trainer, "max_epochs", None) or -1)
    groups = parameter_groups(module, backbone, config, transfer, scaled_rate(lr, config, global_batch))
    devices = {p.device.type for group in groups for p in group["params"]}
    # Lightning cannot clip gradients that a fused optimizer unscales itself.
    clipped = config.clip_norm or getattr(trainer, "gradient_clip_val", None)
    fused = devices in ({"cpu"}, {"cuda"}) and not clipped
    optimizer = _optimizer(groups, config, fused=fused)
    if devices == {"cpu"}:
        skip_graph_capture_check(optimizer)

    def scale(step: int) -> float:
        return schedule_scale((step + 0.5) * global_batch, total_images, config)

    scheduler = LambdaLR(optimizer, scale)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _optimizer(groups: list[dict[str, Any]], config: OptimConfig, *, fused: bool) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=fused)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, fused=fused)
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

    made: torch.optim.Optimizer = create_optimizer_v2(
        groups,
        opt=config.optimizer,
        lr=groups[0]["lr"],
        weight_decay=config.weight_decay,
        momentum=config.momentum,
    )
    return made


def schedule_scale(images: float, total: float, config: OptimConfig) -> float:
    """Return the learning rate after `images` of `total` images as a fraction of its peak: a pure function.

    "steps" multiplies by `gamma` at each of `milestones_before_end`: longer training stretches the first
    stage only (He et al., Rethinking ImageNet Pre-training, arXiv 1811.08883).
    """
    if config.schedule == "constant" and not math.isfinite(total):
        return 1.0
    warm = config.warmup * total
    if images < warm:
        return images / warm
    done = min(1.0, (images - warm) / max(total - warm, 1e-9))
    low = config.min_lr_ratio
    if config.schedule == "cosine":
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "linear":
        return low + (1 - low) * (1 - done)
    if config.schedule == "poly":
        return low + (1 - low) * float((1 - done) ** config.power)
    if config.schedule == "steps":
        return float(
            config.gamma ** sum(images >= total - milestone for milestone in _milestones(config, total))
        )
    return 1.0


def scaled_rate(lr: float, config: OptimConfig, global_batch: int) -> float:
    """Return the peak rate for the actual global batch: proportional to it when `config.batch` is set."""
    return lr * global_batch / config.batch if config.batch else lr


def describe_rate(lr: float, config: OptimConfig, global_batch: int) -> str:
    """Return one line with the peak rate and how it was computed."""
    rate = scaled_rate(lr, config, global_batch)
    if not config.batch:
        return f"learning rate {rate:g}, not scaled by the batch of {global_batch} images an update"
    return (
        f"learning rate {rate:g} = {lr:g} x {global_batch} / {config.batch} "
        f"(given for {config.batch} images an update, running {global_batch})"
    )


def parameter_groups(
    module: nn.Module, backbone: nn.Module | None, config: OptimConfig, transfer: TransferConfig, lr: float
) -> list[dict[str, Any]]:
    """Return the groups: every parameter that trains, now or after an unfreezing, is in exactly one.

    Norms, biases, embeddings and whatever a part names in `no_weight_decay()` are not decayed. Groups are
    named "head", "backbone", "backbone/REDUCTION" or "backbone/block NUMBER" (0: the embeddings), with
    "/no decay".

    Args:
        module: The task.
        backbone: Its backbone, whose parameters have a rate of their own, if there is one.
        config: Weight decay.
        transfer: Resolved: `backbone_lr_scale`, `layer_decay`, `unfreeze_at`.
        lr: Peak rate of the head.

    Raises:
        InputError: No parameter is to be trained, or a decay by level would have no effect.
    """
    levels, unfrozen_later = _backbone_levels(backbone, transfer)
    inside = set() if backbone is None else {id(p) for p in backbone.parameters()}
    undecayed = _undecayed(module)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not (parameter.requires_grad or id(parameter) in unfrozen_later):
            continue
        scale, group = 1.0, "head"
        if id(parameter) in inside:
            level, scale = levels.get(id(parameter), ("backbone", 1.0))
            group, scale = level, scale * (transfer.backbone_lr_scale or 1.0)
        decay = config.weight_decay
        if parameter.ndim <= 1 or name in undecayed:
            group, decay = f"{group}/no decay", 0.0
        made = groups.setdefault(
            group, {"params": [], "lr": lr * scale, "weight_decay": decay, "name": group}
        )
        made["params"].append(parameter)
    if not groups:
        raise InputError(
            "Expected something to train, but every parameter is frozen. Give the task a new head "
            "(head='new') or unfreeze a level (transfer.freeze_through)."
        )
    return list(groups.values())


def images_per_step(trainer: lightning.Trainer) -> int:
    """Return the images of one update over all processes: batch x processes x accumulated batches.

    Images seen are counted as updates times this: a shorter last batch of an epoch counts as a full one.

    Raises:
        InputError: The training loader has no batch size.
    """
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()
    size = next((units for loader in _loaders(trainer.train_dataloader) if (units := _batch_size(loader))), 0)
    if not size:
        raise InputError(
            "Expected a training loader with a batch size, but found none. Use a DataLoader with "
            "batch_size, or a batch sampler with the attribute batch_size."
        )
    return size * trainer.world_size * trainer.accumulate_grad_batches


def total_images(trainer: lightning.Trainer) -> float:
    """Return the images over all processes that the Trainer will run; infinite without an end."""
    steps = trainer.estimated_stepping_batches
    return math.inf if steps in (math.inf, -1) else float(steps) * images_per_step(trainer)


def _batch_size(loader: Any) -> int:
    for owner in (loader, getattr(loader, "batch_sampler", None)):
        size = getattr(owner, "batch_size", None)
        if isinstance(size, int) and size > 0:
            return size
    return 0


def _loaders(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _loaders(item)
    elif hasattr(value, "flattened"):
        yield from value.flattened
    elif value is not None:
        yield value


def _milestones(config: OptimConfig, total: float) -> tuple[float, ...]:
    return config.milestones_before_end or (total / 3, total / 9)


def _check_length(config: OptimConfig, transfer: TransferConfig, total: float, *, epochs: int = -1) -> None:
    if not math.isfinite(total):
        if config.schedule == "constant" and not config.warmup:
            return
        if epochs > 0:
            raise InputError(
                f"The schedule {config.schedule!r} with warm-up {config.warmup:g} needs to know where "
                f"training ends. max_epochs is {epochs}, but the training loader has no length (an "
                "IterableDataset), so an epoch has no known end. Set max_steps, give the data set __len__, "
                "or use schedule 'constant' with warmup 0."
            )
        raise InputError(
            f"The schedule {config.schedule!r} with warm-up {config.warmup:g} needs to know where "
            "training ends, but the Trainer has no end. Set max_epochs or max_steps, or use schedule "
            "'constant' with warmup 0."
        )
    if config.schedule == "steps" and config.milestones_before_end:
        if list(config.milestones_before_end) != sorted(config.milestones_before_end, reverse=True):
            raise InputError(
                expected("optim.milestones_before_end", "largest first", config.milestones_before_end)
            )
        if config.milestones_before_end[0] > total * (1 - config.warmup):
            raise InputError(
                f"The first milestone of the schedule is {config.milestones_before_end[0]:,} images before "
                f"the end, but after warm-up only {total * (1 - config.warmup):,.0f} are run. Train longer, "
                "or lower optim.milestones_before_end."
            )
    too_late = [at for at, _ in transfer.unfreeze_at if at >= total]
    if too_late:
        raise InputError(
            f"transfer.unfreeze_at names {too_late[0]:,} images, but training ends at {total:,.0f}: that "
            "level would never be unfrozen. Train longer, or unfreeze it earlier."
        )


def _backbone_levels(
    backbone: nn.Module | None, transfer: TransferConfig
) -> tuple[dict[int, tuple[str, float]], set[int]]:
    """Return group and rate factor of each backbone parameter by id, and the ids of those unfrozen later."""
    if backbone is None:
        return {}, set()
    last_unfrozen = transfer.unfreeze_at[-1][1] if transfer.unfreeze_at else None
    if transfer.layer_decay == 1.0 and not last_unfrozen:
        return {}, set() if last_unfrozen is None else {id(p) for p in backbone.parameters()}
    units = _units(backbone)
    named = dict(backbone.named_parameters())
    with_weights = [1 for unit in units if any(named[name].ndim > 1 for name in unit.parameters)]
    if transfer.layer_decay != 1.0 and len(with_weights) < 2:
        raise InputError(
            f"layer_decay={transfer.layer_decay:g} would do nothing: all weights of "
            f"{getattr(backbone, 'name', type(backbone).__name__)!r} are one group, since its maps have one "
            "reduction and no blocks of one class were found in it. Leave layer_decay out, or register a "
            "network that gives several levels."
        )
    levels: dict[int, tuple[str, float]] = {}
    unfrozen_later: set[int] = set()
    for depth, unit in enumerate(reversed(units)):
        for name in unit.parameters:
            levels[id(named[name])] = (unit.label, transfer.layer_decay**depth)
            if last_unfrozen is not None and (last_unfrozen == 0 or unit.depth_order > last_unfrozen):
                unfrozen_later.add(id(named[name]))
    return levels, unfrozen_later


class _Unit(NamedTuple):
    """Parameters of one learning rate: a level, or a block where all blocks have one reduction."""

    label: str
    depth_order: float
    parameters: list[str]


def _units(backbone: nn.Module) -> list[_Unit]:
    """Return the units of a backbone, first to last."""
    blocks: Callable[[], list[tuple[float, list[str]]]] | None = getattr(backbone, "blocks", None)
    named = enumerate(blocks() if blocks is not None else [])
    units = [_Unit(f"backbone/block {i}", fraction, names) for i, (fraction, names) in named if names]
    if units:
        return units
    return [_Unit(f"backbone/{reduction}", reduction, names) for reduction, names in _stages(backbone)]


def _stages(backbone: nn.Module) -> list[tuple[int, list[str]]]:
    stages: Callable[[], list[tuple[int, list[str]]]] | None = getattr(backbone, "stages", None)
    if stages is None:
        raise InputError(
            f"Rates and unfreezing by level need a backbone with stages(), but {type(backbone).__name__} "
            "has none. Build it with visionkit.backbones (yours: register_backbone)."
        )
    return stages()


def _undecayed(module: nn.Module) -> set[str]:
    names: set[str] = set()
    for prefix, part in module.named_modules():
        no_decay: set[str] = set()
        if isinstance(part, nn.Embedding):
            no_decay.add("weight")
        listed = getattr(part, "no_weight_decay", None)
        if callable(listed):
            no_decay |= set(listed())
        names |= {f"{prefix}.{name}" if prefix else name for name in no_decay}
    return names
