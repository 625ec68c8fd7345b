"""What a caption decoder looks at: a backbone's map, or its pooled vector as a grid of one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.config import TransferConfig
from visionkit.errors import InputError, expected
from visionkit.tasks.classification.encoder import build_encoder
from visionkit.tasks.image_spec import ImageSpec
from visionkit.tasks.maps import build_maps
from visionkit.tasks.own_module import OwnModule
from visionkit.types import Init

__all__ = ["build_caption_source", "grid_place", "to_grid"]


def build_caption_source(
    backbone: str | nn.Module | Mapping[str, Any],
    *,
    init: Init,
    transfer: TransferConfig,
    attends: bool,
    reduction: int | None,
    output_stride: int | None,
    images: ImageSpec,
    origin: Mapping[str, Any] | None,
) -> Any:
    """Return a source of maps for decoders that attend, and an encoder for those that do not.

    Maps finer than the grid are made too, so that freezing and unfreezing by level has its levels.

    Args:
        backbone: A name, or a user's module.
        init: Where its weights come from.
        transfer: Resolved.
        attends: Whether the decoder looks at places.
        reduction: Which map is the grid; the coarsest if not given.
        output_stride: Coarsest reduction, by dilation where the backbone can.
        images: What the images are.
        origin: What a checkpoint says of the weights that it will fill in; None when nothing is reloaded.

    Raises:
        InputError: The module gives a vector where maps are needed, or has no such map.
    """
    if not attends:
        return build_encoder(backbone, init=init, transfer=transfer, images=images, origin=origin)
    reductions: list[int] = []
    if isinstance(backbone, str) and not OwnModule.is_mark(backbone):
        have = [tap.level.reduction for tap in images.plan(backbone, output_stride).taps]
        if not have:
            raise InputError(
                f"{backbone!r} has no maps, so nothing to attend to. Use decoder 'show_and_tell' or 'fc'."
            )
        if reduction is not None and reduction not in have:
            raise InputError(expected("reduction", f"one of {backbone!r}'s {have}", reduction))
        reductions = [own for own in have if reduction is None or own <= reduction]
    return build_maps(
        backbone, init=init, transfer=transfer, reductions=reductions, images=images, origin=origin,
        output_stride=output_stride,
    )  # fmt: skip


def grid_place(
    source: Any, *, attends: bool, reduction: int | None, positions: bool = False
) -> tuple[int, int]:
    """Return the channels of the grid that `to_grid` makes, and the place of its map among the source's.

    Raises:
        InputError: The source has no such map, or places are wanted of a vector.
    """
    if not attends:
        if positions:
            raise InputError("positions=True is for decoders that look at places. Leave it out.")
        return int(source.dim), 0
    have = [level.reduction for level in source.levels]
    if reduction is not None and reduction not in have:
        raise InputError(expected("reduction", f"one of the backbone's {have}", reduction))
    place = len(have) - 1 if reduction is None else have.index(reduction)
    return int(source.levels[place].channels) + 2 * positions, place


def to_grid(features: Any, place: int, *, positions: bool = False) -> tuple[Tensor, tuple[int, int]]:
    """Return the grid `(B, L, C)` and its height and width, from maps or from a vector `(B, C)`.

    With positions every cell also says where it lies: its row and its column, from -1 to 1.
    """
    if isinstance(features, Tensor) and features.ndim == 2:
        return features.unsqueeze(1), (1, 1)
    chosen: Tensor = features[place]
    batch, _, height, width = chosen.shape
    grid = chosen.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h * w, C)
    if positions:
        rows, columns = (torch.linspace(-1, 1, side).to(grid) for side in (height, width))
        where = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).view(1, -1, 2)
        grid = torch.cat((grid, where.expand(batch, -1, -1)), dim=2)
    return grid.contiguous(), (height, width)
