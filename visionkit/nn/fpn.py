"""Feature pyramid networks (FPN) over the levels of any feature source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.backbones.level import FeatureSource, Level
from visionkit.errors import InputError, unknown_name

__all__ = ["ExtraLevels", "FeaturePyramid", "NormFactory", "PyramidSource", "source_channels"]

NormFactory = Callable[[int], nn.Module]
"""Returns a norm layer for so many channels."""

ExtraLevels = Literal["none", "pool", "p6p7", "p6p7_of_p5"]
"""Coarser levels on top of a pyramid, see `FeaturePyramid`."""

_EXTRA = ("none", "pool", "p6p7", "p6p7_of_p5")


class FeaturePyramid(nn.Module):
    """Feature pyramid: every level gets the same channels, and the coarser levels added to it.

    Args:
        levels: The levels of the input maps, fine to coarse.
        channels: Channels of every output map.
        norm: Makes the norm after each convolution; without it convolutions have a bias.
        extra: Coarser levels on top: "pool" subsamples the last one once (Faster R-CNN), "p6p7" convolves the
            last input map twice with stride 2 (the RetinaNet of the paper and of torchvision's v2),
            "p6p7_of_p5" the last output map (torchvision's first RetinaNet, FCOS), "none"
            adds none.

    Attributes:
        levels: The levels of the output maps.

    Raises:
        InputError: There is no level, levels are not sorted fine to coarse, or `extra` is unknown.

    Lin et al., Feature Pyramid Networks, 2017. Reference: `torchvision.ops.FeaturePyramidNetwork`.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        channels: int = 256,
        norm: NormFactory | None = None,
        extra: ExtraLevels = "none",
    ) -> None:
        super().__init__()
        reductions = [level.reduction for level in levels]
        if not levels or sorted(set(reductions)) != reductions:
            raise InputError(f"Expected levels from fine to coarse, but got reductions {reductions}.")
        if extra not in _EXTRA:
            raise unknown_name("extra level", extra, _EXTRA)
        self.extra = extra
        self.lateral = nn.ModuleList(_conv(level.channels, channels, 1, norm) for level in levels)
        self.smooth = nn.ModuleList(_conv(channels, channels, 3, norm) for _ in levels)
        if extra in ("p6p7", "p6p7_of_p5"):
            inputs = levels[-1].channels if extra == "p6p7" else channels
            self.p6 = nn.Conv2d(inputs, channels, 3, stride=2, padding=1)
            self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        count = {"none": 0, "pool": 1}.get(extra, 2)
        reductions += [reductions[-1] * 2 ** (i + 1) for i in range(count)]
        self.levels: Sequence[Level] = tuple(Level(channels, reduction) for reduction in reductions)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return one map a level of `levels`, `(B, channels, H_l, W_l)`, for maps `(B, C_l, H_l, W_l)`."""
        top = self.lateral[-1](maps[-1])
        out = [self.smooth[-1](top)]
        for index in range(len(maps) - 2, -1, -1):
            side = self.lateral[index](maps[index])
            top = side + F.interpolate(top, size=side.shape[-2:], mode="nearest")
            out.insert(0, self.smooth[index](top))
        if self.extra == "pool":
            out.append(F.max_pool2d(out[-1], kernel_size=1, stride=2))
        elif self.extra != "none":
            out.append(self.p6(maps[-1] if self.extra == "p6p7" else out[-1]))
            out.append(self.p7(F.relu(out[-1])))
        return tuple(out)


class PyramidSource(nn.Module):
    """A feature source with a feature pyramid on top: images to pyramid levels.

    Args:
        source: A feature source that is a module (a backbone, or a network of your own).
        channels: Channels of every level.
        norm: See `FeaturePyramid`.
        extra: See `FeaturePyramid`.
    """

    def __init__(
        self,
        source: FeatureSource,
        *,
        channels: int = 256,
        norm: NormFactory | None = None,
        extra: ExtraLevels = "none",
    ) -> None:
        super().__init__()
        self.source = source
        self.pyramid = FeaturePyramid(source.levels, channels=channels, norm=norm, extra=extra)
        self.levels: Sequence[Level] = self.pyramid.levels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one map a level for normalised images `(B, 3, H, W)`."""
        out: tuple[Tensor, ...] = self.pyramid(self.source(images))
        return out


def _conv(inputs: int, outputs: int, size: int, norm: NormFactory | None) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=norm is None)
    return nn.Sequential(conv) if norm is None else nn.Sequential(conv, norm(outputs))


def source_channels(source: FeatureSource, *, num_classes: int) -> int:
    """Return the channels that all levels of a source have; every detector asks for one number.

    Args:
        source: Images to maps.
        num_classes: Foreground classes.

    Raises:
        InputError: Levels differ in channels, or `num_classes` is below 1.
    """
    channels = [level.channels for level in source.levels]
    if len(set(channels)) != 1:
        raise InputError(
            f"Expected levels of equal channels, but got {channels}. Put a pyramid on the source: "
            "PyramidSource(source)."
        )
    if num_classes < 1:
        raise InputError(f"Expected num_classes to be at least 1, but got {num_classes}.")
    return channels[0]
