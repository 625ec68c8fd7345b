"""What gives the features of a probe: a network's levels and its pooled vector, or the pixels alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from visionkit.backbones import Backbone, Encoder, WeightsInfo, create_backbone, create_encoder
from visionkit.backbones.describe import describe_backbone
from visionkit.backbones.weights import weights_digest
from visionkit.errors import InputError, unknown_name
from visionkit.nn.normalize import Normalize
from visionkit.rng import seeded
from visionkit.run.advice.vectors import PIXELS, resized
from visionkit.tasks.image_spec import ImageSpec
from visionkit.types import Init, Sample

__all__ = ["PIXEL_LEVEL", "POOLED", "FeatureNetwork", "LevelNetwork", "PixelNetwork", "choose_levels"]

POOLED = "pooled"
"""The level name of the encoder's vector, which the classifier of the whole network takes."""
PIXEL_LEVEL = "pixels"
"""The level name of the pixels themselves."""


class FeatureNetwork(Protocol):
    """Images to one vector a level."""

    @property
    def key(self) -> Mapping[str, object]:
        """What the features depend on, plain values: that of other features differs."""
        ...

    @property
    def levels(self) -> tuple[str, ...]:
        """The names of the levels."""
        ...

    def features(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return float32 `(B, D)` by the name of the level."""
        ...


def choose_levels(backbone: str, levels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of levels that a backbone has, fine to coarse, the pooled vector last.

    Args:
        backbone: As in `visionkit ls backbones`.
        levels: Reductions as text, "pooled", or "all".

    Raises:
        InputError: A level is not there; the text lists those that are.
    """
    known = [*(str(level.reduction) for level in describe_backbone(backbone).levels), POOLED]
    if not levels:
        raise InputError(f"Expected levels of {backbone!r}, but got none. Give some of {', '.join(known)}.")
    for name in levels:
        if name not in (*known, "all"):
            raise unknown_name(
                "level", name, known, hint=f"The levels of {backbone!r} are {', '.join(known)}; or all."
            )
    return tuple(name for name in known if name in levels or "all" in levels)


class LevelNetwork:
    """A frozen network: the average over the map of each level, and the encoder's vector.

    Random weights are as they were created, batch norms included.

    Args:
        backbone: As in `visionkit ls backbones`.
        init: "pretrained", "scratch", the name of weights or a path to them.
        levels: As `choose_levels` returns them.
        image_size: Side that images are resized to.
        seed: Seed of random weights.

    Raises:
        InputError: The backbone or its weights cannot be had.
    """

    def __init__(
        self, backbone: str, *, init: Init, levels: Sequence[str], image_size: int, seed: int = 0
    ) -> None:
        self._size = image_size
        self.levels: tuple[str, ...] = tuple(levels)
        reductions = [int(name) for name in levels if name != POOLED]
        built_for = ImageSpec(3, image_size).size_to_build(backbone)
        # The same seed before each: both have the same random weights.
        self._maps: Backbone | None = None
        self._encoder: Encoder | None = None
        if reductions:
            with seeded(seed):
                self._maps = create_backbone(backbone, init=init, reductions=reductions, image_size=built_for)
        if POOLED in levels:
            with seeded(seed):
                self._encoder = create_encoder(backbone, init=init, image_size=built_for)
        for module in (self._maps, self._encoder):
            if module is not None:
                module.eval().to(memory_format=torch.channels_last)
        network = self._encoder or self._maps
        if network is None:
            raise InputError(f"Expected levels of {backbone!r}, but got none.")
        self.weights: WeightsInfo = network.weights
        self._normalize = Normalize(network.mean, network.std)
        self._backbone = backbone

    @cached_property
    def key(self) -> Mapping[str, object]:
        """The network, the digest of its weights, the levels and the size of the images."""
        modules = [module for module in (self._maps, self._encoder) if module is not None]
        return {
            "backbone": self._backbone,
            "weights": weights_digest(modules),
            "levels": list(self.levels),
            "image_size": self._size,
        }

    def features(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return float32 `(B, channels)` by the name of the level.

        Raises:
            InputError: The network does not take images of this size.
        """
        images = self._normalize(resized(list(samples), self._size))
        images = images.contiguous(memory_format=torch.channels_last)
        made: dict[str, Tensor] = {}
        with torch.inference_mode():
            if self._maps is not None:
                maps = self._maps(images)
                made |= {
                    str(level.reduction): values.float().mean((2, 3))  # (B, C, h, w) -> (B, C)
                    for level, values in zip(self._maps.levels, maps, strict=True)
                }
            if self._encoder is not None:
                made[POOLED] = self._encoder(images).float()
        return made


class PixelNetwork:
    """The pixels of each image, 16 x 16, as one vector."""

    weights: WeightsInfo = WeightsInfo()
    levels: tuple[str, ...] = (PIXEL_LEVEL,)

    @property
    def key(self) -> Mapping[str, object]:
        """The size."""
        return {"backbone": PIXEL_LEVEL, "levels": list(self.levels), "image_size": PIXELS}

    def features(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return float32 `(B, 768)`, in [0, 1]."""
        return {PIXEL_LEVEL: resized(list(samples), PIXELS).flatten(1).float() / 255}
