"""The `Source` protocol: names, pretrained weights and feature maps of architectures, and its value types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.backbones.weights import WeightsInfo
from visionkit.errors import InputError, expected

__all__ = ["FeatureNode", "ModelInfo", "ModelSpec", "PretrainedCfg", "Size", "Source", "sorted_options"]

Size = tuple[int, int]

# Arguments of timm's and torchvision's functions that a setting of ours fills.
_FILLED = {
    "pretrained": "init", "weights": "init", "checkpoint_path": "init",
    "pretrained_cfg": "the backbone's name",
    "pretrained_cfg_overlay": "the backbone's name", "num_classes": "num_classes", "in_chans": "in_channels",
    "img_size": "image_size", "image_size": "image_size", "output_stride": "output_stride",
    "replace_stride_with_dilation": "output_stride", "features_only": "create_backbone",
    "out_indices": "reductions",
}  # fmt: skip


def sorted_options(options: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    """Return options of a network as sorted pairs of plain values.

    Args:
        options: By name: numbers, text, true, false, or lists of them.

    Raises:
        InputError: An option is filled by a setting of ours, or is no plain value.
    """
    pairs = []
    for name, value in (options or {}).items():
        if name in _FILLED:
            raise InputError(
                f"Expected backbone_options without {name!r}, which follows from {_FILLED[name]}."
            )
        items = value if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(item, bool | int | float | str | None) for item in items):
            allowed = "a number, text, true, false, or a list of them, since it travels in checkpoints"
            raise InputError(expected(f"backbone_options[{name!r}]", allowed, type(value).__name__))
        pairs.append((name, tuple(items) if isinstance(value, list | tuple) else value))
    return tuple(sorted(pairs))


@dataclass(frozen=True)
class ModelSpec:
    """Which network to build, without its weights.

    Args:
        architecture: The source's own name for it.
        tag: Which training of it; empty for the source's default.
        in_channels: Channels of the images.
        output_stride: Coarsest reduction, reached by dilation; None leaves the network as it is.
        image_size: `(height, width)` to build for; None for the network's own.
        options: Further arguments of the source's own function, as sorted pairs.
    """

    architecture: str
    tag: str = ""
    in_channels: int = 3
    output_stride: int | None = None
    image_size: Size | None = None
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class PretrainedCfg:
    """Preprocessing, tags and weights record of an architecture, known without building it.

    Args:
        mean: Mean per channel that images in [0, 1] are normalised by.
        std: Standard deviation per channel.
        input_size: `(height, width)` of the images that the weights were trained or tested on.
        tags: Names of the pretrained weights, the default first.
        info: Record of the weights of this tag.
        local_weights: Path of the weights file on this machine; empty when it would have to be downloaded or
            does not exist.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: Size
    tags: tuple[str, ...]
    info: WeightsInfo
    local_weights: str = ""


@dataclass(frozen=True)
class FeatureNode:
    """A node of a network whose output is a feature map, and the layout of that output.

    Args:
        key: The source's key: an index of timm's `forward_intermediates`, or a module name.
        level: Channels and reduction of the map.
        channels_last: The output is `(B, H, W, C)`.
        num_prefix_tokens: The output is tokens `(B, num_prefix_tokens + H * W, C)`; -1 when it is a map.
    """

    key: int | str
    level: Level
    channels_last: bool = False
    num_prefix_tokens: int = -1


@dataclass(frozen=True)
class ModelInfo:
    """Feature maps, image sizes and parameters of a network, traced without weights or memory.

    Args:
        nodes: The deepest node of each reduction, fine to coarse.
        unaligned: Nodes whose map is not the image's size divided by an integer: key and `(height, width)`.
        fixed_size: The only image size it takes; None when it takes others.
        pad_divisor: Images are padded to multiples of it; 1 when any size gives maps of
            ceil(side / reduction).
        size_divisor: Image sides must be multiples of it for the network to run; 1 for any size.
        parameters: Number of parameters, with the classifier.
        norms: Kinds of norm layers (see `visionkit.backbones.norms.norm_kinds`).
        traced_size: `(height, width)` of the image in the trace.
    """

    nodes: tuple[FeatureNode, ...]
    unaligned: tuple[tuple[int | str, tuple[int, ...]], ...]
    fixed_size: Size | None
    pad_divisor: int
    size_divisor: int
    parameters: int
    norms: tuple[str, ...]
    traced_size: Size

    @property
    def reductions(self) -> list[int]:
        """Reductions of its feature maps, fine to coarse."""
        return [node.level.reduction for node in self.nodes]


class Source(Protocol):
    """A provider of architectures: timm, torchvision, packaged weights, or the user."""

    prefix: str

    def __hash__(self) -> int:
        """Return a hash: model infos are cached by source and spec."""
        ...

    def names(self) -> list[str]:
        """Return every architecture, without the prefix."""
        ...

    def tags(self, architecture: str) -> list[str]:
        """Return the pretrained tags of an architecture, the default first; empty when it has none."""
        ...

    def pretrained_cfg(self, spec: ModelSpec) -> PretrainedCfg:
        """Return preprocessing, tags and weights record, without building or downloading anything."""
        ...

    def fetch(self, spec: ModelSpec) -> tuple[dict[str, Tensor] | None, WeightsInfo]:
        """Return the pretrained weights and their record, from the local cache or the hub."""
        ...

    def build(
        self,
        spec: ModelSpec,
        state: Mapping[str, Tensor] | None,
        *,
        trusted: bool = True,
        needed: frozenset[str] | None = None,
    ) -> nn.Module:
        """Build the whole classifier with the weights given, on the default device.

        `trusted` weights come from the source and go through its converters; others are checked name by
        name, and the names `needed` must be in them (None: all but the classifier's).
        """
        ...

    def classifier_keys(self, spec: ModelSpec) -> tuple[str, ...]:
        """Return the names of the classifier's parameters."""
        ...

    def candidate_nodes(self, model: nn.Module, size: Size) -> Sequence[int | str]:
        """Return the keys of the nodes that may give feature maps, in the order of execution."""
        ...

    def maps(self, model: nn.Module, nodes: Sequence[FeatureNode], *, prune: bool) -> nn.Module:
        """Return a module `images -> list of the nodes' outputs` around `model`.

        With `prune`, layers that the nodes do not need are removed from `model`.
        """
        ...

    def pooled(self, model: nn.Module, size: Size) -> tuple[nn.Module, nn.Module | None]:
        """Return a module `images -> (B, dim)` around `model`, and the classifier removed from it."""
        ...
