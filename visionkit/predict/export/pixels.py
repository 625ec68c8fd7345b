"""The first step of every exported graph: pixels to what the backbone was trained on."""

from __future__ import annotations

from torch import Tensor, nn

from visionkit.nn import Normalize

__all__ = ["Pixels"]


class Pixels(nn.Module):
    """Normalise images by one multiply-add, without the checks of values that `Normalize` makes.

    Args:
        normalize: Of the task.
        uint8: Whether images are uint8, and not float in [0, 1].
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, normalize: Normalize, *, uint8: bool) -> None:
        super().__init__()
        self.register_buffer("scale", normalize.scale * (1 if uint8 else 255), persistent=False)
        self.register_buffer("shift", normalize.shift.clone(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised float32 images `(B, C, H, W)`."""
        return images.to(self.scale.dtype) * self.scale + self.shift
