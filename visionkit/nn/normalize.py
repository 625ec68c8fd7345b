"""Pixels to what a backbone was trained on, once, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise InputError(
                expected("mean and std", "equally long, with std above 0", (tuple(mean), tuple(std)))
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))
        # For uint8: pixels * scale + shift. Made from the statistics, so a checkpoint does not hold them.
        self.register_buffer("scale", 1 / (255 * self.std), persistent=False)
        self.register_buffer("shift", -self.mean / self.std, persistent=False)
        self.register_load_state_dict_post_hook(_refresh)

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
            return _scaled(images, self.scale, self.shift)
        if not images.is_floating_point():
            raise InputError(
                expected("pictures", "uint8, or float in [0, 1]", str(images.dtype).removeprefix("torch."))
            )
        return _scaled(images, 255 * self.scale, self.shift)


def _scaled(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return `images * scale + shift` with one new batch: another costs more than the sums."""
    if images.ndim == 4 and images.device.type == "cpu" and images.permute(0, 2, 3, 1).is_contiguous():
        # Rows of W * C numbers, so that the CPU's loops are long: by channel they would be of length three.
        count, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(-1, width * channels)
        rows = _affine(rows, scale.view(-1).repeat(width), shift.view(-1).repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
    return _affine(images, scale, shift)


def _affine(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return a new tensor `values * scale + shift`; floats keep their type."""
    if values.is_floating_point():
        return torch.addcmul(shift.to(values.dtype), values, scale.to(values.dtype))
    return values.to(scale.dtype).mul_(scale).add_(shift)


def _refresh(module: Any, keys: object) -> None:
    """Follow statistics that were loaded."""
    with torch.no_grad():
        module.scale = 1 / (255 * module.std)
        module.shift = -module.mean / module.std
