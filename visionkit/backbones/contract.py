"""`check_backbone`: tests of any backbone, registered or your own, against what the tasks rely on."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.backbones.backbone import Backbone
from visionkit.backbones.create import assemble_encoder, create_backbone
from visionkit.backbones.encoder import Encoder
from visionkit.backbones.probe import probe_model
from visionkit.backbones.registry import registered, resolve
from visionkit.backbones.sources.base import ModelInfo, ModelSpec, Size, Source
from visionkit.backbones.tracing import ShapeNorms, on_meta_device, run_for_shapes
from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError, RunError

__all__ = ["ContractReport", "check_backbone"]

_REDUCTIONS = (4, 8, 16, 32)
_ODD_SIZE = (77, 93)
_MAX_PARAMETERS = 300_000_000


@dataclass(frozen=True)
class ContractReport:
    """Result of `check_backbone`.

    Args:
        name: The backbone.
        levels: Pairs (channels, reduction); empty when the network gives no maps.
        refusal: Why it gives no maps; empty when it does.
        dim: Length of the encoder's vector.
        parameters: Number of parameters, with the classifier.
        size: `(height, width)` of the images it was run on.
        computed: Whether values were computed; false when only shapes were (on the meta device).
        linear_head: Whether the pretrained classifier can be used as a head.
    """

    name: str
    levels: tuple[tuple[int, int], ...]
    refusal: str
    dim: int
    parameters: int
    size: Size
    computed: bool
    linear_head: bool


def check_backbone(
    backbone: str | Callable[..., nn.Module], *, shapes_only_above: int = _MAX_PARAMETERS
) -> ContractReport:
    """Check a backbone for everything that the tasks rely on.

    It is built from scratch and run on an image of odd sides (or of its only size). It must give one finite
    map of the documented shape per level, and every parameter must get a gradient. Freezing must stop
    gradients and running statistics, also in training mode. The encoder must give one finite vector per
    image, its stages must hold each parameter once, and its pretrained classifier must give the logits of the
    full network.

    Args:
        backbone: A registered name, or a function as `register_backbone` takes it.
        shapes_only_above: Networks of more parameters are checked by their shapes only, without memory.

    Returns:
        The levels, sizes and parameters that were found.

    Raises:
        RunError: A check fails; the message names it.
        InputError: The name is not known, or the network cannot be built.
    """
    if not isinstance(backbone, str):
        with registered(backbone) as name:
            probe_model.cache_clear()  # a function of the same name may have been measured before
            return check_backbone(name, shapes_only_above=shapes_only_above)
    source, spec = resolve(backbone, ModelSpec(""))
    model_info = probe_model(source, spec)
    computed = model_info.parameters <= shapes_only_above
    reductions = [r for r in _REDUCTIONS if r in model_info.reductions] or model_info.reductions
    refusal = ""
    levels: tuple[tuple[int, int], ...] = ()
    with nullcontext() if computed else ShapeNorms():
        try:
            levels = _check_maps(backbone, model_info, reductions or list(_REDUCTIONS), computed)
        except InputError as error:
            if reductions:
                raise
            refusal = str(error)
        encoder, size = _check_encoder(backbone, source, spec, model_info, computed)
    return ContractReport(
        backbone,
        levels,
        refusal,
        encoder.dim,
        model_info.parameters,
        model_info.fixed_size or size,
        computed,
        encoder.pretrained_head() is not None,
    )


def _check_maps(
    name: str, model_info: ModelInfo, reductions: list[int], computed: bool
) -> tuple[tuple[int, int], ...]:
    def build() -> Backbone:
        return create_backbone(name, init="scratch", reductions=reductions)

    backbone = build() if computed else on_meta_device(build)
    if not isinstance(backbone, Backbone):
        raise RunError(f"{name!r}: Expected a Backbone, but got {type(backbone).__name__}.")
    _require(
        name,
        [level.reduction for level in backbone.levels] == sorted(set(reductions)),
        "levels fine to coarse",
    )
    size = model_info.fixed_size or _ODD_SIZE
    images = torch.randn(2, 3, *size, device="cpu" if computed else "meta")
    backbone.train()
    maps = backbone(images)
    _require(name, len(maps) == len(backbone.levels), f"one map per level, not {len(maps)}")
    for level, output in zip(backbone.levels, maps, strict=True):
        r = level.reduction
        expected_shape = (2, level.channels, math.ceil(size[0] / r), math.ceil(size[1] / r))
        _require(
            name,
            tuple(output.shape) == expected_shape,
            f"a map {expected_shape} at reduction {r}, not {tuple(output.shape)}",
        )
    _check_gradients(name, backbone, list(maps), computed, "its maps")
    staged_parameters = [n for stage in backbone.stages() for n in stage.parameters]
    trainable = [n for n, p in backbone.named_parameters() if p.requires_grad]
    _require(name, len(staged_parameters) == len(set(staged_parameters)), "each parameter in one stage")
    _require(
        name,
        set(trainable) <= set(staged_parameters),
        f"every parameter in a stage, not {sorted(set(trainable) - set(staged_parameters))[:3]}",
    )
    _check_freezing(name, backbone, images, computed)
    return tuple((level.channels, level.reduction) for level in backbone.levels)


def _check_freezing(name: str, backbone: Backbone, images: Tensor, computed: bool) -> None:
    backbone.weights = WeightsInfo(source="user", name=name)  # random weights could not be frozen
    finest, blocks = backbone.levels[0].reduction, backbone.blocks()
    backbone.freeze_through(0.5 if blocks else finest)
    backbone.train()
    frozen = {n for s in backbone.stages() if s.reduction <= finest for n in s.parameters}
    if blocks:
        frozen = {n for block in blocks if block.fraction <= 0.5 for n in block.parameters}
        remaining = [n for n, p in backbone.named_parameters() if n not in frozen and p.requires_grad]
        _require(name, bool(frozen and remaining), "half of the blocks frozen and half of them not")
    for n, p in backbone.named_parameters():
        _require(name, not (n in frozen and p.requires_grad), f"{n} without gradient when frozen")
    backbone.freeze_through("all")
    backbone.train()
    before = {n: b.clone() for n, b in backbone.named_buffers()} if computed else {}
    if computed:
        with torch.no_grad():
            backbone(images)
    for n, b in backbone.named_buffers():
        if computed:
            _require(name, torch.equal(before[n], b), f"running statistics {n} to stay when frozen")
    _require(
        name, not any(p.requires_grad for p in backbone.parameters()), "no gradient at all when all is frozen"
    )


def _check_encoder(
    name: str, source: Source, spec: ModelSpec, model_info: ModelInfo, computed: bool
) -> tuple[Encoder, Size]:
    def build() -> nn.Module:
        return source.build(spec, None)

    model = build() if computed else on_meta_device(build)
    size = _small_size(model, model_info, spec.in_channels)
    images = torch.randn(2, spec.in_channels, *size, device="cpu" if computed else "meta")
    model.eval()
    with torch.no_grad():
        model_output: Any = model(images)
    encoder = assemble_encoder(source, spec, model_info, model, WeightsInfo(name=name), name=name)
    encoder.eval()
    with torch.no_grad():
        vectors = encoder(images)
    _require(
        name,
        tuple(vectors.shape) == (2, encoder.dim),
        f"vectors (2, {encoder.dim}), not {tuple(vectors.shape)}",
    )
    head = encoder.pretrained_head()
    if head is not None:
        _require(name, isinstance(model_output, Tensor), "one tensor of the full network")
        logits = head(vectors)
        same = logits.shape == model_output.shape and (
            not computed
            or torch.allclose(
                logits, model_output, rtol=1e-3, atol=1e-4 * max(1.0, float(model_output.abs().max()))
            )
        )
        _require(name, same, "the pretrained classifier to give the full network's logits")
    encoder.train()
    _check_gradients(name, encoder, [encoder(images)], computed, "its vectors")
    staged_parameters = [n for stage in encoder.stages() for n in stage.parameters]
    _require(
        name,
        sorted(staged_parameters) == sorted(n for n, _ in encoder.named_parameters()),
        "each parameter in one stage",
    )
    return encoder, size


def _check_gradients(name: str, module: nn.Module, outputs: list[Tensor], computed: bool, what: str) -> None:
    for output in outputs:
        if computed:
            _require(name, bool(torch.isfinite(output).all()), f"finite numbers in {what}")
    total = torch.stack([output.float().pow(2).mean() for output in outputs]).sum()
    total.backward()
    idle = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    _require(name, not idle, f"a gradient for every parameter from {what}; {len(idle)} get none: {idle[:3]}")
    module.zero_grad(set_to_none=True)


def _small_size(model: nn.Module, model_info: ModelInfo, channels: int) -> Size:
    if model_info.fixed_size is not None:
        return model_info.fixed_size
    size_divisor = math.lcm(model_info.size_divisor, 32)
    for size in ((2 * size_divisor, 3 * size_divisor), (4 * size_divisor, 4 * size_divisor)):
        try:
            run_for_shapes(model, size, channels)
        except Exception:
            continue
        return size
    return model_info.traced_size


def _require(name: str, holds: bool, what: str) -> None:
    if not holds:
        raise RunError(f"{name!r} breaks the contract of backbones. Expected {what}.")
