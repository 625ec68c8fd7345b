"""Maps of the layers of any network: which there are, and what they hold for images.

Which layers give maps is found by running the network and asking its modules, never by their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.errors import InputError, nearest, unknown_name

__all__ = [
    "MapListener",
    "find_convolution",
    "find_levels",
    "listening",
    "maps_of",
    "resolve_layer",
    "short_name",
]

_MIN_CELLS = 4  # of a map; smaller ones are vectors
_PREFIX = 8  # tokens before those of the grid


class MapListener:
    """Notes, while a network runs, the maps that its modules give.

    Args:
        names: The modules whose maps are noted; None for the last maps of each reduction.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.names = None if names is None else set(names)
        self.size: tuple[int, int] = (0, 0)
        self.grid: tuple[int, int] | None = None
        self.maps: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}  # of the named modules, as they are
        self.last: dict[int, tuple[str, Tensor]] = {}  # of each reduction: the module, and a copy of its maps
        self.convolution: nn.Conv2d | None = None

    def hook(self, name: str) -> Any:
        """Return the forward hook of a module.

        Args:
            name: Of the module.
        """

        def note(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(module, nn.Conv2d) and self.convolution is None:
                self.convolution = module
            if not isinstance(output, Tensor):
                return None
            maps = self.as_map(output)
            named = self.names is not None and name in self.names
            if maps is not None and math.prod(maps.shape[-2:]) >= _MIN_CELLS:
                self.grid = (maps.shape[-2], maps.shape[-1])
                reduction = self.reduction(*self.grid)
                if named:
                    self.maps[name] = maps
                elif self.names is None and (name or reduction not in self.last):
                    # a copy: what follows may change it in place
                    self.last[reduction] = (name, maps.detach().clone())
            if not named:
                return None
            self.outputs[name] = output
            return output.clone()  # an activation may change it in place

        return note

    def as_map(self, x: Tensor) -> Tensor | None:
        """Return an output `(B, C, h, w)`, `(B, h, w, C)` or `(B, N, C)` as `(B, C, h, w)`.

        None if it does not keep the grid of the image.

        Args:
            x: The output of a module.
        """
        if x.ndim == 4 and self.reduction(x.shape[2], x.shape[3]):
            return x
        if x.ndim == 4 and self.reduction(x.shape[1], x.shape[2]):
            return x.permute(0, 3, 1, 2)  # (B, h, w, C) -> (B, C, h, w)
        if x.ndim == 3 and self.grid is not None:
            extra = x.shape[1] - math.prod(self.grid)
            if 0 <= extra <= _PREFIX:
                grid: Tensor = x[:, extra:].transpose(1, 2).unflatten(2, self.grid)  # to (B, C, h, w)
                return grid
        return None

    def reduction(self, height: int, width: int) -> int:
        """Return the side of the image divided by that of a map; 0 if the map is not aligned.

        Of the integers that explain both sides within a position, a power of two comes first.

        Args:
            height: Of the map.
            width: Of the map.
        """
        if height < 1 or width < 1 or height > self.size[0]:
            return 0
        nearest_one = round(self.size[0] / height)
        candidates = [each for each in (nearest_one, nearest_one + 1, nearest_one - 1) if each > 0]
        # Padding rounds up, unpadded convolutions round down.
        fitting = [
            each
            for each in candidates
            if max(abs(height - self.size[0] / each), abs(width - self.size[1] / each)) < 1.01
        ]
        return next((each for each in fitting if each & (each - 1) == 0), fitting[0] if fitting else 0)


@contextmanager
def listening(
    network: nn.Module, size: tuple[int, int], names: Sequence[str] | None = None
) -> Iterator[MapListener]:
    """Listen to the modules of a network within a `with` block.

    Args:
        network: Any network.
        size: `(height, width)` of its images.
        names: The modules whose maps are noted; None for the last maps of each reduction.
    """
    listener = MapListener(names)
    listener.size = size
    hooks = [module.register_forward_hook(listener.hook(name)) for name, module in network.named_modules()]
    try:
        yield listener
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def find_levels(network: nn.Module, images: Tensor) -> dict[int, str]:
    """Return the module that gives the last maps of each reduction, fine to coarse.

    Args:
        network: Any network.
        images: `(B, C, H, W)`, as it takes them.
    """
    with listening(network, _sides(images)) as listener:
        network(images)
    return {reduction: name for reduction, (name, _) in sorted(listener.last.items()) if name}


def resolve_layer(network: nn.Module, layer: str | int, images: Tensor) -> str:
    """Return the full name of a layer.

    Args:
        network: Any network.
        layer: A module's name or its end ("layer4.1" for "net.model.layer4.1"); or a reduction (16, or "16"):
            the last maps with that many pixels of the image to a side.
        images: Some `(B, C, H, W)`, as the network takes them, to find the reductions.

    Raises:
        InputError: There is no such layer; the text names the nearest.
    """
    if isinstance(layer, int) or (layer.isdigit() and layer not in dict(network.named_modules())):
        levels = find_levels(network, images)
        if int(layer) not in levels:
            known = ", ".join(f"{reduction} ({short_name(name)})" for reduction, name in levels.items())
            raise InputError(
                f"The network has no maps of reduction {layer}: it has {known or 'none'}. Take one of "
                "them, or the name of a layer."
            )
        return levels[int(layer)]
    names: list[str] = [name for name, _ in network.named_modules() if name]
    if layer in names:
        return layer
    ends = [name for name in names if name.endswith(f".{layer}")]
    shortest = min((name.count(".") for name in ends), default=0)
    ends = [name for name in ends if name.count(".") == shortest]
    if len(ends) > 1:
        multiple = " or ".join(repr(short_name(name)) for name in nearest(str(layer), ends) or ends[:3])
        raise InputError(f"{len(ends)} layers end with {layer!r}. Take a longer name: {multiple}.")
    if not ends:
        raise unknown_name(
            "layer", str(layer), map(short_name, names), hint="`visionkit inspect layers NAME` lists all."
        )
    return ends[0]


def maps_of(
    network: nn.Module,
    images: Tensor,
    names: Sequence[str],
    *,
    run: Callable[[Tensor], Any] | None = None,
) -> tuple[Any, MapListener]:
    """Run a network, and return what it gives and the listener that holds the maps of layers.

    Args:
        network: Any network.
        images: `(B, C, H, W)`, as it takes them.
        names: Full names of the layers, as `resolve_layer` gives them.
        run: What is run on the images and runs the network; the network itself if not given.

    Raises:
        InputError: A layer gives no map of positions.
    """
    with listening(network, _sides(images), names) as listener:
        output = (run or network)(images)
    for name in names:
        if name not in listener.maps:
            raise InputError(
                f"The output of layer {short_name(name)!r} is no map of positions. Take another layer: one "
                "before the pooling, and for small images a finer one."
            )
    return output, listener


def find_convolution(network: nn.Module, images: Tensor) -> nn.Conv2d | None:
    """Return the first two-dimensional convolution that runs; None without one.

    Args:
        network: Any network.
        images: `(B, C, H, W)`, as it takes them.
    """
    with torch.no_grad(), listening(network, _sides(images), []) as listener:
        network(images)
    return listener.convolution


def short_name(name: str) -> str:
    """Return a module's name as the network's authors know it, without the wrappers around it.

    Args:
        name: Its full name.
    """
    for wrapper in ("backbone.", "net.", "model."):
        name = name.removeprefix(wrapper)
    return name


def _sides(images: Tensor) -> tuple[int, int]:
    return (images.shape[-2], images.shape[-1])
