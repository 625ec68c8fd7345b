"""Finding out, on stand-ins without memory, what a network gives: levels, sizes, parameters, norms."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.backbones.norms import norm_kinds
from visionkit.backbones.sources.base import Plan, Request, Size, Source, Tap
from visionkit.backbones.tracing import on_meta_device, run_for_shapes
from visionkit.errors import InputError, first_line

__all__ = ["choose_taps", "make_plan", "output_strides"]


@functools.lru_cache(maxsize=256)
def make_plan(source: Source, request: Request) -> Plan:
    """Build a network without memory, run it for its shapes, and return what it turned out to be.

    Raises:
        InputError: The network does not take the request (channels, output stride, image size).
    """
    try:
        model = on_meta_device(lambda: source.build(request, None))
    except (TypeError, AssertionError, NotImplementedError, ValueError, RuntimeError) as error:
        raise _refused(source, request, error) from error
    model.eval()
    parameters = sum(p.numel() for p in model.parameters())
    kinds = norm_kinds(model)
    native = request.image_size or source.card(request).input_size
    try:
        size = _traceable(model, native, request.in_channels)
        maps, candidates, measured, shapes = _look(source, model, size, request.in_channels)
        if not any(measured) and size != native:
            # strides of 7 or 14 divide the network's own size only
            size = native
            maps, candidates, measured, shapes = _look(source, model, size, request.in_channels)
    except Exception as error:
        if request.image_size is not None:
            raise _refused(source, request, error) from error
        raise InputError(
            f"'{source.prefix}/{request.architecture}' cannot be traced for its shapes "
            f"({first_line(error)}): its "
            "layout depends on the values of the image, or it takes no plain image. Take another "
            "backbone."
        ) from error
    taps, unaligned = _deepest(measured, candidates, shapes)
    fixed, multiple, step = _sizes(maps, model, taps, candidates, size, native, request.in_channels)
    return Plan(tuple(taps), tuple(unaligned), fixed, multiple, step, parameters, kinds, size)


def _look(
    source: Source, model: nn.Module, size: Size, channels: int
) -> tuple[nn.Module, list[Tap], list[Tap | None], list[tuple[int, ...]]]:
    candidates = [Tap(key, Level(1, 1)) for key in source.places(model, size)]
    maps = source.maps(model, candidates, prune=False)
    shapes = [tuple(x.shape) for x in run_for_shapes(maps, size, channels)]
    return (
        maps,
        candidates,
        [_measure(tap.key, shape, size) for tap, shape in zip(candidates, shapes)],
        shapes,
    )


def choose_taps(plan: Plan, reductions: Sequence[int], name: str) -> list[Tap]:
    """Return the places for the reductions asked for, fine to coarse.

    Raises:
        InputError: The network lacks one of them; the text lists what it has.
    """
    if not reductions:
        raise InputError("Expected at least one reduction, but got none. Ask for some of (4, 8, 16, 32).")
    has = {tap.level.reduction: tap for tap in plan.taps}
    missing = [r for r in reductions if r not in has]
    if not missing:
        return [has[r] for r in sorted(set(reductions))]
    if not has and plan.unaligned:
        key, shape = plan.unaligned[0]
        raise InputError(
            f"{name!r} has no maps aligned with the image: at "
            f"{plan.traced_size[0]}x{plan.traced_size[1]} its map "
            f"{key!r} is {'x'.join(map(str, shape))} (convolutions without padding, or a stride that is "
            "no whole "
            "number). It serves as an encoder (create_encoder); for maps take another backbone."
        )
    listed = ", ".join(str(r) for r in has) or "none"
    fix = (
        f"Ask for reductions=({', '.join(map(str, has))}{',' if len(has) == 1 else ''})"
        if has
        else "Use it as an encoder"
    )
    raise InputError(
        f"{name!r} has no map at reduction {', '.join(map(str, missing))}: its reductions are {listed}. "
        f"{fix}, or take another backbone."
    )


def _refused(source: Source, request: Request, error: Exception) -> InputError:
    name = f"{source.prefix}/{request.architecture}"
    why = first_line(error)
    if request.output_stride is not None:
        works = [s for s in output_strides(source, request) if s != request.output_stride]
        ways = f"output_stride={' or '.join(map(str, works))}" if works else "no output stride but its own"
        return InputError(
            f"{name!r} cannot be built with output_stride={request.output_stride} ({why}). It takes {ways}."
        )
    if request.image_size is not None:
        asked, own = request.image_size, source.card(request).input_size
        return InputError(
            f"{name!r} cannot be built for images of {asked[0]}x{asked[1]} ({why}). Resize them to its own "
            f"{own[0]}x{own[1]}, or take another backbone."
        )
    if request.in_channels != 3:
        return InputError(f"{name!r} cannot be built for {request.in_channels} channels ({why}). It takes 3.")
    return InputError(f"{name!r} cannot be built ({type(error).__name__}: {why}).")


def output_strides(source: Source, request: Request) -> tuple[int, ...]:
    """Return the output strides that a network can be built with, coarse to fine, found by trying."""
    return tuple(
        stride for stride in (32, 16, 8) if _stride_works(source, replace(request, output_stride=stride))
    )


@functools.cache
def _stride_works(source: Source, request: Request) -> bool:
    try:
        # not through make_plan, whose refusal asks here what would work
        model = on_meta_device(lambda: source.build(request, None)).eval()
        size = _traceable(model, source.card(request).input_size, request.in_channels)
        measured = _look(source, model, size, request.in_channels)[2]
    except Exception:
        return False
    return max((t.level.reduction for t in measured if t is not None), default=0) == request.output_stride


def _runs(net: nn.Module, size: Size, channels: int) -> bool:
    try:
        run_for_shapes(net, size, channels)
    except Exception:
        return False
    return True


def _traceable(model: nn.Module, native: Size, channels: int) -> Size:
    """Return an image size for the trace: oblong if the network takes it, to tell sides from channels."""
    up = math.ceil(max(native) / 64) * 64
    # some take no size that their patches do not divide, not even the one they are listed with
    smaller = [(native[0] - less, native[1] - less) for less in range(32)]
    for size in ((up + 64, up), (up, up), *smaller):
        if _runs(model, size, channels):
            return size
    run_for_shapes(model, native, channels)  # raises what is wrong
    return native


def _measure(key: int | str, shape: tuple[int, ...], size: Size) -> Tap | None:
    if len(shape) == 4:
        for last, (h, w, c) in (
            (False, (shape[2], shape[3], shape[1])),
            (True, (shape[1], shape[2], shape[3])),
        ):
            r = _reduction(h, w, size)
            if r:
                return Tap(key, Level(c, r), channels_last=last)
    return None


def _reduction(h: int, w: int, size: Size) -> int:
    if h < 1 or w < 1 or size[0] % h or size[1] % w or size[0] // h != size[1] // w:
        return 0
    return size[0] // h


def _deepest(
    measured: Sequence[Tap | None], candidates: Sequence[Tap], shapes: Sequence[tuple[int, ...]]
) -> tuple[list[Tap], list[tuple[int | str, tuple[int, ...]]]]:
    best: dict[int, Tap] = {}
    unaligned: list[tuple[int | str, tuple[int, ...]]] = []
    grid: Tap | None = None
    grid_tokens = 0
    for tap, candidate, shape in zip(measured, candidates, shapes):
        if tap is None and len(shape) == 3 and grid is not None and 0 <= shape[1] - grid_tokens <= 8:
            # tokens over the grid of the last map, after a few that stand for the whole image
            level = Level(shape[2], grid.level.reduction)
            tap = Tap(candidate.key, level, prefix=shape[1] - grid_tokens)
        elif tap is None and len(shape) == 4:
            unaligned.append((candidate.key, shape[2:]))
        elif tap is not None:
            grid = tap
            grid_tokens = math.prod(shape[1:3] if tap.channels_last else shape[2:])
        if tap is not None:
            best[tap.level.reduction] = tap
    return [best[r] for r in sorted(best)], unaligned


def _sizes(
    maps: nn.Module,
    model: nn.Module,
    taps: Sequence[Tap],
    candidates: Sequence[Tap],
    size: Size,
    native: Size,
    channels: int,
) -> tuple[Size | None, int, int]:
    coarsest = max((tap.level.reduction for tap in taps), default=32)
    odd = (size[0] + 2 * coarsest + 5, size[1] + coarsest + 3)
    try:
        outputs: Any = run_for_shapes(maps, odd, channels)
    except Exception:
        outputs = None
    if outputs is not None and _runs(model, odd, channels):
        return None, 1 if _ceils(outputs, taps, candidates, odd) else coarsest, 1
    for step in (coarsest, 2 * coarsest):
        other = (math.ceil(size[0] / step + 3) * step, math.ceil(size[1] / step + 1) * step)
        if _runs(model, other, channels) and _runs(maps, other, channels):
            return None, step, step
    return native, 1, 1


def _ceils(outputs: Sequence[Tensor], taps: Sequence[Tap], candidates: Sequence[Tap], size: Size) -> bool:
    by_key = {c.key: o for c, o in zip(candidates, outputs)}
    for tap in taps:
        shape = by_key[tap.key].shape
        r = tap.level.reduction
        h, w = (shape[1], shape[2]) if tap.channels_last else tuple(shape[-2:])
        if (h, w) != (math.ceil(size[0] / r), math.ceil(size[1] / r)):
            return False
    return True
