"""What the decoders share: convolution with norm and ReLU, norm of pooled maps, resizing to another map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeGuard

import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.compat import BatchNormBase, InstanceNormBase
from visionkit.distributed import world_size
from visionkit.errors import InputError

__all__ = ["ConvBlock", "Norm", "PooledBlock", "need_levels", "resize_to"]

Norm: TypeAlias = Callable[[int], nn.Module]
"""Makes a norm layer for so many channels, under the norm policy of the whole model."""


class ConvBlock(nn.Module):
    """Convolution without bias, norm, ReLU; the size stays.

    One image whose map is one pixel has no batch statistics: the running ones serve there.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        kernel: Side of the kernel, odd.
        dilation: Pixels between the kernel's taps.
        norm: Makes the norm layer.
        single: The map always is one position. A norm within the image would leave little or nothing of it,
            so there the convolution has a bias and no norm follows; batch norms stay.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        dilation: int = 1,
        norm: Norm,
        single: bool = False,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        made = norm(outputs)
        bare = single and _within_image(made)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=bare)
        self.norm = nn.Identity() if bare else made

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, outputs, H, W)` for `(B, inputs, H, W)`."""
        features = self.conv(features)
        norm = self.norm
        if _lacks_statistics(norm, features):
            mean, var = norm.running_mean, norm.running_var
            return F.relu(F.batch_norm(features, mean, var, norm.weight, norm.bias, False, 0.0, norm.eps))
        return F.relu(norm(features))


class PooledBlock(nn.Module):
    """Average-pool to `bins x bins`, then a 1 x 1 `ConvBlock`; sized back to the map it came from.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        bins: Side of the pooled map.
        norm: Makes the norm layer.
    """

    def __init__(self, inputs: int, outputs: int, *, bins: int, norm: Norm) -> None:
        super().__init__()
        self.bins = bins
        self.block = ConvBlock(inputs, outputs, kernel=1, norm=norm, single=bins == 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, outputs, H, W)` for `(B, inputs, H, W)`."""
        pooled = self.block(F.adaptive_avg_pool2d(features, self.bins))
        return resize_to(pooled, features)


def _within_image(norm: nn.Module) -> bool:
    """Return whether a norm takes its statistics over the positions of single images.

    Over one position it has few values or one, so a branch that always is one position is better off without.
    """
    return isinstance(norm, nn.GroupNorm | InstanceNormBase)


def _lacks_statistics(norm: nn.Module, x: Tensor) -> TypeGuard[BatchNormBase]:
    """Return whether a batch norm in training would see one value a channel of `(B, C, ...)`.

    A sync norm counts the values of all processes, each of which has one at least.
    """
    if not (norm.training and isinstance(norm, BatchNormBase) and x.numel() == x.shape[1]):
        return False
    return not isinstance(norm, nn.SyncBatchNorm) or world_size() == 1


def resize_to(features: Tensor, like: Tensor) -> Tensor:
    """Resize `(B, C, h, w)` bilinearly to the height and width of `like`."""
    if features.shape[-2:] == like.shape[-2:]:
        return features
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


def need_levels(decoder: str, levels: Sequence[Level], *, at_least: int = 1, coarsest: int = 0) -> None:
    """Refuse levels that a decoder cannot work on, naming what would work.

    Args:
        decoder: What the decoder is called.
        levels: The levels of the feature source, fine to coarse.
        at_least: How many levels it needs.
        coarsest: Largest reduction that the coarsest level may have; 0 is any.

    Raises:
        InputError: There are too few levels, or the coarsest is too coarse.
    """
    has = ", ".join(str(level.reduction) for level in levels) or "none"
    if len(levels) < at_least:
        raise InputError(
            f"Decoder {decoder!r} joins maps of at least {at_least} reductions, but this backbone gives "
            f"{has}. Decoders that take a single map: 'fcn', 'psp', and 'deeplabv3' for reduction 16 or less."
        )
    if coarsest and levels[-1].reduction > coarsest:
        raise InputError(
            f"Decoder {decoder!r} dilates over a map of reduction {coarsest} or less, but this backbone "
            f"gives {has}. Ask for output_stride=8 or 16 where the backbone supports dilation, or take "
            "a decoder that needs none: 'unet', 'semantic_fpn', 'upernet'."
        )
