"""What a network has learned, as images: the filters of its first convolution and maps of its layers.

Which layers these are is found by running the network and asking its modules, never by their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import visionkit.tasks
from visionkit.drawing.tiles import resized, tiled, weight_tiles
from visionkit.errors import InputError
from visionkit.interpret.maps import listening

__all__ = [
    "Layers",
    "LevelMaps",
    "activation_parts",
    "build_task",
    "filter_part",
    "find_layers",
    "read_images",
]

TASKS = ("Classifier", "Detector", "Segmenter", "Captioner", "Embedder", "KeypointRegressor")
NUM_FILTERS = 64
NUM_CHANNELS = 8
_FILTER_SIDE, _MAP_SIDE = 42, 64


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
        size = (int(image.shape[-2]), int(image.shape[-1]))
        with torch.inference_mode(), listening(task.backbone, size) as listener:
            task.backbone(task.normalize(image[None]))
        layers.convolution = layers.convolution or listener.convolution
        for reduction, (name, maps) in listener.last.items():
            level = next((each for each in layers.maps if each.reduction == reduction), None)
            if level is None and number == 0:
                level = LevelMaps(reduction, name)
                layers.maps.append(level)
            if level is not None:
                level.maps.append(maps[0].float())
    layers.maps.sort(key=lambda level: level.reduction)
    return layers


def filter_part(convolution: nn.Conv2d, channels: int) -> dict[str, Any]:
    """Return the filters of a convolution as one image with the numbers that belong to it.

    Args:
        convolution: The layer.
        channels: Channels of the image; a layer on others is drawn as the mean over its inputs.
    """
    weight = convolution.weight.detach().float()
    colored = weight.shape[1] == channels == 3
    tiles = weight_tiles(weight, side=_FILTER_SIDE, limit=NUM_FILTERS)
    size = "x".join(map(str, weight.shape[2:]))
    of = f"{len(tiles)} of {len(weight)}" if len(tiles) < len(weight) else f"all {len(weight)}"
    return {
        "title": f"First convolution: {of} filters of {size}",
        "image": tiled(tiles, columns=16),
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
        tiles = [resized(maps[i : i + 1], _MAP_SIDE) for maps in scaled for i in range(len(chosen))]
        height, width = level.maps[0].shape[-2:]
        everything = torch.cat([maps.flatten() for maps in level.maps])
        parts.append(
            {
                "title": f"Reduction {level.reduction}: {count} maps of {height}x{width}",
                "image": tiled(tiles, columns=len(chosen)),
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
