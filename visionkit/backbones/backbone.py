"""`Backbone`: images to feature maps, fine to coarse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.backbones.level import Level
from visionkit.backbones.sources.base import FeatureNode, ModelInfo, Size
from visionkit.backbones.stages import Freezer, StagedNetwork, StageMaps, find_stages
from visionkit.backbones.weights import WeightsInfo

__all__ = ["Backbone"]


class Backbone(StagedNetwork):
    """A network that returns one feature map per level; made by `create_backbone`.

    Args:
        net: `images -> list of tensors`, one per node.
        nodes: Level and layout of each of these tensors.
        model_info: Feature maps, image sizes and parameters of the network.
        name: The registered name it was created by.
        mean: Mean per channel that images in [0, 1] are normalised by.
        std: Standard deviation per channel.
        weights: Provenance of its weights.
        stage_maps: Returns, for `net`, a module that gives every map up to the coarsest of `nodes`, and their
            reductions: parameters are grouped by these.
    """

    def __init__(
        self,
        net: nn.Module,
        nodes: Sequence[FeatureNode],
        model_info: ModelInfo,
        *,
        name: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        weights: WeightsInfo,
        stage_maps: StageMaps,
    ) -> None:
        super().__init__(
            net, model_info, name=name, mean=mean, std=std, weights=weights, stage_maps=stage_maps
        )
        self.levels: tuple[Level, ...] = tuple(node.level for node in nodes)
        self._nodes = tuple(nodes)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one map per level.

        Images whose sides the network cannot divide are padded at the bottom and the right (with zeros, the
        mean) and the maps are cropped, so that every image size gives the documented shapes.

        Args:
            images: `(B, C, H, W)`, normalised by `mean` and `std`.

        Returns:
            Maps `(B, level.channels, ceil(H / level.reduction), ceil(W / level.reduction))`, fine to coarse.

        Raises:
            InputError: The network takes one image size only, and this is another.
        """
        height, width = images.shape[-2:]
        self._check_size(height, width)
        padded = _padded(images, self._model_info.pad_divisor)
        outputs = self.net(padded)
        padded_size = (padded.shape[-2], padded.shape[-1])
        return tuple(_as_map(x, node, (height, width), padded_size) for x, node in zip(outputs, self._nodes))

    def freeze_unused(self) -> None:
        """Freeze parameters that no level needs: in DDP every trained parameter must get a gradient."""
        reductions = [level.reduction for level in self.levels]
        stages = find_stages(self.net, reductions, self._model_info.traced_size, len(self.mean))
        used = {name for stage in stages for name in stage.parameters}
        for name, parameter in self.net.named_parameters():
            if name not in used:
                parameter.requires_grad_(False)
        self._freezer = Freezer(self.net)


def _padded(images: Tensor, divisor: int) -> Tensor:
    height, width = images.shape[-2:]
    bottom, right = -height % divisor, -width % divisor
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images


def _as_map(x: Tensor, node: FeatureNode, size: Size, padded: Size) -> Tensor:
    """Return a node's output as a map `(B, C, ceil(H / r), ceil(W / r))` of the image without its padding."""
    r = node.level.reduction
    if node.num_prefix_tokens >= 0:
        # tokens (B, num_prefix_tokens + h * w, C) -> (B, C, h, w)
        h, w = _ceil_div(padded[0], r), _ceil_div(padded[1], r)
        x = x[:, node.num_prefix_tokens :].transpose(1, 2).unflatten(2, (h, w))
    elif node.channels_last:
        x = x.permute(0, 3, 1, 2)  # (B, h, w, C) -> (B, C, h, w)
    h, w = _ceil_div(size[0], r), _ceil_div(size[1], r)
    if x.shape[-2:] == (h, w) and not torch.compiler.is_exporting():  # other sizes of a graph need it
        return x
    return x[..., :h, :w]


def _ceil_div(side: int, reduction: int) -> int:
    """Return a side over a reduction, rounded up; exported graphs hold this, and ONNX rounds towards zero."""
    return (side + reduction - 1) // reduction
