"""Saying what a backbone is before it is built."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from visionkit.backbones.level import Level
from visionkit.backbones.probe import make_plan, output_strides
from visionkit.backbones.registry import resolve
from visionkit.backbones.sources.base import Request, Size

__all__ = ["Description", "describe_backbone"]


@dataclass(frozen=True)
class Description:
    """A backbone before it is built.

    Args:
        name: The backbone.
        levels: The maps it can give, fine to coarse; none when no map is aligned with the image.
        parameters: Number of parameters, with the classifier.
        input_size: Height and width of the images that its weights were trained or tested on.
        image_sizes: Which sizes it takes, in words.
        mean: Mean per channel that images in [0, 1] are normalised by.
        std: Deviation per channel.
        norms: Kinds of norms in it.
        norm_policies: What `norm` may be, from scratch and with trained weights.
        output_strides: What `output_stride` may be.
        tags: Its trainings, the default first.
        tag: The training that `init="pretrained"` takes.
        training_data: What those weights were trained on.
        licence: The licence of those weights, as far as the source says.
        pretrained: Whether there are pretrained weights at all.
        weights_here: Whether they are on this machine, so that no hub is needed.
        weights_path: Where they are.
    """

    name: str
    levels: tuple[Level, ...]
    parameters: int
    input_size: Size
    image_sizes: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    norms: tuple[str, ...]
    norm_policies: dict[str, tuple[str, ...]]
    output_strides: tuple[int, ...]
    tags: tuple[str, ...]
    tag: str
    training_data: str
    licence: str
    pretrained: bool
    weights_here: bool
    weights_path: str

    def as_dict(self) -> dict[str, Any]:
        """Return the description as plain dicts, lists and numbers."""
        return asdict(self)


def describe_backbone(name: str) -> Description:
    """Describe a backbone without weights, without a network and (nearly) without memory.

    Args:
        name: As for `create_backbone`.

    Raises:
        InputError: There is no such name; the text has the nearest.
    """
    source, request = resolve(name, Request(""))
    card, plan = source.card(request), make_plan(source, request)
    batch = "batch" in plan.norms
    anything = ("batch", "frozen", "sync", "group")
    policies: dict[str, tuple[str, ...]] = {
        "scratch": ("batch", "sync", "group") if batch else anything,
        "pretrained": ("batch", "frozen", "sync") if batch else anything,
    }
    if plan.fixed_size is not None:
        sizes = f"{plan.fixed_size[0]}x{plan.fixed_size[1]} only"
    else:
        sizes = "any" if plan.step == 1 else f"sides that are multiples of {plan.step} (maps: any, padded)"
    return Description(
        name=name,
        levels=tuple(tap.level for tap in plan.taps),
        parameters=plan.parameters,
        input_size=card.input_size,
        image_sizes=sizes,
        mean=card.mean,
        std=card.std,
        norms=plan.norms,
        norm_policies=policies,
        output_strides=output_strides(source, request),
        tags=card.tags,
        tag=card.info.tag,
        training_data=card.info.training_data,
        licence=card.info.licence,
        pretrained=card.info.trained,
        weights_here=bool(card.local_weights),
        weights_path=card.local_weights,
    )
