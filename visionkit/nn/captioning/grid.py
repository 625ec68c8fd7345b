"""The grid of image features that a caption decoder attends to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visionkit.errors import InputError, expected

__all__ = ["FeatureGrid"]


class FeatureGrid(nn.Module):
    """Makes a grid `(B, L, C)` of one of a backbone's maps, or of its pooled vector: a grid of one cell.

    Args:
        source: A feature source, for decoders that attend; else an encoder.
        attends: Whether the decoder attends to cells.
        reduction: Which map; the coarsest if not given.
        positions: Whether two channels are added that hold each cell's row and column, from -1 to 1.

    Raises:
        InputError: The source has no such map, or there are positions of a vector.
    """

    def __init__(self, source: Any, *, attends: bool, reduction: int | None, positions: bool) -> None:
        super().__init__()
        self.positions, self.index = positions, 0
        if not attends:
            if positions:
                raise InputError("positions=True is for decoders that attend to a map. Leave it out.")
            self.channels = int(source.dim)
            return
        available = [level.reduction for level in source.levels]
        if reduction is not None and reduction not in available:
            raise InputError(expected("reduction", f"one of the backbone's {available}", reduction))
        self.index = len(available) - 1 if reduction is None else available.index(reduction)
        self.channels = int(source.levels[self.index].channels) + 2 * positions

    def forward(self, features: Any) -> tuple[Tensor, tuple[int, int]]:
        """Return the grid `(B, L, C)` and its height and width, from maps or from a vector `(B, C)`."""
        if isinstance(features, Tensor) and features.ndim == 2:
            return features.unsqueeze(1), (1, 1)
        chosen: Tensor = features[self.index]
        batch, _, height, width = chosen.shape
        grid = chosen.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h * w, C)
        if self.positions:
            rows, columns = (torch.linspace(-1, 1, side).to(grid) for side in (height, width))
            row_and_column = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)  # (h, w, 2)
            grid = torch.cat((grid, row_and_column.view(1, -1, 2).expand(batch, -1, -1)), dim=2)
        return grid.contiguous(), (height, width)
