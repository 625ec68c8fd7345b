"""How far an image is from the content of one image and the styles of others.

Regions: Gatys et al.: Controlling Perceptual Factors in Neural Style Transfer, CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visionkit.errors import InputError, expected
from visionkit.interpret.maps import maps_of
from visionkit.interpret.subject import Subject

__all__ = ["Style", "StyleLosses", "gram"]


@dataclass(frozen=True)
class Style:
    """An image whose style is taken, and where.

    Args:
        image: `(3, h, w)` in [0, 1].
        region: `(H, W)` in [0, 1], of the content's size: 1 where this style is given; everywhere if None.
        source: `(h, w)` in [0, 1], of the image's size: 1 where the style is taken from; everywhere if None.
    """

    image: Tensor
    region: Tensor | None = None
    source: Tensor | None = None


def gram(maps: Tensor, region: Tensor | None = None) -> Tensor:
    """Return the Gram matrix `(C, C)` of maps `(1, C, h, w)`: products of channels, by position.

    Args:
        maps: Of one image.
        region: `(H, W)` of any size: the weight of each position, by its mean there; equal if not given.
    """
    flat = maps[0].flatten(1)  # (C, h, w) -> (C, n)
    if region is None:
        return flat @ flat.T / flat.shape[1]
    height, width = maps.shape[-2:]
    weight = F.adaptive_avg_pool2d(region[None].to(maps), (height, width)).flatten()  # (H, W) -> (n,)
    return (flat * weight) @ flat.T / weight.sum().clamp_min(1e-12)


class StyleLosses:
    """Content and style loss of an image against those of others.

    Each layer's losses are divided by what the target amounts to itself, so that weights mean the same in any
    network; the losses of several styles are averaged.

    Args:
        subject: The network.
        content: `(3, H, W)` in [0, 1].
        styles: At least one.
        names: Full names of the styles' layers.
        weights: One for each layer; equal if there are none.
        content_layer: Full name of the content's layer.

    Raises:
        InputError: A region is empty or of another size than its image.
    """

    def __init__(
        self,
        subject: Subject,
        content: Tensor,
        styles: Sequence[Style],
        *,
        names: Sequence[str],
        weights: Sequence[float],
        content_layer: str,
    ) -> None:
        self.subject, self.names, self.content_layer = subject, list(names), content_layer
        self.weights = list(weights) or [1 / len(names)] * len(names)
        self.regions = [style.region for style in styles]
        for style in styles:
            _check_region("region", style.region, content)
            _check_region("source", style.source, style.image)
        with torch.no_grad():
            self.maps = self._maps(content, [content_layer])[content_layer]
            self.grams = []
            for style in styles:
                maps = self._maps(style.image, self.names)
                self.grams.append({name: gram(maps[name], style.source) for name in self.names})

    def _maps(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        return maps_of(self.subject.network, self.subject.inputs(image), names)[1].maps

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return content and style loss of an image `(3, H, W)` in [0, 1]."""
        maps = self._maps(image, [*self.names, self.content_layer])
        content = _relative(maps[self.content_layer], self.maps)
        style = torch.zeros(())
        for region, targets in zip(self.regions, self.grams):
            for name, weight in zip(self.names, self.weights):
                style = style + weight * _relative(gram(maps[name], region), targets[name])
        return content, style / len(self.regions)


def _relative(values: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(values, target) / target.square().mean().clamp_min(1e-12)


def _check_region(name: str, region: Tensor | None, image: Tensor) -> None:
    if region is None:
        return
    if region.shape != image.shape[-2:]:
        size = "x".join(map(str, image.shape[-2:]))
        raise InputError(expected(f"the {name} of a style", f"of {size}, as its image", tuple(region.shape)))
    if not region.sum() > 0:
        raise InputError(f"The {name} of a style is empty: no pixel of its mask is above 0.")
