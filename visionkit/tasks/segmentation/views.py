"""Class maps of images at native size: one view, or multiple scales, mirrored, in windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.errors import InputError, expected
from visionkit.nn.segmentation.sliding_window import Windows, sliding_labels, sliding_logits

__all__ = ["Views", "decide"]


@dataclass(frozen=True)
class Views:
    """The views of an image in evaluation and prediction.

    Args:
        scales: Factors by which the image is resized; the probabilities are averaged at native size.
        flip: Whether each scale is seen mirrored too.
        windows: How an image larger than a window is cut; None: the full image at once.

    Raises:
        InputError: There is no scale, or one is not positive.
    """

    scales: Sequence[float] = (1.0,)
    flip: bool = False
    windows: Windows | None = None

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise InputError(expected("the scales of evaluation", "one or more numbers above 0", self.scales))

    @property
    def plain(self) -> bool:
        """Whether the only view is the full image as it is."""
        return tuple(self.scales) == (1.0,) and not self.flip and self.windows is None

    def labels(self, predict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Return class maps `(B, H, W)`.

        Args:
            predict: Images `(B, 3, h, w)` to logits `(B, C, h, w)`.
            images: `(B, 3, H, W)` uint8 or float in [0, 1].
        """
        if tuple(self.scales) == (1.0,) and not self.flip:
            if self.windows is None or max(images.shape[-2:]) <= self.windows.size:
                return decide(predict(images))
            return torch.stack(
                [sliding_labels(predict, image, self.windows, decide=decide) for image in images]
            )
        return decide(self.probabilities(predict, images), probabilities=True)

    def probabilities(self, predict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Return the mean probabilities of all views, `(B, C, H, W)`; with one logit, C is 1."""
        height, width = images.shape[-2:]
        total: Tensor | None = None
        for scale in self.scales:
            view = _scaled(images, scale)
            for mirrored in (False, True) if self.flip else (False,):
                logits = self._logits(predict, view.flip(-1) if mirrored else view)
                logits = logits.flip(-1) if mirrored else logits
                if logits.shape[-2:] != (height, width):
                    logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
                values = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
                total = values if total is None else total.add_(values)
        if total is None:
            raise InputError(expected("the scales of evaluation", "one or more numbers above 0", self.scales))
        return total / (len(self.scales) * (1 + self.flip))

    def _logits(self, predict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        if self.windows is None or max(images.shape[-2:]) <= self.windows.size:
            return predict(images).float()
        windows = self.windows
        return torch.stack([sliding_logits(predict, image, windows) for image in images])


def decide(logits: Tensor, *, probabilities: bool = False) -> Tensor:
    """Return the class of each pixel `(B, H, W)` int64: the largest logit, or the sign of a single one.

    Args:
        logits: `(B, C, H, W)`.
        probabilities: Whether they are probabilities already.
    """
    if logits.shape[1] == 1:
        return (logits[:, 0] > (0.5 if probabilities else 0.0)).long()
    return logits.argmax(1)


def _scaled(images: Tensor, scale: float) -> Tensor:
    if scale == 1.0:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    values = images.float() / 255 if images.dtype == torch.uint8 else images
    return F.interpolate(values, size=size, mode="bilinear", antialias=True).clamp(0, 1)
