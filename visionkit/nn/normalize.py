"""Pixels to what a backbone was trained on, once, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.errors import InputError, expected
from visionkit.pixels import pixel_error

__all__ = ["Normalize"]

_LOOKS = 4  # batches of floats on a device that are looked at: each look waits for it


class Normalize(nn.Module):
    """Scale images to [0, 1] if they are uint8, then apply a backbone's mean and standard deviation.

    Both steps are one multiply-add. The statistics are buffers, so a checkpoint carries them. Floats of
    another precision (float64, float16) come out in that of the statistics, which is the network's.

    Floats outside [0, 1] (0 .. 255, or normalised already) and NaN are refused wherever they can be read
    without a wait: on the host always, on a device in the first calls only, and never while a graph is
    traced, exported or compiled.

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
        self._looks = _LOOKS

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
        self._look(images)
        return _scaled(images.to(self.scale.dtype), 255 * self.scale, self.shift)

    def _look(self, images: Tensor) -> None:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return
        kind = images.device.type
        if kind != "cpu":
            if (
                self._looks <= 0
                or kind == "meta"
                or (kind == "cuda" and torch.cuda.is_current_stream_capturing())
            ):
                return
            self._looks -= 1
        try:
            fault = pixel_error(images)
        except RuntimeError:  # values that are not there to be read: vmap, fake tensors
            return
        if fault:
            raise InputError(fault)


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
