"""The contract of backbones, as a function to point at any of them: ours, or a network of yours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.backbones.backbone import Backbone
from visionkit.backbones.create import assemble_encoder, create_backbone
from visionkit.backbones.encoder import Encoder
from visionkit.backbones.probe import make_plan
from visionkit.backbones.registry import registered, resolve
from visionkit.backbones.sources.base import Plan, Request, Size, Source
from visionkit.backbones.tracing import on_meta_device, run_for_shapes
from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError, RunError

__all__ = ["ContractReport", "check_backbone"]

_WANTED = (4, 8, 16, 32)
_ODD = (77, 93)
_PLENTY = 300_000_000


@dataclass(frozen=True)
class ContractReport:
    """What `check_backbone` found.

    Args:
        name: The backbone.
        levels: Pairs (channels, reduction); empty when the network was refused as a source of maps.
        refusal: Why it gives no maps; empty when it does.
        dim: Length of the encoder's vector.
        parameters: Number of parameters, with the classifier.
        size: The image size it was run at.
        arithmetic: Whether it was run with numbers; false when by shape alone.
        linear_head: Whether the weights' own classifier can be kept.
    """

    name: str
    levels: tuple[tuple[int, int], ...]
    refusal: str
    dim: int
    parameters: int
    size: Size
    arithmetic: bool
    linear_head: bool


def check_backbone(
    backbone: str | Callable[..., nn.Module], *, by_shape_above: int = _PLENTY
) -> ContractReport:
    """Hold a backbone to the contract that every task relies on.

    Built from scratch, it must give, for an image whose sides nothing divides (or of its only size), one
    finite map per level of the promised shape; every parameter must get a gradient; freezing must stop
    gradients and running statistics, also in training mode; the encoder must give one finite vector per
    image, its stages must hold each parameter once, and its kept classifier must give the whole network's
    answers.

    Args:
        backbone: A registered name, or a function as `register_backbone` takes it.
        by_shape_above: Networks of more parameters are checked by shape alone, without memory.

    Returns:
        What was found.

    Raises:
        RunError: The contract is broken; the text says where.
        InputError: The name is not known, or the network cannot be built.
    """
    if not isinstance(backbone, str):
        with registered(backbone) as name:
            return check_backbone(name, by_shape_above=by_shape_above)
    source, request = resolve(backbone, Request(""))
    plan = make_plan(source, request)
    arithmetic = plan.parameters <= by_shape_above
    has = [tap.level.reduction for tap in plan.taps]
    reductions = [r for r in _WANTED if r in has] or has
    refusal = ""
    levels: tuple[tuple[int, int], ...] = ()
    try:
        levels = _check_maps(backbone, plan, reductions or list(_WANTED), arithmetic)
    except InputError as error:
        if has:
            raise
        refusal = str(error)
    encoder, size = _check_encoder(backbone, source, request, plan, arithmetic)
    return ContractReport(
        backbone,
        levels,
        refusal,
        encoder.dim,
        plan.parameters,
        plan.fixed_size or size,
        arithmetic,
        encoder.pretrained_head() is not None,
    )


def _check_maps(
    name: str, plan: Plan, reductions: list[int], arithmetic: bool
) -> tuple[tuple[int, int], ...]:
    def build() -> Backbone:
        return create_backbone(name, init="scratch", reductions=reductions)

    backbone = build() if arithmetic else on_meta_device(build)
    if not isinstance(backbone, Backbone):
        raise RunError(f"{name!r}: Expected a Backbone, but got {type(backbone).__name__}.")
    _promise(
        name,
        [level.reduction for level in backbone.levels] == sorted(set(reductions)),
        "levels fine to coarse",
    )
    size = plan.fixed_size or _ODD
    images = torch.randn(2, 3, *size, device="cpu" if arithmetic else "meta")
    backbone.train()
    maps = backbone(images)
    _promise(name, len(maps) == len(backbone.levels), f"one map per level, not {len(maps)}")
    for level, found in zip(backbone.levels, maps, strict=True):
        r = level.reduction
        wanted = (2, level.channels, math.ceil(size[0] / r), math.ceil(size[1] / r))
        _promise(
            name, tuple(found.shape) == wanted, f"a map {wanted} at reduction {r}, not {tuple(found.shape)}"
        )
    _check_gradients(name, backbone, list(maps), arithmetic, "its maps")
    listed = [n for stage in backbone.stages() for n in stage.parameters]
    own = [n for n, p in backbone.named_parameters() if p.requires_grad]
    _promise(name, len(listed) == len(set(listed)), "each parameter in one stage")
    _promise(
        name, set(own) <= set(listed), f"every parameter in a stage, not {sorted(set(own) - set(listed))[:3]}"
    )
    _check_freezing(name, backbone, images, arithmetic)
    return tuple((level.channels, level.reduction) for level in backbone.levels)


def _check_freezing(name: str, backbone: Backbone, images: Tensor, arithmetic: bool) -> None:
    backbone.weights = WeightsInfo(source="user", name=name)  # random weights are otherwise not frozen
    finest, blocks = backbone.levels[0].reduction, backbone.blocks()
    backbone.freeze_through(0.5 if blocks else finest)
    backbone.train()
    frozen = {n for s in backbone.stages() if s.reduction <= finest for n in s.parameters}
    if blocks:
        frozen = {n for block in blocks if block.share <= 0.5 for n in block.parameters}
        left = [n for n, p in backbone.named_parameters() if n not in frozen and p.requires_grad]
        _promise(name, bool(frozen and left), "half of the blocks frozen and half of them not")
    for n, p in backbone.named_parameters():
        _promise(name, not (n in frozen and p.requires_grad), f"{n} without gradient when frozen")
    backbone.freeze_through("all")
    backbone.train()
    before = {n: b.clone() for n, b in backbone.named_buffers()} if arithmetic else {}
    if arithmetic:
        with torch.no_grad():
            backbone(images)
    for n, b in backbone.named_buffers():
        if arithmetic:
            _promise(name, torch.equal(before[n], b), f"running statistics {n} to stay when frozen")
    _promise(
        name, not any(p.requires_grad for p in backbone.parameters()), "no gradient at all when all is frozen"
    )


def _check_encoder(
    name: str, source: Source, request: Request, plan: Plan, arithmetic: bool
) -> tuple[Encoder, Size]:
    def build() -> nn.Module:
        return source.build(request, None)

    model = build() if arithmetic else on_meta_device(build)
    size = _small_size(model, plan, request.in_channels)
    images = torch.randn(2, request.in_channels, *size, device="cpu" if arithmetic else "meta")
    model.eval()
    with torch.no_grad():
        whole: Any = model(images)
    encoder = assemble_encoder(source, request, plan, model, WeightsInfo(name=name), name=name)
    encoder.eval()
    with torch.no_grad():
        vector = encoder(images)
    _promise(
        name,
        tuple(vector.shape) == (2, encoder.dim),
        f"vectors (2, {encoder.dim}), not {tuple(vector.shape)}",
    )
    head = encoder.pretrained_head()
    if head is not None:
        _promise(name, isinstance(whole, Tensor), "one answer of the whole network")
        logits = head(vector)
        same = logits.shape == whole.shape and (
            not arithmetic
            or torch.allclose(logits, whole, rtol=1e-3, atol=1e-4 * max(1.0, float(whole.abs().max())))
        )
        _promise(name, same, "the kept classifier to give the whole network's answers")
    encoder.train()
    _check_gradients(name, encoder, [encoder(images)], arithmetic, "its vector")
    listed = [n for stage in encoder.stages() for n in stage.parameters]
    _promise(
        name,
        sorted(listed) == sorted(n for n, _ in encoder.named_parameters()),
        "each parameter in one stage",
    )
    return encoder, size


def _check_gradients(
    name: str, module: nn.Module, outputs: list[Tensor], arithmetic: bool, what: str
) -> None:
    for output in outputs:
        if arithmetic:
            _promise(name, bool(torch.isfinite(output).all()), f"finite numbers in {what}")
    total = torch.stack([output.float().pow(2).mean() for output in outputs]).sum()
    total.backward()
    idle = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    _promise(name, not idle, f"a gradient for every parameter from {what}; {len(idle)} get none: {idle[:3]}")
    module.zero_grad(set_to_none=True)


def _small_size(model: nn.Module, plan: Plan, channels: int) -> Size:
    if plan.fixed_size is not None:
        return plan.fixed_size
    step = math.lcm(plan.step, 32)
    for size in ((2 * step, 3 * step), (4 * step, 4 * step)):
        try:
            run_for_shapes(model, size, channels)
        except Exception:
            continue
        return size
    return plan.traced_size


def _promise(name: str, kept: bool, what: str) -> None:
    if not kept:
        raise RunError(f"{name!r} breaks the contract of backbones. Expected {what}.")
