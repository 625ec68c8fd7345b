"""`create_decoder`: segmentation decoders by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from torch import nn

from visionkit.backbones.level import Level
from visionkit.errors import InputError, expected, unknown_name
from visionkit.nn.segmentation.decoders.block import Norm
from visionkit.nn.segmentation.decoders.deeplab import DeepLabV3Decoder, DeepLabV3PlusDecoder
from visionkit.nn.segmentation.decoders.fcn import FCNDecoder
from visionkit.nn.segmentation.decoders.psp import PSPDecoder
from visionkit.nn.segmentation.decoders.semantic_fpn import SemanticFPNDecoder
from visionkit.nn.segmentation.decoders.unet import UNetDecoder
from visionkit.nn.segmentation.decoders.upernet import UPerNetDecoder

__all__ = ["Decoder", "create_decoder", "decoder_class", "list_decoders"]

Decoder: TypeAlias = (
    FCNDecoder
    | DeepLabV3Decoder
    | DeepLabV3PlusDecoder
    | UNetDecoder
    | SemanticFPNDecoder
    | PSPDecoder
    | UPerNetDecoder
)
"""Maps of a feature source, fine to coarse, to logits `(B, num_classes, h, w)` at the size of one of them."""

_DECODERS: dict[str, type[Decoder]] = {
    "deeplabv3": DeepLabV3Decoder,
    "deeplabv3plus": DeepLabV3PlusDecoder,
    "fcn": FCNDecoder,
    "psp": PSPDecoder,
    "semantic_fpn": SemanticFPNDecoder,
    "unet": UNetDecoder,
    "upernet": UPerNetDecoder,
}


def list_decoders() -> list[str]:
    """Return the names of the decoders, sorted."""
    return sorted(_DECODERS)


def decoder_class(name: str) -> type[Decoder]:
    """Return the decoder class of a name, whose attributes say what it needs of a backbone.

    These are `reductions`, `output_stride` (None: any), `min_levels`, the number of levels it needs, and
    `coarsest`, the largest reduction it can use (0: any).

    Raises:
        InputError: The name is not known.
    """
    if name not in _DECODERS:
        raise unknown_name("decoder", name, _DECODERS)
    return _DECODERS[name]


def create_decoder(
    name: str,
    levels: Sequence[Level],
    *,
    num_classes: int,
    channels: int | None = None,
    norm: Norm = nn.BatchNorm2d,
    dropout: float | None = None,
) -> Decoder:
    """Make a decoder over the levels of a feature source.

    Args:
        name: One of `list_decoders()`.
        levels: Levels of the feature source, fine to coarse.
        num_classes: Channels of the logits.
        channels: Width; the decoder's default if not given.
        norm: Makes the norm layers.
        dropout: Dropout probability before the classifier; the decoder's default if not given.

    Raises:
        InputError: The name is not known, a number is out of range, or the decoder cannot use these levels.
    """
    chosen = decoder_class(name)
    if num_classes < 1:
        raise InputError(expected("num_classes", "at least 1", num_classes))
    if channels is not None and channels < 1:
        raise InputError(expected("the decoder's channels", "at least 1", channels))
    if dropout is None:
        return chosen(levels, num_classes=num_classes, channels=channels, norm=norm)
    if not 0.0 <= dropout < 1.0:
        raise InputError(expected("dropout", "from 0 up to 1", dropout))
    return chosen(levels, num_classes=num_classes, channels=channels, norm=norm, dropout=dropout)
