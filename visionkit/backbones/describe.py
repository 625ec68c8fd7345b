"""`describe_backbone`: levels, sizes, statistics and weights of a backbone, without building it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from visionkit.backbones.level import Level
from visionkit.backbones.probe import output_strides, probe_model
from visionkit.backbones.registry import resolve
from visionkit.backbones.sources.base import ModelSpec, Size

__all__ = ["Description", "describe_backbone"]


@dataclass(frozen=True)
class Description:
    """Properties of a backbone, known without building it.

    Args:
        name: The backbone.
        levels: The feature maps it can give, fine to coarse; none when no map is aligned with the image.
        parameters: Number of parameters, with the classifier.
        input_size: Height and width of the images that its weights were trained or tested on.
        image_sizes: Image sizes that it takes, as text.
        mean: Mean per channel that images in [0, 1] are normalised by.
        std: Deviation per channel.
        norms: Kinds of norm layers in it.
        norm_policies: Valid values of `norm`, for "scratch" and "pretrained".
        output_strides: Valid values of `output_stride`.
        tags: Names of its pretrained weights, the default first.
        tag: The weights that `init="pretrained"` loads.
        training_data: Data set that those weights were trained on.
        licence: The licence of those weights, as far as the source documents it.
        pretrained: Whether there are pretrained weights at all.
        weights_here: Whether they are on this machine, so that no hub is needed.
        weights_path: Path of their file.
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
    """Describe a backbone without weights, without network access and (nearly) without memory.

    Args:
        name: As for `create_backbone`.

    Raises:
        InputError: There is no such name; the text has the nearest.
    """
    source, spec = resolve(name, ModelSpec(""))
    pretrained_cfg, model_info = source.pretrained_cfg(spec), probe_model(source, spec)
    batch = "batch" in model_info.norms
    anything = ("batch", "frozen", "sync", "group")
    policies: dict[str, tuple[str, ...]] = {
        "scratch": ("batch", "sync", "group") if batch else anything,
        "pretrained": ("batch", "frozen", "sync") if batch else anything,
    }
    if model_info.fixed_size is not None:
        sizes = f"{model_info.fixed_size[0]}x{model_info.fixed_size[1]} only"
    else:
        sizes = (
            "any"
            if model_info.size_divisor == 1
            else f"sides that are multiples of {model_info.size_divisor} (maps: any, padded)"
        )
    return Description(
        name=name,
        levels=tuple(node.level for node in model_info.nodes),
        parameters=model_info.parameters,
        input_size=pretrained_cfg.input_size,
        image_sizes=sizes,
        mean=pretrained_cfg.mean,
        std=pretrained_cfg.std,
        norms=model_info.norms,
        norm_policies=policies,
        output_strides=output_strides(source, spec),
        tags=pretrained_cfg.tags,
        tag=pretrained_cfg.info.tag,
        training_data=pretrained_cfg.info.training_data,
        licence=pretrained_cfg.info.licence,
        pretrained=pretrained_cfg.info.trained,
        weights_here=bool(pretrained_cfg.local_weights),
        weights_path=pretrained_cfg.local_weights,
    )
