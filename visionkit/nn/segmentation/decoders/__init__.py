"""Segmentation decoders: each file reads like its paper's figure, over any source of feature maps."""

from __future__ import annotations

from visionkit.nn.segmentation.decoders.build import Decoder, create_decoder, decoder_class, list_decoders

__all__ = ["Decoder", "create_decoder", "decoder_class", "list_decoders"]
