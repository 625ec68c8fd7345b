"""`Normalize`: uint8 or float images to the mean and deviation of a backbone, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.errors import InputError, expected
from visionkit.pixels import pixel_error

__all__ = ["Normalize"]

_DEVICE_CHECKS = 4  # batches of floats on a device whose range is checked: each check waits for the device


class Normalize(nn.Module):
    """Scale images to [0, 1] if they are uint8, then apply a backbone's mean and standard deviation.

    Both steps are one multiply-add. The statistics are buffers, so a checkpoint carries them. Floats of
    another precision (float64, float16) come out in that of the statistics, which is the network's.

    Floats outside [0, 1] (0 .. 255, or normalised already) and NaN are refused: on a CPU always, on a device
    in the first calls only (a check waits for the device), and never while tracing, exporting or compiling.

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
        self._checks_left = _DEVICE_CHECKS

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images.

        Args:
            images: `(B, C, H, W)` or `(C, H, W)`, uint8, or float in [0, 1].

        Returns:
            The same shape and memory format, floating point.

        Raises:
            InputError: The images are neither uint8 nor float in [0, 1], or have other channels.
        """
        channels = self.mean.shape[0]
        if images.ndim not in (3, 4) or images.shape[-3] != channels:
            raise InputError(
                expected(
                    "images",
                    f"(B, {channels}, H, W)",
                    tuple(images.shape),
                    fix="Channels come before height and width.",
                )
            )
        if images.dtype == torch.uint8:
            return _scaled(images, self.scale, self.shift)
        if not images.is_floating_point():
            raise InputError(
                expected("images", "uint8, or float in [0, 1]", str(images.dtype).removeprefix("torch."))
            )
        self._check_range(images)
        return _scaled(images.to(self.scale.dtype), 255 * self.scale, self.shift)

    def _check_range(self, images: Tensor) -> None:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return
        kind = images.device.type
        if kind != "cpu":
            if (
                self._checks_left <= 0
                or kind == "meta"
                or (kind == "cuda" and torch.cuda.is_current_stream_capturing())
            ):
                return
            self._checks_left -= 1
        try:
            error = pixel_error(images)
        except RuntimeError:  # no values to read: vmap, fake tensors
            return
        if error:
            raise InputError(error)


def _scaled(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return `images * scale + shift`, allocating one batch: a second costs more than the arithmetic."""
    if images.ndim == 4 and images.device.type == "cpu" and images.permute(0, 2, 3, 1).is_contiguous():
        # (B, C, H, W) -> (B * H, W * C): the CPU's inner loops get W * C long; by channel they would be 3
        # long.
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
    """Recompute scale and shift from loaded statistics."""
    with torch.no_grad():
        module.scale = 1 / (255 * module.std)
        module.shift = -module.mean / module.std
