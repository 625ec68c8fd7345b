"""What a network has learned, as images: the filters of its first convolution and maps of its layers.

Which layers these are is found by running the network and asking its modules, never by their names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import visionkit.tasks
from visionkit.errors import InputError

__all__ = [
    "Layers",
    "LevelMaps",
    "activation_parts",
    "build_task",
    "filter_part",
    "find_layers",
    "read_images",
]

TASKS = ("Classifier", "Detector", "Segmenter", "Captioner", "Embedder")
NUM_FILTERS = 64
NUM_CHANNELS = 8
_FILTER_SIDE, _MAP_SIDE, _GAP = 42, 64, 2
_MIN_CELLS = 4  # of a map; smaller ones are vectors
_PREFIX = 8  # tokens before those of the grid
_PAPER = 128


@dataclass
class LevelMaps:
    """The maps `(C, h, w)` of one reduction, one for each image, and the module that gave them."""

    reduction: int
    module: str
    maps: list[Tensor] = field(default_factory=list)


@dataclass
class Layers:
    """The first convolution of a network, None if it has none, and the last maps of each reduction."""

    convolution: nn.Conv2d | None = None
    maps: list[LevelMaps] = field(default_factory=list)


def build_task(checkpoint: Mapping[str, Any]) -> Any:
    """Return the task that a loaded checkpoint holds, in evaluation mode, on the CPU.

    Args:
        checkpoint: What `load_checkpoint` returned.

    Raises:
        InputError: It is of none of the library's tasks, or its backbone is the user's own module.
    """
    name = (checkpoint.get("visionkit") or {}).get("task")
    if name not in TASKS:
        raise InputError(
            f"Expected a task of visionkit ({', '.join(TASKS)}), but the checkpoint is of "
            f"{name or 'another'}: its network cannot be built here."
        )
    task = getattr(visionkit.tasks, str(name))(**checkpoint["hyper_parameters"])
    task.on_load_checkpoint(dict(checkpoint))
    task.load_state_dict(checkpoint["state_dict"], strict=False)  # state of a loss is not needed
    return task.eval()


def read_images(paths: Sequence[Path], channels: int) -> list[Tensor]:
    """Return PNG images as `(channels, H, W)` in [0, 1]; none where the network takes neither 1 nor 3.

    Args:
        paths: The files; those that are not there are left out.
        channels: Channels that the network takes.
    """
    if channels not in (1, 3):
        return []
    made = []
    for path in paths:
        if path.is_file():
            with Image.open(path) as image:
                array = np.array(image.convert("RGB" if channels == 3 else "L"), dtype=np.float32)
            made.append(torch.from_numpy(array).reshape(*array.shape[:2], channels).permute(2, 0, 1) / 255)
    return made


def find_layers(task: Any, images: Sequence[Tensor]) -> Layers:
    """Run the backbone of a task on images, and return its first convolution and the maps of each reduction.

    Args:
        task: A task of the library.
        images: `(C, H, W)` in [0, 1], each of its own size.
    """
    layers = Layers()
    for number, image in enumerate(images):
        listener = _Listener(image.shape[-2:])
        hooks = [
            module.register_forward_hook(listener.hook(name))
            for name, module in task.backbone.named_modules()
        ]
        try:
            with torch.inference_mode():
                task.backbone(task.normalize(image[None]))
        finally:
            for hook in hooks:
                hook.remove()
        layers.convolution = layers.convolution or listener.convolution
        for reduction, (name, maps) in listener.last.items():
            level = next((each for each in layers.maps if each.reduction == reduction), None)
            if level is None and number == 0:
                level = LevelMaps(reduction, name)
                layers.maps.append(level)
            if level is not None:
                level.maps.append(maps)
    layers.maps.sort(key=lambda level: level.reduction)
    return layers


class _Listener:
    """Notes the first convolution that runs, and the last output of each reduction."""

    def __init__(self, size: Sequence[int]) -> None:
        self.size = (int(size[0]), int(size[1]))
        self.convolution: nn.Conv2d | None = None
        self.grid: tuple[int, int] | None = None
        self.last: dict[int, tuple[str, Tensor]] = {}

    def hook(self, name: str) -> Any:
        def note(module: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(module, nn.Conv2d) and self.convolution is None:
                self.convolution = module
            if isinstance(output, Tensor):
                self._note(name, output)

        return note

    def _note(self, name: str, output: Tensor) -> None:
        maps = self._as_map(output)
        if maps is None:
            return
        height, width = maps.shape[-2:]
        if height * width >= _MIN_CELLS:
            reduction = self._reduction(height, width)
            self.grid = (height, width)
            self.last[reduction] = (name, maps.detach().float().clone())

    def _as_map(self, x: Tensor) -> Tensor | None:
        """Return an output of a layer as `(C, h, w)`, None if it does not keep the grid of the image."""
        if x.ndim == 4 and self._reduction(x.shape[2], x.shape[3]):
            return x[0]
        if x.ndim == 4 and self._reduction(x.shape[1], x.shape[2]):
            return x[0].permute(2, 0, 1)  # (h, w, C) -> (C, h, w)
        if x.ndim == 3 and self.grid is not None:
            extra = x.shape[1] - math.prod(self.grid)
            if 0 <= extra <= _PREFIX:
                maps: Tensor = x[0, extra:].T.unflatten(1, self.grid)  # (N, C) -> (C, h, w)
                return maps
        return None

    def _reduction(self, height: int, width: int) -> int:
        """Return the side of the image divided by that of a map, rounded; 0 if the map is not aligned."""
        if height < 1 or width < 1 or height > self.size[0]:
            return 0
        reduction = round(self.size[0] / height)
        # Padding rounds up, unpadded convolutions round down.
        down = abs(height - self.size[0] / reduction) < 1.01
        across = abs(width - self.size[1] / reduction) < 1.01
        return reduction if down and across else 0


def filter_part(convolution: nn.Conv2d, channels: int) -> dict[str, Any]:
    """Return the filters of a convolution as one image with the numbers that belong to it.

    Args:
        convolution: The layer.
        channels: Channels of the image; a layer on others is drawn as the mean over its inputs.
    """
    weight = convolution.weight.detach().float()
    colored = weight.shape[1] == channels == 3
    shown = weight[:NUM_FILTERS] if colored else weight[:NUM_FILTERS].mean(1, keepdim=True)
    largest = shown.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    tiles = [_resized(tile, _FILTER_SIDE) for tile in (shown / largest + 1) / 2]
    size = "x".join(map(str, weight.shape[2:]))
    of = f"{len(tiles)} of {len(weight)}" if len(tiles) < len(weight) else f"all {len(weight)}"
    return {
        "title": f"First convolution: {of} filters of {size}",
        "image": _tiled(tiles, columns=16),
        "rows": {"filters": len(weight), "inputs": weight.shape[1], "size": size, **_numbers(weight)},
        "about": ("Each is scaled to its own largest weight; grey is zero." if colored else
                  "Each is the mean over its inputs, scaled to its own largest weight; grey is zero."),
    }  # fmt: skip


def activation_parts(levels: Sequence[LevelMaps]) -> list[dict[str, Any]]:
    """Return one image for each reduction: a row for each input, a column for each of a few channels.

    Args:
        levels: The maps, fine to coarse.
    """
    parts = []
    for level in levels:
        count = level.maps[0].shape[0]
        chosen = sorted({round(i * (count - 1) / max(1, NUM_CHANNELS - 1)) for i in range(NUM_CHANNELS)})
        drawn = [maps[chosen] for maps in level.maps]
        low = torch.stack([maps.amin((1, 2)) for maps in drawn]).amin(0)[:, None, None]
        high = torch.stack([maps.amax((1, 2)) for maps in drawn]).amax(0)[:, None, None]
        scaled = [(maps - low) / (high - low).clamp_min(1e-12) for maps in drawn]
        tiles = [_resized(maps[i : i + 1], _MAP_SIDE) for maps in scaled for i in range(len(chosen))]
        height, width = level.maps[0].shape[-2:]
        everything = torch.cat([maps.flatten() for maps in level.maps])
        parts.append(
            {
                "title": f"Reduction {level.reduction}: {count} maps of {height}x{width}",
                "image": _tiled(tiles, columns=len(chosen)),
                "rows": {
                    "layer": level.module or "backbone",
                    "channels shown": ", ".join(map(str, chosen)),
                    **_numbers(everything),
                    "zeros": f"{100 * float((everything == 0).float().mean()):.1f}%",
                },
                "about": "A row for each image, a column for each channel shown; black is a channel's lowest "
                "value over these images, white its highest.",
            }
        )
    return parts


def _numbers(values: Tensor) -> dict[str, str]:
    names = {"min": values.min(), "mean": values.mean(), "max": values.max(), "std": values.std()}
    return {name: f"{float(value):.4g}" for name, value in names.items()}


def _resized(tile: Tensor, side: int) -> Tensor:
    """Return `(C, h, w)` in [0, 1] as uint8 of which the longer side is near `side`, pixels kept square."""
    scale = side / max(tile.shape[-2:])
    size = [max(1, round(n * scale)) for n in tile.shape[-2:]]
    grown = nn.functional.interpolate(tile[None].clamp(0, 1), size=size, mode="nearest-exact")[0]
    return (grown * 255).round().to(torch.uint8)


def _tiled(tiles: Sequence[Tensor], *, columns: int) -> Image.Image:
    """Return tiles `(C, h, w)` side by side on grey, row by row."""
    columns = min(columns, len(tiles))
    height = max(tile.shape[1] for tile in tiles) + _GAP
    width = max(tile.shape[2] for tile in tiles) + _GAP
    channels = max(tile.shape[0] for tile in tiles)
    rows = math.ceil(len(tiles) / columns)
    canvas = torch.full((channels, rows * height, columns * width), _PAPER, dtype=torch.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * height, number % columns * width
        canvas[:, top : top + tile.shape[1], left : left + tile.shape[2]] = tile
    array = canvas.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array if channels == 3 else array[..., 0])
