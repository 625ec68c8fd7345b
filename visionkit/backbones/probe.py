"""Feature levels, image sizes, parameters and norms of a network, found on the meta device (no memory)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.backbones.norms import norm_kinds
from visionkit.backbones.sources.base import FeatureNode, ModelInfo, ModelSpec, Size, Source
from visionkit.backbones.tracing import on_meta_device, run_for_shapes
from visionkit.errors import InputError, first_line

__all__ = ["choose_nodes", "output_strides", "probe_model"]


@functools.lru_cache(maxsize=256)
def probe_model(source: Source, spec: ModelSpec) -> ModelInfo:
    """Return the feature maps, image sizes and parameters of a network, built and run on the meta device.

    Raises:
        InputError: The network cannot be built for these channels, this output stride or this image size.
    """
    try:
        model = on_meta_device(lambda: source.build(spec, None))
    except (TypeError, AssertionError, NotImplementedError, ValueError, RuntimeError) as error:
        raise _build_error(source, spec, error) from error
    model.eval()
    parameters = sum(p.numel() for p in model.parameters())
    kinds = norm_kinds(model)
    native = spec.image_size or source.pretrained_cfg(spec).input_size
    try:
        size = _traceable_size(model, native, spec.in_channels)
        maps, candidates, measured, shapes = _trace(source, model, size, spec.in_channels)
        if not any(measured) and size != native:
            # strides of 7 or 14 divide the native size only
            size = native
            maps, candidates, measured, shapes = _trace(source, model, size, spec.in_channels)
    except Exception as error:
        if spec.image_size is not None:
            raise _build_error(source, spec, error) from error
        raise InputError(
            f"'{source.prefix}/{spec.architecture}' cannot be traced for its shapes "
            f"({first_line(error)}): its layout depends on the values of the image, or it takes no plain "
            "image. Take another backbone."
        ) from error
    nodes, unaligned = _deepest_nodes(measured, candidates, shapes)
    fixed, pad, divisor = _sizes(maps, model, nodes, candidates, size, native, spec.in_channels)
    return ModelInfo(tuple(nodes), tuple(unaligned), fixed, pad, divisor, parameters, kinds, size)


def _trace(
    source: Source, model: nn.Module, size: Size, channels: int
) -> tuple[nn.Module, list[FeatureNode], list[FeatureNode | None], list[tuple[int, ...]]]:
    """Run all candidate nodes on an image of one size.

    Returns:
        The module that gives all candidates' outputs, the candidates, for each the node with its level (None
        where its output is no aligned map), and the shape of its output.
    """
    candidates = [FeatureNode(key, Level(1, 1)) for key in source.candidate_nodes(model, size)]
    maps = source.maps(model, candidates, prune=False)
    shapes = [tuple(x.shape) for x in run_for_shapes(maps, size, channels)]
    return (
        maps,
        candidates,
        [_node_of_shape(node.key, shape, size) for node, shape in zip(candidates, shapes)],
        shapes,
    )


def choose_nodes(model_info: ModelInfo, reductions: Sequence[int], name: str) -> list[FeatureNode]:
    """Return the nodes of the given reductions, fine to coarse.

    Raises:
        InputError: The network lacks one of them; the message lists those it has.
    """
    if not reductions:
        raise InputError("Expected at least one reduction, but got none. Ask for some of (4, 8, 16, 32).")
    available = {node.level.reduction: node for node in model_info.nodes}
    missing = [r for r in reductions if r not in available]
    if not missing:
        return [available[r] for r in sorted(set(reductions))]
    if not available and model_info.unaligned:
        key, shape = model_info.unaligned[0]
        raise InputError(
            f"{name!r} has no maps aligned with the image: at "
            f"{model_info.traced_size[0]}x{model_info.traced_size[1]} its map "
            f"{key!r} is {'x'.join(map(str, shape))} (convolutions without padding, or a stride that is "
            "no integer). It serves as an encoder (create_encoder); for maps take another backbone."
        )
    listing = ", ".join(str(r) for r in available) or "none"
    fix = (
        f"Ask for reductions=({', '.join(map(str, available))}{',' if len(available) == 1 else ''})"
        if available
        else "Use it as an encoder"
    )
    raise InputError(
        f"{name!r} has no map at reduction {', '.join(map(str, missing))}: its reductions are {listing}. "
        f"{fix}, or take another backbone."
    )


def _build_error(source: Source, spec: ModelSpec, error: Exception) -> InputError:
    name = f"{source.prefix}/{spec.architecture}"
    why = first_line(error)
    if spec.output_stride is not None:
        strides = [s for s in output_strides(source, spec) if s != spec.output_stride]
        ways = (
            f"output_stride={' or '.join(map(str, strides))}" if strides else "no output stride but its own"
        )
        return InputError(
            f"{name!r} cannot be built with output_stride={spec.output_stride} ({why}). It takes {ways}."
        )
    if spec.image_size is not None:
        requested, native_size = spec.image_size, source.pretrained_cfg(spec).input_size
        return InputError(
            f"{name!r} cannot be built for images of {requested[0]}x{requested[1]} ({why}). Resize them "
            f"to its own {native_size[0]}x{native_size[1]}, or take another backbone."
        )
    if spec.options:
        named = ", ".join(f"{option}={value!r}" for option, value in spec.options)
        return InputError(
            f"{name!r} cannot be built with backbone_options {named} ({why}). They are arguments of the "
            f"function that {source.prefix} makes it with; leave out those that it does not take."
        )
    if spec.in_channels != 3:
        return InputError(f"{name!r} cannot be built for {spec.in_channels} channels ({why}). It takes 3.")
    return InputError(f"{name!r} cannot be built ({type(error).__name__}: {why}).")


def output_strides(source: Source, spec: ModelSpec) -> tuple[int, ...]:
    """Return the output strides that a network can be built with, coarse to fine."""
    return tuple(
        stride for stride in (32, 16, 8) if _stride_works(source, replace(spec, output_stride=stride))
    )


@functools.cache
def _stride_works(source: Source, spec: ModelSpec) -> bool:
    try:
        # not by probe_model, whose error message calls this function
        model = on_meta_device(lambda: source.build(spec, None)).eval()
        size = _traceable_size(model, source.pretrained_cfg(spec).input_size, spec.in_channels)
        measured = _trace(source, model, size, spec.in_channels)[2]
    except Exception:
        return False
    return max((t.level.reduction for t in measured if t is not None), default=0) == spec.output_stride


def _runs(net: nn.Module, size: Size, channels: int) -> bool:
    try:
        run_for_shapes(net, size, channels)
    except Exception:
        return False
    return True


def _traceable_size(model: nn.Module, native: Size, channels: int) -> Size:
    """Return an image size for the trace: oblong if the network takes it, so that height and width differ."""
    up = math.ceil(max(native) / 64) * 64
    # some take only multiples of their patch size, and not even the size in their pretrained config
    smaller = [(native[0] - less, native[1] - less) for less in range(32)]
    for size in ((up + 64, up), (up, up), *smaller):
        if _runs(model, size, channels):
            return size
    run_for_shapes(model, native, channels)  # raises the model's error
    return native


def _node_of_shape(key: int | str, shape: tuple[int, ...], size: Size) -> FeatureNode | None:
    """Return the node of an output that is a map `(1, C, h, w)` or `(1, h, w, C)` aligned with the image."""
    if len(shape) == 4:
        for last, (h, w, c) in (
            (False, (shape[2], shape[3], shape[1])),
            (True, (shape[1], shape[2], shape[3])),
        ):
            r = _reduction(h, w, size)
            if r:
                return FeatureNode(key, Level(c, r), channels_last=last)
    return None


def _reduction(h: int, w: int, size: Size) -> int:
    """Return the side of the image divided by that of a map, if it is one integer for both sides; else 0."""
    if h < 1 or w < 1 or size[0] % h or size[1] % w or size[0] // h != size[1] // w:
        return 0
    return size[0] // h


def _deepest_nodes(
    measured: Sequence[FeatureNode | None],
    candidates: Sequence[FeatureNode],
    shapes: Sequence[tuple[int, ...]],
) -> tuple[list[FeatureNode], list[tuple[int | str, tuple[int, ...]]]]:
    """Return the last node of each reduction, fine to coarse, and key and size of unaligned maps."""
    best: dict[int, FeatureNode] = {}
    unaligned: list[tuple[int | str, tuple[int, ...]]] = []
    grid: FeatureNode | None = None
    grid_tokens = 0
    for node, candidate, shape in zip(measured, candidates, shapes):
        if node is None and len(shape) == 3 and grid is not None and 0 <= shape[1] - grid_tokens <= 8:
            # tokens (1, N, C): up to 8 prefix tokens (class, registers), then the positions of the last map
            level = Level(shape[2], grid.level.reduction)
            node = FeatureNode(candidate.key, level, num_prefix_tokens=shape[1] - grid_tokens)
        elif node is None and len(shape) == 4:
            unaligned.append((candidate.key, shape[2:]))
        elif node is not None:
            grid = node
            grid_tokens = math.prod(shape[1:3] if node.channels_last else shape[2:])
        if node is not None:
            best[node.level.reduction] = node
    return [best[r] for r in sorted(best)], unaligned


def _sizes(
    maps: nn.Module,
    model: nn.Module,
    nodes: Sequence[FeatureNode],
    candidates: Sequence[FeatureNode],
    size: Size,
    native: Size,
    channels: int,
) -> tuple[Size | None, int, int]:
    """Return `fixed_size`, `pad_divisor` and `size_divisor` of a network (see `ModelInfo`).

    Tried in turn: an image of odd sides, multiples of the coarsest reduction, multiples of twice that.
    """
    coarsest = max((node.level.reduction for node in nodes), default=32)
    odd = (size[0] + 2 * coarsest + 5, size[1] + coarsest + 3)
    try:
        outputs: Any = run_for_shapes(maps, odd, channels)
    except Exception:
        outputs = None
    if outputs is not None and _runs(model, odd, channels):
        return None, 1 if _rounds_up(outputs, nodes, candidates, odd) else coarsest, 1
    for divisor in (coarsest, 2 * coarsest):
        other = (math.ceil(size[0] / divisor + 3) * divisor, math.ceil(size[1] / divisor + 1) * divisor)
        if _runs(model, other, channels) and _runs(maps, other, channels):
            return None, divisor, divisor
    return native, 1, 1


def _rounds_up(
    outputs: Sequence[Tensor], nodes: Sequence[FeatureNode], candidates: Sequence[FeatureNode], size: Size
) -> bool:
    """Return whether the sides of all nodes' maps are ceil(side of the image / reduction)."""
    by_key = {c.key: o for c, o in zip(candidates, outputs)}
    for node in nodes:
        shape = by_key[node.key].shape
        r = node.level.reduction
        h, w = (shape[1], shape[2]) if node.channels_last else tuple(shape[-2:])
        if (h, w) != (math.ceil(size[0] / r), math.ceil(size[1] / r)):
            return False
    return True
