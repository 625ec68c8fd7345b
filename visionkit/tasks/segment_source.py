"""The feature source of a segmenter: which maps to ask a backbone for, and how coarse they may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from visionkit.backbones import create_backbone
from visionkit.backbones.norms import convert_norms
from visionkit.backbones.planning import make_plan
from visionkit.backbones.registry import resolve
from visionkit.backbones.source import Plan, Request
from visionkit.config import TransferConfig
from visionkit.errors import InputError, expected
from visionkit.nn.decoders import decoder_class, list_decoders
from visionkit.tasks.own_module import OwnModule
from visionkit.types import Init

__all__ = ["build_source"]


def build_source(
    backbone: str | nn.Module,
    *,
    decoder: str,
    init: Init,
    transfer: TransferConfig,
    output_stride: int | None,
    auxiliary: bool,
    reloading: bool,
) -> Any:
    """Return a source of the maps that a decoder wants.

    A backbone whose own coarsest map is fine enough stays as it is; a coarser one is dilated, if it can be.

    Args:
        backbone: A name, or a user's module with `levels`.
        decoder: Name of the decoder.
        init: Where the weights come from.
        transfer: Resolved: the norm.
        output_stride: Largest reduction; the decoder's own wish if not given.
        auxiliary: Whether the second coarsest map is wanted too.
        reloading: A checkpoint will fill weights that were trained, so frozen norms are in order.

    Raises:
        InputError: The backbone cannot serve; the text says what would.
    """
    if OwnModule.is_mark(backbone):
        name = str(backbone).partition(":")[2]
        raise InputError(
            f"This checkpoint was trained with your own module {name}, which only you can build. "
            f"Pass it again: load_from_checkpoint(path, backbone={name}(...))."
        )
    if not isinstance(backbone, str):
        own = OwnModule(backbone, trained=init != "scratch")
        if not own.levels:
            raise InputError(
                f"Expected your backbone {type(backbone).__name__} to have 'levels' and to give one map "
                "a level, but it gives a vector. Set self.levels = (Level(channels, reduction), ...) in it."
            )
        return own
    wish = decoder_class(decoder).output_stride if output_stride is None else output_stride
    if wish is not None and wish < 1:
        raise InputError(expected("output_stride", "8, 16 or 32", wish))
    available, stride = _available(backbone, wish, decoder)
    chosen = {reduction for reduction in decoder_class(decoder).reductions if reduction in available}
    chosen |= set(available[-2:] if auxiliary else available[-1:])
    if len(chosen) < decoder_class(decoder).least_levels:
        chosen.add(available[0])
    late = reloading and transfer.norm == "frozen"
    norm = "batch" if late else transfer.norm or "batch"
    source = create_backbone(backbone, init=init, reductions=sorted(chosen), norm=norm, output_stride=stride)
    if late:
        convert_norms(source, "frozen", trained=True)
    return source


def _available(backbone: str, wish: int | None, decoder: str) -> tuple[list[int], int | None]:
    """Return the reductions a backbone has up to the wish, and the output stride to build it with."""
    plan = _plan(backbone, None)
    if plan.fixed_size is not None:
        raise InputError(
            f"{backbone!r} takes pictures of {plan.fixed_size[0]} x {plan.fixed_size[1]} only, but "
            "segmentation trains on windows and scores at native size. Take a backbone without a fixed size."
        )
    own = [tap.level.reduction for tap in plan.taps]
    if not own:
        raise InputError(
            f"{backbone!r} has no maps aligned with the picture, which segmentation needs. Take another "
            "backbone."
        )
    least = decoder_class(decoder).least_levels
    if len(own) < least:
        raise InputError(
            f"Decoder {decoder!r} joins maps of at least {least} reductions, but {backbone!r} has "
            f"{own[0]} only. {_advice(own)}"
        )
    if wish is None or own[-1] <= wish:
        return own, None
    try:
        return [tap.level.reduction for tap in _plan(backbone, wish).taps], wish
    except InputError as error:
        raise InputError(
            f"{error} Decoder {decoder!r} asks for reduction {wish} or less. {_advice(own)}"
        ) from error


def _advice(own: Sequence[int]) -> str:
    """Say which decoders serve maps of these reductions, without dilation."""
    plain: list[str] = []
    strided: list[str] = []
    for name in list_decoders():
        decoder = decoder_class(name)
        if len(own) < decoder.least_levels or (decoder.coarsest and own[-1] > decoder.coarsest):
            continue
        fits = decoder.output_stride is None or own[-1] <= decoder.output_stride
        (plain if fits else strided).append(repr(name))
    ways = [" or ".join(plain)] if plain else []
    ways += [f"{' or '.join(strided)} with output_stride={own[-1]}"] if strided else []
    return f"With this backbone take {', or '.join(ways)}." if ways else "Take another backbone."


def _plan(backbone: str, stride: int | None) -> Plan:
    source, request = resolve(backbone, Request("", "", 3, stride, None))
    return make_plan(cast(Any, source), request)
