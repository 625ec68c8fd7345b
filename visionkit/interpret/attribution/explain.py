"""Heat maps of what a backbone or a run predicts in an image, with how far they name its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from visionkit.config import check_number, limits
from visionkit.errors import InputError, unknown_name
from visionkit.interpret.attribution.curves import PixelCurves, pixel_curves
from visionkit.interpret.attribution.methods import grad_cam, integrated_gradients, occlusion, saliency
from visionkit.interpret.attribution.scores import Score, scores_of
from visionkit.interpret.maps import find_levels, resolve_layer
from visionkit.interpret.subject import Subject

__all__ = ["Explanation", "Method", "explain"]

Method = Literal["gradcam", "saliency", "integrated", "occlusion"]


@dataclass
class Explanation:
    """A heat map of one score.

    Args:
        name: Class, box or word.
        probability: What the model gives it.
        heat: `(H, W)`, at least 0 but for occlusion, where hiding can raise a score.
        curves: Deletion and insertion; None unless they were asked for.
        total: Of how many boxes, areas or words of the image this is one, those beyond the limit included.
    """

    name: str
    probability: float
    heat: Tensor
    curves: PixelCurves | None = None
    total: int = 1


def explain(
    subject: Subject,
    image: Tensor,
    *,
    method: Method = "gradcam",
    layer: str | int = "",
    target: int | str | None = None,
    limit: int = 4,
    min_score: float = 0.5,
    curves: bool = False,
) -> list[Explanation]:
    """Return a heat map of each thing that is predicted in an image.

    Args:
        subject: A backbone with its classifier, or a run of any task.
        image: `(C, H, W)` in [0, 1], as `subject.fit` gives it.
        method: "gradcam", "saliency", "integrated" (gradients) or "occlusion".
        layer: Of Grad-CAM, as for `resolve_layer`; the last of the coarsest maps if not given.
        target: A class; the likeliest, or each of the largest, if not given.
        limit: Boxes, areas or words at most; `Explanation.total` says how many there are.
        min_score: Of boxes.
        curves: Whether to measure deletion and insertion too, which takes 42 forward passes.

    Raises:
        InputError: There is no such method, layer or class, the limit is below 1, or nothing is predicted.
    """
    if method not in get_args(Method):
        raise unknown_name("method", method, get_args(Method))
    check_number("limit", limit, limits(min=1), whole=True)
    if layer != "" and method != "gradcam":
        raise InputError(
            f"Expected a layer with method 'gradcam' alone, but got {layer!r} with {method!r}. Leave layer "
            "out."
        )
    inputs = subject.inputs(image)
    if method == "gradcam":
        layer = _layer(subject, inputs, layer)
    explained = []
    scores, total = scores_of(subject, inputs, target=target, limit=limit, min_score=min_score)
    for score in scores:
        heat = _heat(subject, score, inputs, method, layer)
        measured = pixel_curves(score.probability, inputs, heat) if curves else None
        explained.append(Explanation(score.name, float(score.probability(inputs)[0]), heat, measured, total))
    return explained


def _heat(subject: Subject, score: Score, inputs: Tensor, method: str, layer: str | int) -> Tensor:
    if method == "saliency":
        return saliency(score.of, inputs)[0]
    if method == "integrated":
        return integrated_gradients(score.of, inputs)[0].abs().sum(0)
    if method == "occlusion":
        return occlusion(score.of, inputs, side=max(1, min(inputs.shape[-2:]) // 7))[0]
    return grad_cam(subject.network, score.of, inputs, layer=layer)[0]


def _layer(subject: Subject, inputs: Tensor, layer: str | int) -> str:
    """Return the full name of Grad-CAM's layer, found once for all scores."""
    if layer != "":
        return resolve_layer(subject.network, layer, inputs)
    levels = find_levels(subject.network, inputs)
    if not levels:
        raise InputError(f"{subject.name!r} has no maps, which Grad-CAM needs. Take another method.")
    return levels[max(levels)]
