"""A heat map for each point, and the point as the mean place of its map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.nn.fpn import NormFactory
from visionkit.nn.keypoints.losses import heatmap_loss, point_loss
from visionkit.nn.keypoints.precision import full_precision, widened
from visionkit.task_config import HeatmapConfig

__all__ = ["HeatmapHead", "soft_argmax"]

_NEAR = 2.0  # deviations: the score of a point is the part of its map that lies so near


def soft_argmax(logits: Tensor, *, sigma: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the mean place of each heat map, in cells, and how much of the map lies near it.

    Args:
        logits: `(B, K, H, W)`; the map of a point is the softmax over its cells.
        sigma: Deviation of a map that is sure of its point, in cells: near is within two of them.

    Returns:
        `(B, K, 2)` x, y, where the first cell reaches from 0 to 1, and `(B, K)` in 0 .. 1.

    Sun et al., Integral Human Pose Regression, 2018.
    """
    height, width = logits.shape[-2:]
    heat = logits.flatten(2).softmax(-1).unflatten(2, (height, width))
    columns = torch.arange(width, device=logits.device, dtype=logits.dtype) + 0.5
    rows = torch.arange(height, device=logits.device, dtype=logits.dtype) + 0.5
    points = torch.stack(((heat.sum(-2) * columns).sum(-1), (heat.sum(-1) * rows).sum(-1)), dim=-1)
    across = (columns - points[..., 0, None]) ** 2  # (B, K, W)
    down = (rows - points[..., 1, None]) ** 2  # (B, K, H)
    near = (down[..., :, None] + across[..., None, :]) <= (_NEAR * sigma) ** 2
    return points, (heat * near).sum((-2, -1)).clamp(max=1)


class HeatmapHead(nn.Module):
    """Transposed convolutions over one map, each of which doubles its sides, and a heat map for each point.

    A point is the mean place of its map, so that its error has a gradient and a fraction of a cell counts.
    The loss is that error and the divergence of the map from a normal distribution around the true point.

    Args:
        level: The level of the input map, the last.
        num_keypoints: K points.
        config: Widths, the fineness of the heat maps, and the loss.
        norm: Makes a norm for so many channels.

    Attributes:
        reduction: Input pixels per cell of a heat map: of those that doubling the input map gives, it is the
            nearest to that of `config`.

    Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, 2018; Sun et al., Integral Human
    Pose Regression, 2018.
    """

    def __init__(self, level: Level, num_keypoints: int, config: HeatmapConfig, norm: NormFactory) -> None:
        super().__init__()
        self.config = config
        count = max(0, round(math.log2(level.reduction / config.reduction)))
        self.reduction = level.reduction / 2**count
        layers: list[nn.Module] = []
        channels = level.channels
        for _ in range(count):
            layers += [
                nn.ConvTranspose2d(channels, config.channels, 4, stride=2, padding=1, bias=False),
                norm(config.channels),
                nn.ReLU(inplace=True),
            ]
            channels = config.channels
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(channels, num_keypoints, 1)
        nn.init.normal_(self.last.weight, std=0.001)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    @property
    def layers_to_compile(self) -> list[nn.Module]:
        """The parts whose calls are most of the work."""
        return [self.layers, self.last]

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the points `(B, K, 2)`, x and y as fractions of the image's sides, and scores `(B, K)`.

        Args:
            maps: One a level, `(B, C_l, H_l, W_l)`.
            size: `(H, W)` of the images.
        """
        points, scores = soft_argmax(self._logits(maps), sigma=self.config.sigma)
        return points / self._cells(size, points), scores

    def losses(
        self, maps: Sequence[Tensor], size: tuple[int, int], target: Tensor, known: Tensor
    ) -> dict[str, Tensor]:
        """Return the terms of the loss: "points" and "heatmaps".

        Args:
            maps: One a level, `(B, C_l, H_l, W_l)`.
            size: `(H, W)` of the images.
            target: `(B, K, 2)` as fractions of the image's sides.
            known: `(B, K)` bool: the points that are labelled.
        """
        logits = self._logits(maps)
        points, _ = soft_argmax(logits, sigma=self.config.sigma)
        cells = self._cells(size, points)
        terms = {"points": point_loss(points / cells, target, known, kind=self.config.loss)}
        if self.config.heatmap_weight:
            apart = heatmap_loss(logits, target * cells, known, sigma=self.config.sigma)
            terms["heatmaps"] = self.config.heatmap_weight * apart
        return terms

    def _logits(self, maps: Sequence[Tensor]) -> Tensor:
        features = self.layers(maps[-1])
        with full_precision(features):
            return widened(self.last(features.to(self.last.weight.dtype)))

    def _cells(self, size: tuple[int, int], like: Tensor) -> Tensor:
        """Return the image's width and height in cells of a heat map, `(2,)`."""
        return like.new_tensor([size[1] / self.reduction, size[0] / self.reduction])
