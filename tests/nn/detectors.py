"""Small feature sources and targets for the tests of detectors."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from visionkit.backbones.level import Level


class TinySource(nn.Module):
    """Four strided convolutions: reductions 2, 4, 8 and 16, of which three are levels."""

    levels = (Level(8, 4), Level(12, 8), Level(16, 16))

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 8, 12, 16)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in itertools.pairwise(widths))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        out = []
        for conv in self.convs:
            images = conv(images).relu()
            out.append(images)
        return tuple(out[1:])


def random_targets(counts: list[int], *, size: int, classes: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Targets with that many boxes each, masks filling the boxes, five points in each box, labels from 0."""
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * size * 0.6
        boxes = torch.cat(
            (corner, corner + size * (0.1 + 0.3 * torch.rand(count, 2, generator=generator))), 1
        )
        masks = torch.zeros(count, size, size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().long().tolist()):
            mask[y1:y2, x1:x2] = 1
        labels = torch.randint(classes, (count,), generator=generator)
        at = boxes[:, None, :2] + (boxes[:, None, 2:] - boxes[:, None, :2]) * torch.linspace(0, 1, 5)[:, None]
        points = torch.cat((at, torch.full((count, 5, 1), 2.0)), 2)
        targets.append({"boxes": boxes, "labels": labels, "masks": masks, "keypoints": points})
    return targets
