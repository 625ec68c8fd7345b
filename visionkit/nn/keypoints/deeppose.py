"""DeepPose: the coordinates of all points by regression, refined in stages on crops around each point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionkit.backbones.level import Level
from visionkit.nn.detection.roi_align import RoIPool
from visionkit.nn.fpn import NormFactory
from visionkit.nn.keypoints.fine_map import FineMap
from visionkit.nn.keypoints.losses import point_loss
from visionkit.nn.keypoints.precision import full_precision, widened
from visionkit.task_config import DeepPoseConfig

__all__ = ["DeepPose"]

_BINS = 7  # of a crop along a side
_SIMULATED = 0.5  # fraction of the crops in training that lie around a displaced true point
_SPREAD = 0.25  # deviation of the displacement, as a fraction of the crop's side: the point stays inside


class DeepPose(nn.Module):
    """Regress the points of an object from its whole image, then move each by what a crop around it shows.

    The coarsest map is pooled to a grid, and two fully connected layers give all points. Each further stage
    cuts a square around each point and regresses how far the point is from the square's centre.

    Where it differs from the paper: there a stage cuts the image, and a network of its own sees the crop, so
    that K points cost K passes of a network. Here a stage cuts the finest feature map, with the coarser
    levels added to it: one pass of the backbone serves all stages, and a stage has layers of its own, shared
    by the points up to the last. The side of a crop is a fraction of the image, which shows one object, and
    not of the torso, which not every object has. All stages are trained at once: on half of the points the
    crop lies around what the stage before predicted, on the others around the true point, displaced as the
    paper simulates predictions. A true point outside its crop teaches that stage nothing.

    Args:
        levels: The levels of the input maps, fine to coarse.
        num_keypoints: K points.
        config: Sizes, stages and the loss.
        norm: Makes a norm for so many channels.

    Toshev and Szegedy, DeepPose: Human Pose Estimation via Deep Neural Networks, 2014.
    """

    def __init__(
        self, levels: Sequence[Level], num_keypoints: int, config: DeepPoseConfig, norm: NormFactory
    ) -> None:
        super().__init__()
        self.config = config
        self.whole = nn.Sequential(
            nn.AdaptiveAvgPool2d(config.cells),
            nn.Flatten(),
            nn.Linear(levels[-1].channels * config.cells**2, config.width),
            nn.ReLU(inplace=True),
        )
        self.last = nn.Linear(config.width, 2 * num_keypoints)
        self.fine = FineMap(levels, config.channels, norm) if config.stages else None
        self.stages = nn.ModuleList(Stage(num_keypoints, config, norm) for _ in range(config.stages))
        self.pool = RoIPool([levels[0].reduction], output_size=_BINS, aligned=True)
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.constant_(self.last.bias, 0.5)  # the middle of the image

    @property
    def layers_to_compile(self) -> list[nn.Module]:
        """The parts whose calls are most of the work."""
        return [self.whole, *([] if self.fine is None else [self.fine]), *self.stages]

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, None]:
        """Return the points `(B, K, 2)`, x and y as fractions of the image's sides; they have no scores.

        Args:
            maps: One a level, `(B, C_l, H_l, W_l)`.
            size: `(H, W)` of the images.
        """
        points = self._first(maps)
        fine = None if self.fine is None else self.fine(maps)
        for stage in self.stages:
            points = points + self._move(stage, fine, points, size)
        return points, None

    def losses(
        self, maps: Sequence[Tensor], size: tuple[int, int], target: Tensor, known: Tensor
    ) -> dict[str, Tensor]:
        """Return the terms of the loss: "points" of the whole image, and "stage 1", "stage 2" and so on.

        Args:
            maps: One a level, `(B, C_l, H_l, W_l)`.
            size: `(H, W)` of the images.
            target: `(B, K, 2)` as fractions of the image's sides.
            known: `(B, K)` bool: the points that are labelled.
        """
        kind = self.config.loss
        points = self._first(maps)
        terms = {"points": point_loss(points, target, known, kind=kind)}
        fine = None if self.fine is None else self.fine(maps)
        unit = self._unit(size, points)
        for number, stage in enumerate(self.stages, start=1):
            centers = self._centers(points.detach(), target.to(points.dtype), known, unit)
            moves = self._move(stage, fine, centers, size)
            goal = (target - centers) / unit
            inside = known & (goal.abs() <= 0.5).all(-1)
            terms[f"stage {number}"] = point_loss(moves / unit, goal, inside, kind=kind)
            points = centers + moves
        return terms

    def _first(self, maps: Sequence[Tensor]) -> Tensor:
        features = self.whole(maps[-1])
        with full_precision(features):
            points: Tensor = widened(self.last(features.to(self.last.weight.dtype))).unflatten(1, (-1, 2))
        return points

    def _unit(self, size: tuple[int, int], like: Tensor) -> Tensor:
        """Return the side of a crop as fractions of the image's width and height, `(2,)`."""
        side = self.config.crop * max(size)
        return like.new_tensor([side / size[1], side / size[0]])

    def _centers(self, points: Tensor, target: Tensor, known: Tensor, unit: Tensor) -> Tensor:
        """Return the centres of the crops in training: predictions, or true points that are displaced."""
        moved = target + unit * (_SPREAD * torch.randn_like(points)).clamp(-0.5, 0.5)
        simulated = known & (torch.rand_like(points[..., 0]) < _SIMULATED)
        return moved.where(simulated[..., None], points)

    def _move(self, stage: nn.Module, fine: Tensor | None, points: Tensor, size: tuple[int, int]) -> Tensor:
        """Return how far a stage moves points, as fractions of the image's sides, `(B, K, 2)`."""
        if fine is None:
            raise TypeError("a stage needs the fine map")
        # Step 1: a square around each point, in pixels, (B * K, 4).
        pixels = points.detach() * points.new_tensor([size[1], size[0]])
        half = self.config.crop * max(size) / 2
        squares = torch.cat((pixels - half, pixels + half), dim=-1).flatten(0, 1)
        image = torch.arange(points.shape[0], device=points.device)[:, None].expand(points.shape[:2])
        # Step 2: what the map shows in it, (B * K, C, bins, bins), and what the stage makes of it.
        crops = self.pool.pool([fine], torch.cat((image.reshape(-1, 1).to(squares.dtype), squares), dim=1))
        values: Tensor = stage(crops)
        return values.to(points.dtype) * self._unit(size, points)


class Stage(nn.Module):
    """What moves each point by its crop: layers that the points share, and a last one for each point.

    Args:
        num_keypoints: K points.
        config: Widths.
        norm: Makes a norm for so many channels.
    """

    def __init__(self, num_keypoints: int, config: DeepPoseConfig, norm: NormFactory) -> None:
        super().__init__()
        channels, width = config.channels, config.stage_width
        self.shared = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            norm(channels),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(channels * _BINS**2, width),
            nn.ReLU(inplace=True),
        )
        self.weight = nn.Parameter(torch.empty(num_keypoints, width, 2).normal_(std=0.01))
        self.bias = nn.Parameter(torch.zeros(num_keypoints, 2))

    def forward(self, crops: Tensor) -> Tensor:
        """Return how far points lie from the centres of their crops, in sides of a crop: `(B, K, 2)`.

        Args:
            crops: `(B * K, C, bins, bins)`.
        """
        features = self.shared(crops).unflatten(0, (-1, len(self.weight)))  # (B, K, width)
        with full_precision(features):
            features = features.to(self.weight.dtype)
            moves: Tensor = torch.einsum("bkw,kwc->bkc", features, self.weight) + self.bias
        return moves
