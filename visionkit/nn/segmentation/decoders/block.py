"""Building blocks of the decoders: convolution with norm and ReLU, pooled branches, resizing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeGuard

import torch.nn.functional as F
from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.compat import BatchNormBase, InstanceNormBase
from visionkit.distributed import world_size
from visionkit.errors import InputError

__all__ = ["ConvBlock", "Norm", "PooledBlock", "check_levels", "resize_to"]

Norm: TypeAlias = Callable[[int], nn.Module]
"""Returns a norm layer for so many channels, under the norm policy of the model."""


class ConvBlock(nn.Module):
    """Convolution without bias, norm, ReLU; the size stays.

    For one value a channel (one image, a map of one pixel) batch norms use their running statistics.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Side of the kernel, odd.
        dilation: Spacing between kernel elements.
        norm: Makes the norm layer.
        single_position: The map always is one position. A norm within the image would leave little or nothing
            of it, so there the convolution has a bias and no norm follows; batch norms stay.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        dilation: int = 1,
        norm: Norm,
        single_position: bool = False,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        norm_layer = norm(outputs)
        without_norm = single_position and _within_image(norm_layer)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=without_norm)
        self.norm = nn.Identity() if without_norm else norm_layer

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, outputs, H, W)` for `(B, inputs, H, W)`."""
        features = self.conv(features)
        norm = self.norm
        if _has_one_value(norm, features):
            mean, var = norm.running_mean, norm.running_var
            return F.relu(F.batch_norm(features, mean, var, norm.weight, norm.bias, False, 0.0, norm.eps))
        return F.relu(norm(features))


class PooledBlock(nn.Module):
    """Average-pool to `bins x bins`, then a 1 x 1 `ConvBlock`; resized to the input.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        bins: Side of the pooled map.
        norm: Makes the norm layer.
    """

    def __init__(self, inputs: int, outputs: int, *, bins: int, norm: Norm) -> None:
        super().__init__()
        self.bins = bins
        self.block = ConvBlock(inputs, outputs, kernel=1, norm=norm, single_position=bins == 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, outputs, H, W)` for `(B, inputs, H, W)`."""
        pooled = self.block(F.adaptive_avg_pool2d(features, self.bins))
        return resize_to(pooled, features)


def _within_image(norm: nn.Module) -> bool:
    """Return whether a norm takes its statistics within single images.

    Over one position these are of few values or one, so a branch of one position has no such norm.
    """
    return isinstance(norm, nn.GroupNorm | InstanceNormBase)


def _has_one_value(norm: nn.Module, x: Tensor) -> TypeGuard[BatchNormBase]:
    """Return whether a batch norm in training would have one value a channel of `(B, C, ...)`.

    A sync norm has the values of all processes, each of which has at least one.
    """
    if not (norm.training and isinstance(norm, BatchNormBase) and x.numel() == x.shape[1]):
        return False
    return not isinstance(norm, nn.SyncBatchNorm) or world_size() == 1


def resize_to(features: Tensor, like: Tensor) -> Tensor:
    """Resize `(B, C, h, w)` bilinearly to the height and width of `like`."""
    if features.shape[-2:] == like.shape[-2:]:
        return features
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


def check_levels(decoder: str, levels: Sequence[Level], *, min_levels: int = 1, coarsest: int = 0) -> None:
    """Refuse levels that a decoder cannot use; the message names decoders that can.

    Args:
        decoder: Name of the decoder.
        levels: The levels of the feature source, fine to coarse.
        min_levels: Number of levels it needs.
        coarsest: Largest reduction that the coarsest level may have; 0 is any.

    Raises:
        InputError: There are too few levels, or the coarsest is too coarse.
    """
    listing = ", ".join(str(level.reduction) for level in levels) or "none"
    if len(levels) < min_levels:
        raise InputError(
            f"Decoder {decoder!r} joins maps of at least {min_levels} reductions, but this backbone gives "
            f"{listing}. Decoders that take a single map: 'fcn', 'psp', and 'deeplabv3' for reduction 16 or "
            "less."
        )
    if coarsest and levels[-1].reduction > coarsest:
        raise InputError(
            f"Decoder {decoder!r} dilates over a map of reduction {coarsest} or less, but this backbone "
            f"gives {listing}. Ask for output_stride=8 or 16 where the backbone supports dilation, or take "
            "a decoder that needs none: 'unet', 'semantic_fpn', 'upernet'."
        )
