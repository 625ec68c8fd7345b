"""The feature source of a segmenter: which maps to ask a backbone for, and how coarse they may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.config import TransferConfig
from visionkit.errors import InputError, expected
from visionkit.nn.segmentation.decoders import decoder_class, list_decoders
from visionkit.tasks.image_spec import ImageSpec
from visionkit.tasks.maps import build_maps
from visionkit.tasks.own_module import OwnModule
from visionkit.types import Init

__all__ = ["build_source", "fill_canvas"]


def build_source(
    backbone: str | nn.Module | Mapping[str, Any],
    *,
    decoder: str,
    init: Init,
    transfer: TransferConfig,
    output_stride: int | None,
    auxiliary: bool,
    images: ImageSpec,
    origin: Mapping[str, Any] | None,
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
        images: What the images are; a network of fixed size sees windows of `image_size`.
        origin: What a checkpoint says of the weights that it will fill in; None when nothing is reloaded.

    Raises:
        InputError: The backbone cannot serve; the text says what would.
    """
    if not isinstance(backbone, str) or OwnModule.is_mark(backbone):
        return build_maps(backbone, init=init, transfer=transfer, reductions=(), images=images, origin=origin)
    wish = decoder_class(decoder).output_stride if output_stride is None else output_stride
    if wish is not None and wish < 1:
        raise InputError(expected("output_stride", "8, 16 or 32", wish))
    available, stride = _available(backbone, wish, decoder, images)
    chosen = {reduction for reduction in decoder_class(decoder).reductions if reduction in available}
    chosen |= set(available[-2:] if auxiliary else available[-1:])
    if len(chosen) < decoder_class(decoder).least_levels:
        chosen.add(available[0])
    return build_maps(
        backbone, init=init, transfer=transfer, reductions=sorted(chosen), images=images, origin=origin,
        output_stride=stride,
    )  # fmt: skip


def _available(
    backbone: str, wish: int | None, decoder: str, images: ImageSpec
) -> tuple[list[int], int | None]:
    """Return the reductions a backbone has up to the wish, and the output stride to build it with."""
    plan = images.plan(backbone)
    if plan.fixed_size is not None and images.size is None:
        raise InputError(
            f"{backbone!r} takes images of {plan.fixed_size[0]} x {plan.fixed_size[1]} only, but "
            "segmentation trains on windows and scores at native size. Say the size of the windows, "
            "image_size=(height, width), or take a backbone without a fixed size."
        )
    own = [tap.level.reduction for tap in plan.taps]
    if not own:
        raise InputError(
            f"{backbone!r} has no maps aligned with the image, which segmentation needs. Take another "
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
        return [tap.level.reduction for tap in images.plan(backbone, wish).taps], wish
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


def fill_canvas(images: Tensor, source: Any) -> Tensor:
    """Return images padded with zeros to the only size that a source takes, if there is one."""
    fixed: tuple[int, int] | None = getattr(source, "fixed_size", None)
    if fixed is None:
        return images
    down, right = (max(0, wanted - side) for wanted, side in zip(fixed, images.shape[-2:], strict=True))
    return F.pad(images, (0, right, 0, down)) if down or right else images
