"""What is made larger by changing an image: the maps of a layer, a channel, or a class; and which layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from visionkit.errors import InputError, expected
from visionkit.interpret.maps import find_levels, maps_of, resolve_layer
from visionkit.interpret.subject import Subject

__all__ = ["Objective", "default_layers", "layer_names", "layer_objective"]

Objective = Callable[[Tensor], Tensor]
"""Normalised images `(B, C, H, W)` to one value."""


def layer_names(subject: Subject, layers: Sequence[str | int], inputs: Tensor) -> list[str]:
    """Return the full names of layers.

    Args:
        subject: The network.
        layers: As for `resolve_layer`.
        inputs: Normalised images that it takes.
    """
    return [resolve_layer(subject.network, layer, inputs) for layer in layers]


def default_layers(subject: Subject, inputs: Tensor, *, reduction: int = 16) -> list[str]:
    """Return the last layer of each reduction up to one, fine to coarse.

    Args:
        subject: The network.
        inputs: Normalised images that it takes.
        reduction: The last.

    Raises:
        InputError: The network has no maps.
    """
    levels = find_levels(subject.network, inputs)
    names = [name for each, name in levels.items() if each < 1.5 * reduction]
    if not names:
        raise InputError(f"{subject.name!r} has no maps of a reduction up to {reduction}. Name its layers.")
    return names


def layer_objective(
    subject: Subject, name: str, *, channel: int | None = None, guide: Tensor | None = None
) -> Objective:
    """Return the response of a layer: the mean of a channel or of all squares, or likeness to a guide.

    Args:
        subject: The network.
        name: The layer's full name.
        channel: Of the layer; all if not given.
        guide: An image `(C, h, w)` in [0, 1]; the objective is then the mean product of each position's
            values with those of the guide's position that is most alike.

    Raises:
        InputError: When it is called: there is no such channel, or the layer gives no map.
    """
    features = None
    if guide is not None:
        with torch.no_grad():
            inputs = subject.inputs(guide)
            features = maps_of(subject.network, inputs, [name])[1].maps[name][0].flatten(1)  # (C, n)

    def objective(inputs: Tensor) -> Tensor:
        maps = maps_of(subject.network, inputs, [name])[1].maps[name]
        if channel is not None:
            if not 0 <= channel < maps.shape[1]:
                raise InputError(expected("channel", f"0 to {maps.shape[1] - 1}", channel))
            return maps[:, channel].mean()
        if features is None:
            return maps.square().mean()
        flat = maps[0].flatten(1)  # (C, m)
        best = (flat.detach().T @ features).argmax(1)  # (m,)
        return (flat * features[:, best]).sum() / flat.numel()

    return objective
