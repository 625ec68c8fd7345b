"""Style transfer: the content of one image with the style of another.

Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016. Colours, regions
and scales: Gatys et al.: Controlling Perceptual Factors in Neural Style Transfer, CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from visionkit.errors import InputError, expected, unknown_name
from visionkit.interpret.subject import Subject
from visionkit.interpret.synthesis.colors import luminance, match_colors, match_luminance, with_colors
from visionkit.interpret.synthesis.objectives import default_layers, layer_names
from visionkit.interpret.synthesis.style_losses import Style, StyleLosses

__all__ = ["Colors", "StyleResult", "mix_styles", "transfer_style"]

Colors = Literal["style", "histogram", "luminance"]
"""Whose colours: the style's; the content's, by mean and covariance, or by a transfer of luminance."""


@dataclass
class StyleResult:
    """The image, and the losses on the way to it.

    Args:
        image: `(3, H, W)` in [0, 1].
        content: Content loss before the first step and after each.
        style: Style loss (of Gram matrices), likewise.
        layers: The layers of the style.
        content_layer: The layer of the content.
    """

    image: Tensor
    content: list[float] = field(default_factory=list)
    style: list[float] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    content_layer: str = ""


def transfer_style(
    subject: Subject,
    content: Tensor,
    style: Tensor | Sequence[Style | Tensor],
    *,
    layers: Sequence[str | int] = (),
    layer_weights: Sequence[float] = (),
    content_layer: str | int = "",
    content_weight: float = 1.0,
    style_weight: float = 1e3,
    smooth_weight: float = 1e-2,
    steps: int = 100,
    start: Literal["content", "noise"] = "content",
    colors: Colors = "style",
    seed: int = 0,
    progress: Callable[[], object] | None = None,
) -> StyleResult:
    """Return the content of one image in the style of another, by L-BFGS on the pixels.

    The losses are those of `StyleLosses`, whose weights mean the same in any network.

    Args:
        subject: A backbone, or a run.
        content: `(3, H, W)` in [0, 1], of the size of the result.
        style: `(3, h, w)` in [0, 1]; or several, perhaps with the regions that each is for.
        layers: Of the style, as for `resolve_layer`; the last of each reduction up to 16 if not given.
        layer_weights: One for each layer; equal if not given.
        content_layer: Of the content; the last but one of the style's layers if not given.
        content_weight: Of the content loss.
        style_weight: Of the style loss.
        smooth_weight: Of the total variation.
        steps: Iterations of L-BFGS.
        start: "content", or "noise".
        colors: Whose.
        seed: Of the noise.
        progress: Called after each step.

    Raises:
        InputError: There is no such layer, a number is out of its range, a style is no image, the network's
            size is fixed and the images have another, or a region is empty or of another size than its image.
    """
    if colors not in get_args(Colors):
        raise unknown_name("colors", colors, get_args(Colors))
    if start not in ("content", "noise"):
        raise unknown_name("start", start, ("content", "noise"))
    if steps < 1 or min(content_weight, style_weight, smooth_weight) < 0:
        raise InputError("Expected at least one step, and weights of at least 0.")
    inputs = subject.inputs(content)
    names = layer_names(subject, layers, inputs) if layers else default_layers(subject, inputs)
    if layer_weights and len(layer_weights) != len(names):
        raise InputError(
            expected("layer_weights", f"one for each of {len(names)} layers", len(layer_weights))
        )
    own = layer_names(subject, [content_layer] if content_layer != "" else names[-2:][:1], inputs)[0]
    styles = _as_styles(style)
    shown = luminance(content) if colors == "luminance" else content
    painted = [replace(each, image=_colored(each.image, content, colors)) for each in styles]
    losses = StyleLosses(subject, shown, painted, names=names, weights=layer_weights, content_layer=own)
    image = shown.clone()
    if start == "noise":
        image = torch.rand(content.shape, generator=torch.Generator().manual_seed(seed))
    result = StyleResult(image, layers=names, content_layer=own)
    _optimize(result, losses, (content_weight, style_weight, smooth_weight), steps, progress)
    if colors == "luminance":
        result.image = with_colors(result.image, content)
    return result


def _as_styles(style: Tensor | Sequence[Style | Tensor]) -> list[Style]:
    given: list[Any] = [style] if isinstance(style, Tensor | Style) else list(style)
    styles = [Style(each) if isinstance(each, Tensor) else each for each in given]
    if not styles:
        raise InputError("Expected at least one style, but got none.")
    for each in styles:
        if not isinstance(each, Style):
            raise InputError(expected("a style", "a tensor (3, h, w) or a Style", type(each).__name__))
        if each.image.ndim != 3:
            raise InputError(expected("the image of a style", "(3, h, w)", tuple(each.image.shape)))
    return styles


def mix_styles(
    subject: Subject,
    coarse: Tensor,
    fine: Tensor,
    *,
    layers: Sequence[str | int] = (),
    steps: int = 100,
    progress: Callable[[], object] | None = None,
) -> StyleResult:
    """Return a style with the shapes of one image and the strokes of another.

    The coarse image is changed until its fine layers fit the other's, without a content loss, which its
    coarse layers survive.

    Args:
        subject: A backbone, or a run.
        coarse: `(3, H, W)` in [0, 1].
        fine: `(3, h, w)` in [0, 1].
        layers: The fine layers, as for `resolve_layer`; the last of each reduction up to 4 if not given.
        steps: Iterations of L-BFGS.
        progress: Called after each step.

    Raises:
        InputError: There is no such layer.
    """
    if not layers:
        layers = default_layers(subject, subject.inputs(coarse), reduction=4)
    return transfer_style(
        subject, coarse, fine, layers=layers, content_weight=0.0, smooth_weight=0.0, steps=steps,
        progress=progress,
    )  # fmt: skip


def _colored(style: Tensor, content: Tensor, colors: Colors) -> Tensor:
    if colors == "histogram":
        return match_colors(style, content)
    return match_luminance(style, content) if colors == "luminance" else style


def _optimize(
    result: StyleResult,
    losses: StyleLosses,
    weights: tuple[float, float, float],
    steps: int,
    progress: Callable[[], object] | None,
) -> None:
    pixels = result.image.detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([pixels], lr=1.0, max_iter=1, history_size=20)
    latest = (0.0, 0.0)

    def closure() -> Tensor:
        nonlocal latest
        optimizer.zero_grad()
        content, style = losses(pixels)
        down, across = pixels.diff(dim=1).square().mean(), pixels.diff(dim=2).square().mean()
        total = weights[0] * content + weights[1] * style + weights[2] * (down + across)
        total.backward()
        latest = (float(content.detach()), float(style.detach()))
        return total

    for _ in range(steps):
        optimizer.step(closure)
        result.content.append(latest[0])
        result.style.append(latest[1])
        if progress is not None:
            progress()
    with torch.no_grad():
        result.image = pixels.detach().clamp(0, 1)
        content, style = losses(result.image)
        result.content.append(float(content))
        result.style.append(float(style))
