"""Making backbones and encoders by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from visionkit.backbones.backbone import Backbone
from visionkit.backbones.channels import adapt_statistics
from visionkit.backbones.encoder import Encoder, PooledLevel
from visionkit.backbones.norms import convert_norms
from visionkit.backbones.probe import choose_taps, make_plan
from visionkit.backbones.registry import resolve
from visionkit.backbones.sources.base import Plan, Request, Size, Source, Tap
from visionkit.backbones.sources.user import UserSource
from visionkit.backbones.tracing import on_meta_device, run_for_shapes
from visionkit.backbones.weights import WeightsInfo, read_state_dict, split_init
from visionkit.config import NormPolicy
from visionkit.errors import InputError, expected
from visionkit.files import file_digest
from visionkit.types import Init

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
) -> Backbone:
    """Make a network that gives maps at the reductions asked for.

    Args:
        name: "timm/resnet50", "timm/resnet50.a1_in1k", "torchvision/resnet50", "packaged/efficientnet_lite0",
            or a registered name.
        init: "pretrained", "scratch", or the path of a weights file of this architecture ("FILE#PREFIX" where
            it holds several networks).
        reductions: Which maps: input pixels per map pixel. The deepest map of each reduction is taken.
        norm: What its batch norms become: "batch", "frozen", "sync" or "group".
        in_channels: Channels of the images. Trained input layers are summed (one channel) or repeated in
            turn and scaled by 3 / channels.
        output_stride: Coarsest reduction, reached by dilation, where the network can; the default reductions
            are then those up to it.
        image_size: Side, or (height, width), to build a network of fixed image size for.

    Returns:
        A `Backbone`, in training mode.

    Raises:
        InputError: An unknown name, a reduction or option the network does not have, weights that do not fit
            or cannot be fetched.
    """
    source, request = _request(name, in_channels, output_stride, image_size)
    plan = make_plan(source, request)
    if output_stride is not None:
        coarsest = plan.taps[-1].level.reduction if plan.taps else 0
        if coarsest != output_stride:
            raise InputError(
                f"{name!r} keeps its coarsest reduction at {coarsest} for output_stride={output_stride}."
            )
        if tuple(reductions) == _REDUCTIONS:
            reductions = tuple(r for r in reductions if r <= output_stride)
    taps = choose_taps(plan, reductions, name)
    model, info = _model(source, request, init, taps)
    net = source.maps(model, taps, prune=True)
    net = convert_norms(net, norm, trained=info.trained)
    mean, std = _statistics(source, request)
    stage_maps = _StageMaps(source, _up_to(plan, taps))
    backbone = Backbone(net, taps, plan, name=name, mean=mean, std=std, weights=info, stage_maps=stage_maps)
    backbone.made_by = {
        "name": name, "reductions": [tap.level.reduction for tap in taps], "norm": norm,
        "in_channels": in_channels, "output_stride": output_stride, "image_size": image_size,
    }  # fmt: skip
    if plan.unaligned:
        # a branch whose maps are not aligned is left out, and its layers get no gradient
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
) -> Encoder:
    """Make a network that gives one vector per image, with every trained parameter before the classifier.

    Args:
        name: As for `create_backbone`.
        init: "pretrained", "scratch", or the path of a weights file of this architecture.
        norm: What its batch norms become: "batch", "frozen", "sync" or "group".
        in_channels: Channels of the images.
        level: Average the map of this reduction instead: a probe from a chosen level.
        image_size: Side, or (height, width), to build a network of fixed image size for.

    Returns:
        An `Encoder`, in training mode.

    Raises:
        InputError: As for `create_backbone`.
    """
    source, request = _request(name, in_channels, None, image_size)
    plan = make_plan(source, request)
    mean, std = _statistics(source, request)
    if level is not None:
        taps = choose_taps(plan, (level,), name)
        model, info = _model(source, request, init, taps)
        maps = convert_norms(source.maps(model, taps, prune=True), norm, trained=info.trained)
        stage_maps = _StageMaps(source, _up_to(plan, taps))
        probed = Backbone(
            maps, taps, plan, name=name, mean=mean, std=std, weights=info, stage_maps=stage_maps
        )
        encoder = Encoder(
            PooledLevel(probed), plan, dim=taps[0].level.channels, name=name, mean=mean, std=std,
            weights=info, head=None, stage_maps=stage_maps,
        )  # fmt: skip
    else:
        model, info = _model(source, request, init)
        encoder = assemble_encoder(source, request, plan, model, info, name=name, norm=norm)
    encoder.made_by = {
        "name": name, "norm": norm, "in_channels": in_channels, "level": level, "image_size": image_size
    }  # fmt: skip
    return encoder


def assemble_encoder(
    source: Source,
    request: Request,
    plan: Plan,
    model: nn.Module,
    info: WeightsInfo,
    *,
    name: str,
    norm: NormPolicy = "batch",
) -> Encoder:
    """Take the classifier off a whole network and wrap the rest as an encoder."""
    mean, std = _statistics(source, request)
    net, head = source.vector(model, plan.traced_size)
    net = convert_norms(net, norm, trained=info.trained)
    dim = int(run_for_shapes(net, plan.traced_size, request.in_channels).shape[1])
    stage_maps = _StageMaps(source, plan.taps)
    return Encoder(
        net, plan, dim=dim, name=name, mean=mean, std=std, weights=info, head=head, stage_maps=stage_maps
    )


class _StageMaps:
    """Makes the module whose maps group the parameters of a network; a class, so that it can be copied."""

    def __init__(self, source: Source, taps: tuple[Tap, ...]) -> None:
        self.source, self.taps = source, taps

    def __call__(self, net: nn.Module) -> tuple[nn.Module, list[int]]:
        reductions = [tap.level.reduction for tap in self.taps]
        return self.source.maps(net.get_submodule("model"), self.taps, prune=False), reductions


def _up_to(plan: Plan, taps: Sequence[Tap]) -> tuple[Tap, ...]:
    """Return the maps that group the parameters: its own, and the usual levels finer than the last."""
    own = {tap.level.reduction for tap in taps}
    wanted = own | {r for r in _REDUCTIONS if r < max(own)}
    return tuple(tap for tap in plan.taps if tap.level.reduction in wanted)


def _request(
    name: str, in_channels: int, output_stride: int | None, image_size: int | Size | None
) -> tuple[Source, Request]:
    if in_channels < 1:
        raise InputError(expected("in_channels", "at least 1", in_channels))
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    return resolve(
        name, Request("", "", in_channels, output_stride, None if size is None else (size[0], size[1]))
    )


def _statistics(source: Source, request: Request) -> tuple[tuple[float, ...], tuple[float, ...]]:
    card = source.card(request)
    return adapt_statistics(card.mean, request.in_channels), adapt_statistics(card.std, request.in_channels)


def _model(
    source: Source, request: Request, init: Init, taps: Sequence[Tap] | None = None
) -> tuple[nn.Module, WeightsInfo]:
    """Build the whole network and fill it as `init` says."""
    if init == "scratch":
        return source.build(request, None), WeightsInfo(name=request.architecture)
    if init == "pretrained":
        state, info = source.fetch(request)
        if isinstance(source, UserSource):
            model = source.build_pretrained(request)
            return model, getattr(model, "weights", info)
        model = source.build(request, state)
        return model, replace(info, adapted=_adapted(model, state or {}, request.in_channels))
    path, prefix = split_init(init)
    if not path.exists() and "/" not in init and "." not in init:
        raise InputError(
            expected(
                "init",
                "'pretrained', 'scratch' or the path of a weights file",
                init,
                fix="No such file is here.",
            )
        )
    state = read_state_dict(path, prefix=prefix or None)
    needed: frozenset[str] | None = None
    if taps is not None and not isinstance(source, UserSource):
        # a file that holds what the maps need will do: a saved backbone has no conv head
        cut = on_meta_device(lambda: source.maps(source.build(request, None), taps, prune=True))
        needed = frozenset(key.removeprefix("model.") for key in cut.state_dict())
    model = source.build(request, state, trusted=False, needed=needed)
    info = WeightsInfo("file", request.architecture, prefix, "not stated", "not stated")
    adapted = _adapted(model, state, request.in_channels)
    return model, replace(info, digest=file_digest(path), file=path.name, adapted=adapted)


def _adapted(model: nn.Module, state: Mapping[str, Tensor], channels: int) -> str:
    """Return what the record says of an input layer for other channels than the weights were trained on."""
    for name, parameter in model.named_parameters() if channels != 3 else ():
        if parameter.ndim == 4 and parameter.shape[1] == channels:
            old = next((v for k, v in state.items() if k == name or k.endswith(f".{name}")), None)
            if old is not None and old.ndim == 4 and old.shape[1] == 3:
                return f"input layer from 3 to {channels} channels"
    return ""
