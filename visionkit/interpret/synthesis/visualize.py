"""What a layer, a channel or a class looks for: an image made from noise to which it responds strongly.

Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017; of classes: Simonyan, Vedaldi, Zisserman,
arXiv 1312.6034.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from visionkit.errors import InputError, expected
from visionkit.interpret.attribution.scores import class_score
from visionkit.interpret.maps import short_name
from visionkit.interpret.subject import Subject
from visionkit.interpret.synthesis.frequency_image import Space, image_in
from visionkit.interpret.synthesis.objectives import Objective, layer_names, layer_objective

__all__ = ["Visualization", "visualize"]


@dataclass
class Visualization:
    """The image, and the responses on the way to it.

    Args:
        name: The class, or the layer with its channel.
        image: `(C, H, W)` in [0, 1].
        responses: To the transformed image of each step: a logit of a class; of a layer the mean of the
            channel, or of the squares of all.
    """

    name: str
    image: Tensor
    responses: list[float] = field(default_factory=list)


def visualize(
    subject: Subject,
    *,
    layer: str | int = "",
    channel: int | None = None,
    target: int | str | None = None,
    size: int = 0,
    steps: int = 256,
    rate: float = 0.05,
    space: Space = "frequency",
    jitter: int = 8,
    scale: float = 0.1,
    angle: float = 10.0,
    seed: int = 0,
    progress: Callable[[], object] | None = None,
) -> Visualization:
    """Return an image to which a layer, one of its channels, or a class responds strongly.

    Adam changes an image of noise. Each step shifts, scales and turns it at random, so that only what
    survives that is found.

    Args:
        subject: A backbone, or a run.
        layer: As for `resolve_layer`.
        channel: Of the layer; all if not given.
        target: A class in place of a layer: of a classifier's run, or of a pretrained backbone.
        size: Of the sides, in pixels; that which the network is made for if 0.
        steps: Of Adam.
        rate: Its learning rate.
        space: "frequency", where coarse structure comes first, or "pixels".
        jitter: Maximum shift in pixels.
        scale: Maximum change of the size, as a fraction.
        angle: Maximum turn in degrees.
        seed: Of the noise and the transforms.
        progress: Called after each step.

    Raises:
        InputError: There is no such layer, channel or class, both or neither were given, or a number is out
            of its range.
    """
    if (layer == "") == (target is None):
        raise InputError("Expected a layer, or a target (a class), and not both.")
    if layer == "" and channel is not None:
        raise InputError("Expected a layer with a channel: a target has none.")
    if steps < 1 or rate <= 0 or jitter < 0 or not 0 <= scale < 1 or angle < 0:
        raise InputError(
            "Expected steps of at least 1, rate above 0, jitter and angle of at least 0, and scale in 0 to 1."
        )
    generator = torch.Generator().manual_seed(seed)
    made = image_in(space, subject.channels, _sides(subject, size), generator)
    name, objective = _objective(subject, layer, channel, target, made().detach())
    result = Visualization(name, made().detach()[0])
    optimizer = torch.optim.Adam(made.parameters(), lr=rate)
    with torch.enable_grad():
        for _ in range(steps):
            moved = _transformed(made(), jitter, scale, angle, generator)
            value = objective(subject.inputs(moved[0]))
            optimizer.zero_grad()
            (-value).backward()
            optimizer.step()
            result.responses.append(float(value.detach()))
            if progress is not None:
                progress()
    result.image = made().detach()[0]
    return result


def _sides(subject: Subject, size: int) -> tuple[int, int]:
    if size < 0:
        raise InputError(expected("size", "1 or more", size))
    height, width = subject.image_size
    blank = torch.zeros(subject.channels, size or height, size or width)
    fitted = subject.fit(blank, max(blank.shape[-2:]) if size else 0)
    return (fitted.shape[-2], fitted.shape[-1])


def _objective(
    subject: Subject, layer: str | int, channel: int | None, target: int | str | None, image: Tensor
) -> tuple[str, Objective]:
    inputs = subject.inputs(image[0])
    if target is not None:
        score = class_score(subject, inputs, target=target)
        return score.name, lambda images: score.of(images).sum()
    name = layer_names(subject, [layer], inputs)[0]
    objective = layer_objective(subject, name, channel=channel)
    shown = short_name(name)
    return (shown if channel is None else f"{shown}, channel {channel}"), objective


def _transformed(
    images: Tensor, jitter: int, scale: float, angle: float, generator: torch.Generator
) -> Tensor:
    """Return images `(B, C, H, W)` shifted, scaled and turned at random, mirrored at their borders."""
    down, across, grown, turned = (2 * torch.rand(4, generator=generator) - 1).tolist()
    height, width = images.shape[-2:]
    factor, radians = 1 + scale * grown, math.radians(angle * turned)
    cos, sin = math.cos(radians) / factor, math.sin(radians) / factor
    # In grid_sample's units each side is 2 long, so that a turn of pixels depends on the ratio of the sides.
    matrix = [
        [cos, -sin * height / width, 2 * jitter * across / width],
        [sin * width / height, cos, 2 * jitter * down / height],
    ]
    grid = F.affine_grid(torch.tensor([matrix]), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
