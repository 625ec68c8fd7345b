"""Maps of named layers of a network for images that gradients change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from visionkit.errors import InputError
from visionkit.interpret.maps import find_levels, listening, resolve_layer
from visionkit.interpret.subject import Subject

__all__ = ["default_layers", "layer_names", "maps_of"]


def layer_names(subject: Subject, layers: Sequence[str | int], inputs: Tensor) -> list[str]:
    """Return the full names of layers.

    Args:
        subject: The network.
        layers: As for `resolve_layer`.
        inputs: Normalised images that it takes.
    """
    return [resolve_layer(subject.network, layer, inputs) for layer in layers]


def default_layers(subject: Subject, inputs: Tensor) -> list[str]:
    """Return the last layer of each reduction up to 16, fine to coarse.

    Args:
        subject: The network.
        inputs: Normalised images that it takes.

    Raises:
        InputError: The network has no maps.
    """
    levels = find_levels(subject.network, inputs)
    names = [name for reduction, name in levels.items() if reduction < 24]
    if not names:
        raise InputError(f"{subject.name!r} has no maps of a reduction up to 16. Name its layers.")
    return names


def maps_of(subject: Subject, inputs: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
    """Return the maps `(B, C, h, w)` of layers, with their gradient.

    Args:
        subject: The network.
        inputs: Normalised images `(B, C, H, W)`.
        names: Full names of the layers.

    Raises:
        InputError: A layer gives no map of positions.
    """
    size = (inputs.shape[-2], inputs.shape[-1])
    with torch.enable_grad(), listening(subject.network, size, names) as listener:
        subject.network(inputs)
    for name in names:
        if name not in listener.maps or listener.maps[name].ndim != 4:
            raise InputError(f"The output of layer {name!r} is no map of positions. Take another layer.")
    return listener.maps
