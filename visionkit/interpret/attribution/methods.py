"""Saliency, integrated gradients and Grad-CAM of any score; occlusion, which needs no gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.errors import InputError, expected
from visionkit.interpret.maps import maps_of, resolve_layer

__all__ = ["grad_cam", "integrated_gradients", "occlusion", "saliency"]

ScoreFunction = Callable[[Tensor], Tensor]


def saliency(score: ScoreFunction, inputs: Tensor) -> Tensor:
    """Return the absolute gradient of a score by pixel, the largest of the channels, `(B, H, W)`.

    Simonyan, Vedaldi, Zisserman, arXiv 1312.6034.

    Args:
        score: Normalised images `(B, C, H, W)` to values `(B,)`.
        inputs: Normalised images.
    """
    return _gradient(score, inputs).abs().amax(1)


def integrated_gradients(
    score: ScoreFunction,
    inputs: Tensor,
    *,
    baseline: Tensor | None = None,
    steps: int = 50,
    batch_size: int = 8,
) -> Tensor:
    """Return what each pixel and channel adds to a score, `(B, C, H, W)`; the sum is the score's difference.

    The gradient's mean on the way from a baseline, by the trapezoid rule, times the way. Sundararajan, Taly,
    Yan, arXiv 1703.01365.

    Args:
        score: Normalised images `(B, C, H, W)` to values `(B,)`.
        inputs: Normalised images.
        baseline: Where the way begins; the mean of the training images (zeros) if not given.
        steps: Points on the way, both ends included.
        batch_size: Points at once.

    Raises:
        InputError: There are fewer than two points.
    """
    if steps < 2:
        raise InputError(expected("steps", "at least 2", steps))
    begin = torch.zeros_like(inputs) if baseline is None else baseline.expand_as(inputs)
    way = torch.linspace(0, 1, steps, dtype=inputs.dtype, device=inputs.device)
    weights = torch.full_like(way, 1 / (steps - 1))
    weights[0] = weights[-1] = 0.5 / (steps - 1)
    total = torch.zeros_like(inputs)
    for index in range(len(inputs)):
        image, start = inputs[index : index + 1], begin[index : index + 1]
        for part, weight in zip(way.split(batch_size), weights.split(batch_size)):
            gradient = _gradient(score, start + part.view(-1, 1, 1, 1) * (image - start))
            total[index] += (gradient * weight.view(-1, 1, 1, 1)).sum(0)
    return total * (inputs - begin)


def grad_cam(network: nn.Module, score: ScoreFunction, inputs: Tensor, *, layer: str | int) -> Tensor:
    """Return the heat map of a layer for a score, as large as the images, `(B, H, W)`, at least 0.

    The layer's maps, each weighted by the mean of its gradient. Selvaraju et al., arXiv 1610.02391.

    Args:
        network: What the score runs.
        score: Normalised images `(B, C, H, W)` to values `(B,)`.
        inputs: Normalised images.
        layer: As for `resolve_layer`; usually the last before the pooling.

    Raises:
        InputError: There is no such layer, or its output is no map.
    """
    name = resolve_layer(network, layer, inputs)
    images = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        values, listener = maps_of(network, images, [name], run=score)
        maps = listener.maps[name]
        gradient = torch.autograd.grad(values.sum(), listener.outputs[name])[0]
    listener.grid = (maps.shape[-2], maps.shape[-1])
    gradients = listener.as_map(gradient)
    if gradients is None or len(maps) != len(inputs):
        raise InputError(f"The output of layer {layer!r} is no map of each image. Take another layer.")
    heat = (maps * gradients.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
    grown: Tensor = F.interpolate(heat, inputs.shape[-2:], mode="bilinear", align_corners=False)
    return grown[:, 0].detach()


@torch.no_grad()
def occlusion(
    score: ScoreFunction, inputs: Tensor, *, side: int, stride: int = 0, batch_size: int = 16
) -> Tensor:
    """Return by how much a score falls where a square hides a pixel, `(B, H, W)`.

    Each pixel gets the mean over the squares that hide it. Zeiler, Fergus, arXiv 1311.2901.

    Args:
        score: Normalised images `(B, C, H, W)` to values `(B,)`.
        inputs: Normalised images.
        side: Of the square, which is of the training images' mean (zeros).
        stride: From one square to the next; half a side if not given.
        batch_size: Squares at once.

    Raises:
        InputError: The square is larger than the image.
    """
    height, width = inputs.shape[-2:]
    if not 1 <= side <= min(height, width):
        raise InputError(expected("side", f"1 to {min(height, width)}", side))
    step = stride or max(1, side // 2)
    corners = [(top, left) for top in _starts(height, side, step) for left in _starts(width, side, step)]
    heat, times = torch.zeros(len(inputs), height, width), torch.zeros(height, width)
    for index in range(len(inputs)):
        whole = score(inputs[index : index + 1])
        for begin in range(0, len(corners), batch_size):
            part = corners[begin : begin + batch_size]
            hidden = inputs[index : index + 1].repeat(len(part), 1, 1, 1)
            for image, (top, left) in zip(hidden, part):
                image[:, top : top + side, left : left + side] = 0
            for drop, (top, left) in zip(whole - score(hidden), part):
                heat[index, top : top + side, left : left + side] += drop.cpu()
                times[top : top + side, left : left + side] += index == 0
    return heat / times


def _starts(length: int, side: int, step: int) -> list[int]:
    """Return the first pixels of squares that cover a side, the last at its end."""
    return sorted({*range(0, length - side + 1, step), length - side})


def _gradient(score: ScoreFunction, inputs: Tensor) -> Tensor:
    images = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(score(images).sum(), images)[0]
