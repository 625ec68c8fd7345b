"""DeepDream: an image changed so that a layer responds more strongly to it.

Mordvintsev, Olah, Tyka: Inceptionism: Going Deeper into Neural Networks, Google Research Blog 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visionkit.errors import InputError, expected
from visionkit.interpret.maps import maps_of
from visionkit.interpret.subject import Subject
from visionkit.interpret.synthesis.objectives import Objective, layer_names, layer_objective

__all__ = ["DreamResult", "dream"]

_MIN_SIDE = 48  # pixels of the smallest octave


@dataclass
class DreamResult:
    """The image, and the sizes on the way to it.

    Args:
        image: `(C, H, W)` in [0, 1].
        sizes: `(height, width)` of each octave, small to large.
        left_out: Octaves below 48 pixels, or at which the layer has no map.
        layer: The layer's full name.
    """

    image: Tensor
    sizes: list[tuple[int, int]]
    left_out: list[tuple[int, int]]
    layer: str


def dream(
    subject: Subject,
    image: Tensor,
    *,
    layer: str | int,
    channel: int | None = None,
    guide: Tensor | None = None,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    rate: float = 0.015,
    jitter: int = 16,
    seed: int = 0,
    progress: Callable[[int], Callable[[], object]] | None = None,
) -> DreamResult:
    """Return an image to which a layer, or one of its channels, responds more strongly.

    From the smallest octave to the size of the image, the gradient of the squared maps is followed, and what
    it added is enlarged for the next octave. Each step shifts the image at random, so that no edge of a grid
    shows.

    Args:
        subject: A backbone, or a run.
        image: `(C, H, W)` in [0, 1], of the size of the result.
        layer: As for `resolve_layer`.
        channel: The channel; all if not given.
        guide: An image `(C, h, w)` in [0, 1] whose features are strengthened where they are alike (the maps'
            products with the guide's, the best at each position), in place of the layer's own.
        octaves: Sizes; those below 48 pixels, or at which the layer has no map, are left out, and the result
            names them.
        octave_scale: Ratio of one size to the next.
        steps: Of each size.
        rate: Change of the image by one step, in units of its range, on average.
        jitter: Maximum shift in pixels.
        seed: Of the shifts.
        progress: Called with the number of steps; what it returns is called after each.

    Raises:
        InputError: There is no such layer or channel, or a number is out of its range.
    """
    for name, value in (("octaves", octaves), ("steps", steps)):
        if value < 1:
            raise InputError(expected(name, "at least 1", value))
    if octave_scale <= 1 or rate <= 0 or jitter < 0:
        raise InputError("Expected octave_scale above 1, rate above 0 and jitter of at least 0.")
    if getattr(subject.network, "fixed_size", None):
        octaves = 1
    generator = torch.Generator().manual_seed(seed)
    name = layer_names(subject, [layer], subject.inputs(image))[0]
    objective = layer_objective(subject, name, channel=channel, guide=guide)
    sizes = _sizes(subject, image, octaves, octave_scale)
    used = [size for size in sizes[:-1] if _has_map(subject, image, name, size)] + sizes[-1:]
    result = DreamResult(image, used, [size for size in sizes if size not in used], name)
    advance = progress(steps * len(used)) if progress is not None else None
    detail = torch.zeros(1, image.shape[0], *used[0])
    for size in used:
        base = _resized(image[None], size)
        detail = _resized(detail, size)
        current = (base + detail).clamp(0, 1)
        for _ in range(steps):
            current = _step(subject, objective, current, rate, jitter, generator)
            if advance is not None:
                advance()
        detail = current - base
    result.image = current[0]
    return result


def _step(
    subject: Subject,
    objective: Objective,
    current: Tensor,
    rate: float,
    jitter: int,
    generator: torch.Generator,
) -> Tensor:
    down, across = (torch.randint(-jitter, jitter + 1, (2,), generator=generator)).tolist()
    shifted = current.roll((down, across), (2, 3)).requires_grad_()
    with torch.enable_grad():
        gradient = torch.autograd.grad(objective(subject.inputs(shifted[0])), shifted)[0]
    change = rate * gradient / gradient.abs().mean().clamp_min(1e-12)
    return (shifted.detach() + change).roll((-down, -across), (2, 3)).clamp(0, 1)


def _has_map(subject: Subject, image: Tensor, name: str, size: tuple[int, int]) -> bool:
    if min(size) < _MIN_SIDE:
        return False
    try:
        with torch.no_grad():
            maps_of(subject.network, subject.inputs(_resized(image[None], size)[0]), [name])
    except (InputError, RuntimeError):  # torch's of a filter that is larger than its input
        return False
    return True


def _sizes(subject: Subject, image: Tensor, octaves: int, scale: float) -> list[tuple[int, int]]:
    """Return `(height, width)` of each octave, small to large, each once."""
    height, width = image.shape[-2:]
    sizes = [(round(height / scale**i), round(width / scale**i)) for i in reversed(range(octaves))]
    return list(dict.fromkeys(subject.allowed_size(*size) for size in sizes))


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
