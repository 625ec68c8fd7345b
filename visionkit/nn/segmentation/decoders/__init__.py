"""Segmentation decoders over the levels of any feature source, one paper a file."""

from __future__ import annotations

from visionkit.nn.segmentation.decoders.build import Decoder, create_decoder, decoder_class, list_decoders

__all__ = ["Decoder", "create_decoder", "decoder_class", "list_decoders"]
