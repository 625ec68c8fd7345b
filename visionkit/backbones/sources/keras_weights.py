"""Weights of Keras files as state dicts of torchvision's networks, read by h5py.

Both files come from Caffe's training: they take blue, green and red, in that order, from 0 to 255, minus the
mean of each. `for_rgb` puts that into the first convolution, so that the network takes RGB in [0, 1],
normalised by `MEAN` and `STD`; both inits of a comparison then begin from images of one scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionkit.backbones.sources.torchvision import IMAGENET_STD
from visionkit.errors import InputError

__all__ = ["MEAN", "STD", "for_rgb", "read_squeezenet1_1", "read_vgg16"]

_BGR_MEAN = (104.007, 116.669, 122.679)
MEAN = tuple(value / 255 for value in reversed(_BGR_MEAN))
"""Mean of red, green and blue."""

STD = IMAGENET_STD
"""Standard deviation of red, green and blue: torchvision's, since Caffe divided by nothing."""

_FIRE = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
_FIRE_POSITIONS = (3, 4, 6, 7, 9, 10, 11, 12)  # of fire2 to fire9 in torchvision's `features`
_VGG_POSITIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # of the five blocks


def read_squeezenet1_1(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict of `torchvision.models.squeezenet1_1` from a file of Keras 1.

    Args:
        path: The file.

    Raises:
        InputError: The file is damaged or holds another network, or h5py is not installed.
    """
    layers = {"conv1": "features.0", "conv10": "classifier.1"}
    for number, position in enumerate(_FIRE_POSITIONS, start=2):
        layers |= {f"fire{number}/{k}": f"features.{position}.{v}" for k, v in _FIRE.items()}
    names = {
        f"{old}/{old}_{part}:0": f"{new}.{leaf}"
        for old, new in layers.items()
        for part, leaf in _leaves("Wb")
    }
    return for_rgb(_read(path, names), "features.0.weight")


def read_vgg16(path: str | Path) -> dict[str, Tensor]:
    """Return the convolutions of `torchvision.models.vgg16` from a file of Keras 3; it has no classifier.

    Args:
        path: The file.

    Raises:
        InputError: The file is damaged or holds another network, or h5py is not installed.
    """
    names: dict[str, str] = {}
    for block, positions in enumerate(_VGG_POSITIONS, start=1):
        for index, position in enumerate(positions):
            layer = f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"
            names |= {f"{layer}/{part}": f"features.{position}.{leaf}" for part, leaf in _leaves("01")}
    return for_rgb(_read(path, names), "features.0.weight")


def for_rgb(state: dict[str, Tensor], first: str) -> dict[str, Tensor]:
    """Return weights that take normalised RGB from those that take centred BGR of 0 to 255.

    A pixel `x` in [0, 1] was given as `255 * (x - MEAN)`, and is given as `(x - MEAN) / STD` from now on.

    Args:
        state: State dict.
        first: Name of the first convolution's weight, `(out, 3, h, w)`.
    """
    scale = 255 * torch.tensor(STD, dtype=torch.float64).view(1, 3, 1, 1)
    return state | {first: (state[first].flip(1).double() * scale).float()}


def _leaves(parts: str) -> Iterator[tuple[str, str]]:
    return zip(parts, ("weight", "bias"), strict=True)


def _read(path: str | Path, names: dict[str, str]) -> dict[str, Tensor]:
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path}: This weights file needs h5py. Run: pip install h5py") from None
    try:
        with h5py.File(path) as file:
            return {new: _as_torch(file[old]) for old, new in names.items()}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: Expected the layers of a Keras file, but it is damaged ({error})."
        ) from error


def _as_torch(dataset: Any) -> Tensor:
    values = torch.from_numpy(np.asarray(dataset, dtype=np.float32))
    return values.permute(3, 2, 0, 1).contiguous() if values.ndim == 4 else values  # HWIO -> OIHW
