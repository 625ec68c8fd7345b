"""What the maps of a layer hold for an image, and which images excite a channel most."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from visionkit.drawing.tiles import resized, tiled
from visionkit.errors import InputError, expected
from visionkit.interpret.maps import maps_of, resolve_layer
from visionkit.interpret.subject import Subject

__all__ = ["Excitation", "activation_maps", "activation_sheet", "top_images"]


class Excitation(NamedTuple):
    """An image that excites a channel.

    Args:
        value: The largest value of the channel's map.
        position: Its row and column, as fractions of the image: the middle of the position.
        image: `(C, H, W)` in [0, 1].
        id: Its name.
    """

    value: float
    position: tuple[float, float]
    image: Tensor
    id: str


@torch.no_grad()
def activation_maps(subject: Subject, image: Tensor, *, layer: str | int) -> Tensor:
    """Return the maps `(C, h, w)` of a layer.

    Args:
        subject: A backbone, or a run.
        image: `(C, H, W)` in [0, 1], as `subject.fit` gives it.
        layer: As for `resolve_layer`.

    Raises:
        InputError: There is no such layer, or it gives no map.
    """
    inputs = subject.inputs(image)
    name = resolve_layer(subject.network, layer, inputs)
    return maps_of(subject.network, inputs, [name])[1].maps[name][0]


def activation_sheet(
    subject: Subject, image: Tensor, *, layer: str | int, limit: int = 64, side: int = 64, columns: int = 8
) -> Image.Image:
    """Return the maps of a layer side by side, those with the largest values first; white is a map's largest.

    Args:
        subject: A backbone, or a run.
        image: `(C, H, W)` in [0, 1].
        layer: As for `resolve_layer`.
        limit: At most as many maps.
        side: Of each, in pixels.
        columns: Maps in a row.
    """
    maps = activation_maps(subject, image, layer=layer).float()
    order = maps.amax((1, 2)).argsort(descending=True, stable=True)[:limit]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    scaled = (maps - low) / (high - low).clamp_min(1e-12)
    return tiled([resized(scaled[i : i + 1], side) for i in order.tolist()], columns=columns)


def top_images(
    subject: Subject, images: Iterable[tuple[str, Tensor]], *, layer: str | int, channel: int, count: int = 9
) -> list[Excitation]:
    """Return the images that excite a channel most, the first the most, in memory for `count` of them.

    Args:
        subject: A backbone, or a run.
        images: Names and images `(C, H, W)` in [0, 1], read one at a time.
        layer: As for `resolve_layer`.
        channel: Of the layer.
        count: At most as many.

    Raises:
        InputError: There is no such layer or channel, or there are no images.
    """
    best: list[tuple[float, int, Excitation]] = []
    for number, (name, image) in enumerate(images):
        if number == 0:  # a reduction is found by a pass of its own
            layer = resolve_layer(subject.network, layer, subject.inputs(image))
        maps = activation_maps(subject, image, layer=layer)
        if not 0 <= channel < len(maps):
            raise InputError(expected("channel", f"0 to {len(maps) - 1}", channel))
        height, width = maps.shape[-2:]
        row, column = divmod(int(maps[channel].argmax()), width)
        position = ((row + 0.5) / height, (column + 0.5) / width)
        value = float(maps[channel].amax())
        entry = (value, -number, Excitation(value, position, image, name))
        if len(best) < count:
            heapq.heappush(best, entry)
        else:
            heapq.heappushpop(best, entry)
    if not best:
        raise InputError("Expected at least one image, but got none.")
    return [entry[2] for entry in sorted(best, reverse=True)]
