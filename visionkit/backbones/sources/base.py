"""What a source of architectures must answer, and the values it answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.backbones.weights import WeightsInfo

__all__ = ["Card", "Plan", "Request", "Source", "Tap"]

Size = tuple[int, int]


@dataclass(frozen=True)
class Request:
    """Which network to build: everything but its weights.

    Args:
        architecture: The source's own name for it.
        tag: Which training of it; empty for the source's default.
        in_channels: Channels of the images.
        output_stride: Coarsest reduction, reached by dilation; None leaves the network as it is.
        image_size: `(height, width)` to build for; None for the network's own.
    """

    architecture: str
    tag: str = ""
    in_channels: int = 3
    output_stride: int | None = None
    image_size: Size | None = None


@dataclass(frozen=True)
class Card:
    """What is known of an architecture and tag without building it."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: Size
    tags: tuple[str, ...]
    info: WeightsInfo
    local_weights: str = ""
    """Path of the weights on this machine; empty when they would have to be fetched or do not exist."""


@dataclass(frozen=True)
class Tap:
    """One place where a map can be read: the source's key, the level, and how the raw tensor is laid out.

    Args:
        key: The source's own name of the place.
        level: What is read there.
        channels_last: The raw tensor is `(B, H, W, C)`.
        prefix: The raw tensor is tokens `(B, prefix + H * W, C)`; -1 when it is a map.
    """

    key: int | str
    level: Level
    channels_last: bool = False
    prefix: int = -1


@dataclass(frozen=True)
class Plan:
    """What a network turned out to be when its shapes were traced, without weights or memory.

    Args:
        taps: The deepest place of each reduction, fine to coarse.
        unaligned: Places whose map is not the image's size over a whole number, with that size.
        fixed_size: The only size it takes; None when it takes others.
        multiple: Sides its maps need to be multiples of; 1 when any size gives ceil(side / reduction).
        step: Sides it needs to be multiples of to run at all.
        parameters: Number of parameters, with the classifier.
        norms: Kinds of norms in it.
        traced_size: The image size of the trace.
    """

    taps: tuple[Tap, ...]
    unaligned: tuple[tuple[int | str, tuple[int, ...]], ...]
    fixed_size: Size | None
    multiple: int
    step: int
    parameters: int
    norms: tuple[str, ...]
    traced_size: Size


class Source(Protocol):
    """Where architectures come from: timm, torchvision, packaged weights, or the user."""

    prefix: str

    def __hash__(self) -> int:
        """Return a hash: plans are remembered by source and request."""
        ...

    def names(self) -> list[str]:
        """Return every architecture, without the prefix."""
        ...

    def tags(self, architecture: str) -> list[str]:
        """Return the pretrained tags of an architecture, the default first; empty when it has none."""
        ...

    def card(self, request: Request) -> Card:
        """Return what is known without building, looking at this machine only."""
        ...

    def fetch(self, request: Request) -> tuple[dict[str, Tensor] | None, WeightsInfo]:
        """Return the pretrained weights and their record, from this machine or the hub."""
        ...

    def build(
        self,
        request: Request,
        state: Mapping[str, Tensor] | None,
        *,
        trusted: bool = True,
        needed: frozenset[str] | None = None,
    ) -> nn.Module:
        """Build the whole classifier with the weights given, on the default device.

        `trusted` weights are the source's own and go through its own converters; others are checked name by
        name, and those `needed` must be there (None: all but the classifier's).
        """
        ...

    def classifier_keys(self, request: Request) -> tuple[str, ...]:
        """Return the names of the classifier's parameters."""
        ...

    def places(self, model: nn.Module, size: Size) -> Sequence[int | str]:
        """Return the keys of the places where maps can be read, in the order of execution."""
        ...

    def maps(self, model: nn.Module, taps: Sequence[Tap], *, prune: bool) -> nn.Module:
        """Return a module `images -> list of raw tensors` over `model`, less what the taps do not need."""
        ...

    def vector(self, model: nn.Module, size: Size) -> tuple[nn.Module, nn.Module | None]:
        """Return a module `images -> (B, dim)` over `model`, and the classifier taken off it."""
        ...
