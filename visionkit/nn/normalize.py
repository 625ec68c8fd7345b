"""Pixels to what a backbone was trained on, once, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionkit.errors import InputError, expected

__all__ = ["Normalize"]


class Normalize(nn.Module):
    """Scale pictures to [0, 1] if they are uint8, then apply a backbone's mean and standard deviation.

    Both steps are one multiply-add. The statistics are buffers, so a checkpoint carries them.

    Args:
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise InputError(
                expected("mean and std", "equally long, with std above 0", (tuple(mean), tuple(std)))
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise pictures.

        Args:
            images: `(B, C, H, W)` or `(C, H, W)`, uint8, or float in [0, 1].

        Returns:
            The same shape and memory format, floating point.

        Raises:
            InputError: The pictures are neither uint8 nor float, or have another number of channels.
        """
        channels = self.mean.shape[0]
        if images.ndim not in (3, 4) or images.shape[-3] != channels:
            raise InputError(
                expected(
                    "pictures",
                    f"(B, {channels}, H, W)",
                    tuple(images.shape),
                    fix="Channels come before height and width.",
                )
            )
        if images.dtype == torch.uint8:
            scale = 1 / (255 * self.std)
            return torch.addcmul(-self.mean / self.std, images.to(scale.dtype), scale)
        if not images.is_floating_point():
            raise InputError(
                expected("pictures", "uint8, or float in [0, 1]", str(images.dtype).removeprefix("torch."))
            )
        return (images - self.mean) / self.std
