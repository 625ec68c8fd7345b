"""`create_backbone` and `create_encoder`: networks by name, with pretrained, own or random weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from visionkit.backbones.backbone import Backbone
from visionkit.backbones.channels import adapt_statistics
from visionkit.backbones.encoder import Encoder, PooledLevel
from visionkit.backbones.norms import convert_norms
from visionkit.backbones.probe import choose_nodes, probe_model
from visionkit.backbones.registry import resolve
from visionkit.backbones.sources.base import (
    FeatureNode,
    ModelInfo,
    ModelSpec,
    Size,
    Source,
    sorted_options,
)
from visionkit.backbones.sources.task_weights import complete_state, task_origin
from visionkit.backbones.sources.untrained import untrained_reason
from visionkit.backbones.sources.user import UserSource
from visionkit.backbones.tracing import on_meta_device, run_for_shapes
from visionkit.backbones.weights import WeightsInfo, read_state_dict, split_init
from visionkit.config import NormPolicy
from visionkit.errors import InputError, expected
from visionkit.files import file_digest
from visionkit.types import Init, init_is_path

__all__ = ["assemble_encoder", "create_backbone", "create_encoder"]

_REDUCTIONS = (4, 8, 16, 32)


def create_backbone(
    name: str,
    *,
    init: Init,
    reductions: Sequence[int] = _REDUCTIONS,
    norm: NormPolicy = "batch",
    in_channels: int = 3,
    output_stride: int | None = None,
    image_size: int | Size | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """Create a network that returns feature maps at some reductions.

    Args:
        name: "timm/resnet50", "timm/resnet50.a1_in1k", "torchvision/resnet50", "packaged/efficientnet_lite0",
            or a registered name.
        init: "pretrained", "scratch", other pretrained weights of this architecture by their name
            ("timm/resnet50.tv_in1k"), or the path of weights of this architecture: a file ("FILE#PREFIX"
            where it holds several networks), a run, a folder of runs, or a published folder.
        reductions: Input pixels per map pixel of each map. The deepest map of each reduction is taken.
        norm: What its batch norms become: "batch", "frozen", "sync" or "group".
        in_channels: Channels of the images. Pretrained input layers are summed (one channel) or repeated
            and scaled by 3 / channels.
        output_stride: Coarsest reduction, reached by dilation, where the network can; the default reductions
            are then those up to it.
        image_size: Side, or (height, width), to build a network of fixed image size for.
        options: Further arguments of timm's or torchvision's function, such as `drop_path_rate`.

    Returns:
        A `Backbone`, in training mode.

    Raises:
        InputError: An unknown name, a reduction or option the network does not have, weights that do not fit
            or cannot be fetched.
    """
    source, spec = _model_spec(name, in_channels, output_stride, image_size, options)
    spec, init = _with_tag(source, spec, init)
    model_info = probe_model(source, spec)
    if output_stride is not None:
        coarsest = model_info.reductions[-1] if model_info.nodes else 0
        if coarsest != output_stride:
            raise InputError(
                f"{name!r} keeps its coarsest reduction at {coarsest} for output_stride={output_stride}."
            )
        if tuple(reductions) == _REDUCTIONS:
            reductions = tuple(r for r in reductions if r <= output_stride)
    nodes = choose_nodes(model_info, reductions, name)
    model, info = _model(source, spec, init, nodes)
    net = source.maps(model, nodes, prune=True)
    net = convert_norms(net, norm, trained=info.trained)
    backbone = _backbone(source, spec, net, nodes, model_info, info, name)
    backbone.made_by = {
        "name": name, "reductions": [node.level.reduction for node in nodes], "norm": norm,
        "in_channels": in_channels, "output_stride": output_stride, "image_size": image_size,
        "options": dict(options or {}),
    }  # fmt: skip
    return backbone


def _backbone(
    source: Source,
    spec: ModelSpec,
    net: nn.Module,
    nodes: Sequence[FeatureNode],
    model_info: ModelInfo,
    info: WeightsInfo,
    name: str,
) -> Backbone:
    """Wrap a network, and freeze the layers that no asked level needs: they get no gradient."""
    mean, std = _statistics(source, spec)
    grouping = _stage_nodes(model_info, nodes)
    stage_maps = _StageMaps(source, grouping)
    backbone = Backbone(
        net, nodes, model_info, name=name, mean=mean, std=std, weights=info, stage_maps=stage_maps
    )
    # branches of a level that is not asked for (HRNet), or whose maps are not aligned
    if model_info.unaligned or len(grouping) > len(nodes):
        backbone.freeze_unused()
    return backbone


def create_encoder(
    name: str,
    *,
    init: Init,
    norm: NormPolicy = "batch",
    in_channels: int = 3,
    level: int | None = None,
    image_size: int | Size | None = None,
    options: Mapping[str, Any] | None = None,
) -> Encoder:
    """Create a network that returns one vector per image, with all pretrained layers before the classifier.

    Args:
        name: As for `create_backbone`.
        init: As for `create_backbone`.
        norm: What its batch norms become: "batch", "frozen", "sync" or "group".
        in_channels: Channels of the images.
        level: Average the map of this reduction instead (for a probe of that level).
        image_size: Side, or (height, width), to build a network of fixed image size for.
        options: Further arguments of timm's or torchvision's function, such as `drop_path_rate`.

    Returns:
        An `Encoder`, in training mode.

    Raises:
        InputError: As for `create_backbone`.
    """
    source, spec = _model_spec(name, in_channels, None, image_size, options)
    spec, init = _with_tag(source, spec, init)
    model_info = probe_model(source, spec)
    mean, std = _statistics(source, spec)
    if level is not None:
        nodes = choose_nodes(model_info, (level,), name)
        model, info = _model(source, spec, init, nodes)
        maps = convert_norms(source.maps(model, nodes, prune=True), norm, trained=info.trained)
        stage_maps = _StageMaps(source, _stage_nodes(model_info, nodes))
        encoder = Encoder(
            PooledLevel(_backbone(source, spec, maps, nodes, model_info, info, name)), model_info,
            dim=nodes[0].level.channels, name=name, mean=mean, std=std, weights=info, head=None,
            stage_maps=stage_maps,
        )  # fmt: skip
    else:
        model, info = _model(source, spec, init)
        encoder = assemble_encoder(source, spec, model_info, model, info, name=name, norm=norm)
    encoder.made_by = {
        "name": name, "norm": norm, "in_channels": in_channels, "level": level, "image_size": image_size,
        "options": dict(options or {}),
    }  # fmt: skip
    return encoder


def assemble_encoder(
    source: Source,
    spec: ModelSpec,
    model_info: ModelInfo,
    model: nn.Module,
    info: WeightsInfo,
    *,
    name: str,
    norm: NormPolicy = "batch",
) -> Encoder:
    """Remove the classifier of a full network and wrap the rest as an encoder."""
    mean, std = _statistics(source, spec)
    net, head = source.pooled(model, model_info.traced_size)
    net = convert_norms(net, norm, trained=info.trained)
    dim = int(run_for_shapes(net, model_info.traced_size, spec.in_channels).shape[1])
    stage_maps = _StageMaps(source, model_info.nodes)
    return Encoder(
        net,
        model_info,
        dim=dim,
        name=name,
        mean=mean,
        std=std,
        weights=info,
        head=head,
        stage_maps=stage_maps,
    )


class _StageMaps:
    """A `StageMaps`: the module whose maps group the parameters of a network; a class, to be picklable."""

    def __init__(self, source: Source, nodes: tuple[FeatureNode, ...]) -> None:
        self.source, self.nodes = source, nodes

    def __call__(self, net: nn.Module) -> tuple[nn.Module, list[int]]:
        reductions = [node.level.reduction for node in self.nodes]
        return self.source.maps(net.get_submodule("model"), self.nodes, prune=False), reductions


def _stage_nodes(model_info: ModelInfo, nodes: Sequence[FeatureNode]) -> tuple[FeatureNode, ...]:
    """Return the nodes that group the parameters: those used, and the usual levels finer than the last."""
    levels_used = {node.level.reduction for node in nodes}
    grouping = levels_used | {r for r in _REDUCTIONS if r < max(levels_used)}
    return tuple(node for node in model_info.nodes if node.level.reduction in grouping)


def _model_spec(
    name: str,
    in_channels: int,
    output_stride: int | None,
    image_size: int | Size | None,
    options: Mapping[str, Any] | None,
) -> tuple[Source, ModelSpec]:
    if in_channels < 1:
        raise InputError(expected("in_channels", "at least 1", in_channels))
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    built_for = None if size is None else (size[0], size[1])
    return resolve(name, ModelSpec("", "", in_channels, output_stride, built_for, sorted_options(options)))


def _with_tag(source: Source, spec: ModelSpec, init: Init) -> tuple[ModelSpec, Init]:
    """Return the spec with the tag that `init` names, if it names weights of the registry.

    Mean and standard deviation of the images are then those of these weights.
    """
    if init == "scratch" or init == "pretrained" or init_is_path(init):
        return spec, init
    other, named = resolve(init, spec)
    if other is not source or named.architecture != spec.architecture:
        own = f"{source.prefix}/{spec.architecture}"
        tags = [f"{own}.{tag}" for tag in source.tags(spec.architecture)] or ["pretrained"]
        raise InputError(
            expected(
                "init",
                f"the name of weights of the backbone's own architecture, {own!r}",
                init,
                fix=f"They are: {', '.join(tags)}.",
            )
        )
    return named, "pretrained"


def _statistics(source: Source, spec: ModelSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    pretrained_cfg = source.pretrained_cfg(spec)
    return adapt_statistics(pretrained_cfg.mean, spec.in_channels), adapt_statistics(
        pretrained_cfg.std, spec.in_channels
    )


def _model(
    source: Source, spec: ModelSpec, init: Init, nodes: Sequence[FeatureNode] | None = None
) -> tuple[nn.Module, WeightsInfo]:
    """Build the full network with the weights that `init` names, and return their record."""
    if init == "scratch":
        return source.build(spec, None), WeightsInfo(name=spec.architecture)
    model, info = _trained_model(source, spec, init, nodes)
    if doubt := untrained_reason(model.state_dict()):
        warnings.warn(f"{info.file or spec.architecture}: {doubt}. Check where they come from.", stacklevel=4)
    return model, replace(info, doubt=doubt)


def _trained_model(
    source: Source, spec: ModelSpec, init: Init, nodes: Sequence[FeatureNode] | None
) -> tuple[nn.Module, WeightsInfo]:
    if init == "pretrained":
        state, info = source.fetch(spec)
        if isinstance(source, UserSource):
            model = source.build_pretrained(spec)
            return model, getattr(model, "weights", info)
        model = source.build(spec, state)
        return model, replace(info, adapted=_adapted(model, state or {}, spec.in_channels))
    path, prefix = split_init(init)
    if not path.exists() and "/" not in init and "." not in init:
        raise InputError(
            expected(
                "init",
                "'pretrained', 'scratch', the name of weights or the path of a file of them",
                init,
                fix="No such file is here.",
            )
        )
    state = read_state_dict(path, prefix=prefix or None)
    needed: frozenset[str] | None = None
    if nodes is not None and not isinstance(source, UserSource):
        # the file need hold only what the maps depend on: a saved backbone has no conv head
        cut = on_meta_device(lambda: source.maps(source.build(spec, None), nodes, prune=True))
        needed = frozenset(key.removeprefix("model.") for key in cut.state_dict())
    origin = task_origin(path, source, spec)
    state, fresh = complete_state(state, source, spec, needed) if origin.same_network else (state, "")
    try:
        model = source.build(spec, state, trusted=False, needed=needed)
    except InputError as error:
        raise origin.refusal(error) from error
    adapted = ", ".join(filter(None, (origin.info.adapted, _adapted(model, state, spec.in_channels), fresh)))
    info = replace(origin.info, name=spec.architecture, tag=prefix, adapted=adapted)
    return model, replace(info, digest=file_digest(path), file=path.name)


def _adapted(model: nn.Module, state: Mapping[str, Tensor], channels: int) -> str:
    """Return the remark in the weights record about an input layer adapted to other channels, if it was."""
    for name, parameter in model.named_parameters() if channels != 3 else ():
        if parameter.ndim == 4 and parameter.shape[1] == channels:
            old = next((v for k, v in state.items() if k == name or k.endswith(f".{name}")), None)
            if old is not None and old.ndim == 4 and old.shape[1] == 3:
                return f"input layer from 3 to {channels} channels"
    return ""
