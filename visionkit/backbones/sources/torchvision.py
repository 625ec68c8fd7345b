"""Architectures and weights of torchvision's classification models."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from visionkit.backbones.feature_hooks import TappedMaps, cut_behind, ends_with, last_layer
from visionkit.backbones.sources.base import Card, Request, Size, Tap
from visionkit.backbones.sources.offline import cached_url, download
from visionkit.backbones.sources.state_dict import MismatchError, fill_missing, fitted, without_prefixes
from visionkit.backbones.tracing import on_meta_device, record_calls, trunk
from visionkit.backbones.weights import WeightsInfo, read_state_dict
from visionkit.errors import InputError
from visionkit.files import file_digest

__all__ = ["TorchvisionSource"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_DILATIONS = {32: None, 16: [False, False, True], 8: [False, True, True]}


class TorchvisionSource:
    """Every classification model of torchvision, which is imported when it is first asked."""

    prefix = "torchvision"

    def names(self) -> list[str]:
        """Return every architecture."""
        from torchvision import models

        return list(models.list_models(module=models))

    def tags(self, architecture: str) -> list[str]:
        """Return the names of the weights, torchvision's default first."""
        enum = _weights(architecture)
        default = getattr(enum, "DEFAULT", None)
        members = list(enum.__members__.values())
        first = [default.name] if default is not None else []
        return first + [m.name for m in members if m.name not in (*first, "DEFAULT")]

    def card(self, request: Request) -> Card:
        """Return statistics, sizes, tags and the record, and look for the weights on this machine."""
        tags = tuple(self.tags(request.architecture))
        entry = _entry(request)
        if entry is None:
            info = WeightsInfo(name=request.architecture)
            return Card(_IMAGENET_MEAN, _IMAGENET_STD, (224, 224), tags, info)
        preset = entry.transforms()
        side = int(preset.crop_size[0])
        local = cached_url(entry.url)
        licence = str(entry.meta.get("license", "not stated (code: BSD-3-Clause)"))
        data = " / ".join(entry.meta.get("_metrics", {})) or "not stated"
        return Card(
            mean=tuple(float(v) for v in preset.mean),
            std=tuple(float(v) for v in preset.std),
            input_size=(side, side),
            tags=tags,
            info=WeightsInfo("torchvision", request.architecture, entry.name, data, licence),
            local_weights="" if local is None else str(local),
        )

    def fetch(self, request: Request) -> tuple[dict[str, Tensor], WeightsInfo]:
        """Read the pretrained weights from this machine, or fetch them."""
        entry = _entry(request)
        name = f"torchvision/{request.architecture}"
        if entry is None:
            raise InputError(
                f"torchvision has no weights for {name!r}. Use init='scratch', or a weights file of yours."
            )
        prefix = Path(entry.url).stem.rpartition("-")[2]
        file = cached_url(entry.url) or download(entry.url, name=name, digest_prefix=prefix)
        info = self.card(request).info
        record = WeightsInfo(
            "torchvision", info.name, info.tag, info.training_data, info.licence, file_digest(file), file.name
        )
        return read_state_dict(file), record

    def build(
        self,
        request: Request,
        state: Mapping[str, Tensor] | None,
        *,
        trusted: bool = True,
        needed: frozenset[str] | None = None,
    ) -> nn.Module:
        """Build the classifier and load the weights name by name."""
        if state is None:
            return _adapt_input(_create(request), request, trained=False)
        plain = Request(request.architecture, image_size=request.image_size)
        twin = on_meta_device(lambda: _create(plain))
        # weights of nets with auxiliary classifiers hold those too
        spare = on_meta_device(lambda: _create(plain, auxiliary=True)).state_dict()
        must = twin.state_dict().keys() - set(self.classifier_keys(request)) if needed is None else needed
        own = without_prefixes(state, twin.state_dict(), must)
        head = _head(request.architecture)
        classes = own[f"{head}.weight"].shape[0] if f"{head}.weight" in own else None
        if classes is not None:
            twin = on_meta_device(lambda: _create(plain, classes=classes))
        own = _fit_positions(own, twin, request)
        wanted = twin.state_dict()
        name = f"torchvision/{request.architecture}"
        try:
            full = fill_missing(own, wanted, must, name=name, optional=spare)
        except MismatchError:
            # perhaps saved from this very request: its channels
            alike = fitted(
                own, lambda: _adapt_input(_create(request, classes=classes), request, trained=False), must
            )
            if alike is None:
                raise
            return alike
        model = _create(request, classes=classes)
        model.load_state_dict(full, strict=True)
        return _adapt_input(model, request, trained=True)

    def classifier_keys(self, request: Request) -> tuple[str, ...]:
        """Return the names of the classifier's parameters."""
        head = _head(request.architecture)
        return (f"{head}.weight", f"{head}.bias")

    def places(self, model: nn.Module, size: Size) -> Sequence[int | str]:
        """Return the names along the trunk, found by watching the network run."""
        return [call.name for call in trunk(record_calls(model, size, _channels(model)), size)]

    def maps(self, model: nn.Module, taps: Sequence[Tap], *, prune: bool) -> nn.Module:
        """Return the maps at the taps; what lies behind the last one is cut off."""
        if prune:
            cut_behind(model, [str(tap.key) for tap in taps], _size(model), _channels(model))
        return TappedMaps(model, taps)

    def vector(self, model: nn.Module, size: Size) -> tuple[nn.Module, nn.Module | None]:
        """Take the last layer off; hidden layers of the classifier are pretrained, and stay."""
        name = last_layer(model, size, _channels(model))
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        head = owner.get_submodule(child)
        # a pool may follow a convolution: then it is no linear layer over the vector
        ends_there = ends_with(model, head, size, _channels(model))
        setattr(owner, child, nn.Identity())
        return _Vector(model), head if ends_there else None


class _Vector(nn.Module):
    """A classifier without its last layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        y = cast(Tensor, self.model(images))
        return y.flatten(1) if y.dim() == 2 or y.shape[-2:] == (1, 1) else y.mean((2, 3))


def _weights(architecture: str) -> Any:
    from torchvision import models

    return models.get_model_weights(architecture)


def _entry(request: Request) -> Any:
    enum = _weights(request.architecture)
    if request.tag:
        return enum[request.tag]
    return getattr(enum, "DEFAULT", None)


def _create(request: Request, *, classes: int | None = None, auxiliary: bool = False) -> nn.Module:
    from torchvision import models

    options: dict[str, Any] = {}
    signature = _signature(request.architecture)
    if "aux_logits" in signature:
        options["aux_logits"] = auxiliary
    if "transform_input" in signature:
        # these weights expect it, so both arms get it
        options["transform_input"] = True
    if "init_weights" in signature:
        options["init_weights"] = torch.empty(0).device.type != "meta"
    if classes is not None:
        options["num_classes"] = classes
    if "image_size" in signature:
        options["image_size"] = _own_size(request)[0]
    if request.output_stride is not None:
        options |= _dilated(request, signature)
    model = cast(nn.Module, models.get_model(request.architecture, weights=None, **options))
    model.__dict__["_traced_size"] = _own_size(request)
    return model


def _own_size(request: Request) -> Size:
    if request.image_size is not None:
        return request.image_size
    entry = _entry(request)
    side = 224 if entry is None else int(entry.transforms().crop_size[0])
    return (side, side)


def _size(model: nn.Module) -> Size:
    return cast(Size, model.__dict__["_traced_size"])


def _dilated(request: Request, signature: frozenset[str]) -> dict[str, Any]:
    stride = request.output_stride
    if "replace_stride_with_dilation" in signature and stride in _DILATIONS:
        return {"replace_stride_with_dilation": _DILATIONS[stride]}
    if stride == 32:
        return {}
    raise TypeError(f"output_stride={stride} is no option of this model")


@functools.cache
def _signature(architecture: str) -> frozenset[str]:
    from torchvision import models

    found: set[str] = set()
    model = on_meta_device(lambda: models.get_model(architecture, weights=None, **_quiet(architecture)))
    for cls in type(model).__mro__:
        if cls is nn.Module:
            break
        found |= set(inspect.signature(cls).parameters)
    return frozenset(found)


def _quiet(architecture: str) -> dict[str, bool]:
    # two old models warn when nobody says how to initialise them
    from torchvision import models

    module = inspect.getmodule(models.get_model_builder(architecture))
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, nn.Module)]
    takes = any(
        "init_weights" in inspect.signature(c.__init__).parameters
        and "aux_logits" in inspect.signature(c.__init__).parameters
        for c in classes
    )
    return {"init_weights": False} if takes else {}


@functools.cache
def _head(architecture: str) -> str:
    request = Request(architecture)
    return last_layer(on_meta_device(lambda: _create(request)), _own_size(request), 3)


def _first_conv(model: nn.Module) -> tuple[str, nn.Conv2d]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise InputError("The network has no convolution, so its input cannot take another number of channels.")


def _channels(model: nn.Module) -> int:
    return _first_conv(model)[1].in_channels


def _adapt_input(model: nn.Module, request: Request, *, trained: bool) -> nn.Module:
    from visionkit.backbones.channels import adapt_first_conv

    if request.in_channels == 3:
        return model
    name, conv = _first_conv(model)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, adapt_first_conv(conv, request.in_channels, trained=trained))
    if hasattr(model, "transform_input"):
        # it re-scales the red, green and blue channels by name
        cast(Any, model).transform_input = False
    return model


def _fit_positions(state: dict[str, Tensor], twin: nn.Module, request: Request) -> dict[str, Tensor]:
    from torchvision.models import VisionTransformer
    from torchvision.models.vision_transformer import interpolate_embeddings

    if request.image_size is None or not isinstance(twin, VisionTransformer):
        return state
    if "encoder.pos_embedding" not in state:
        return state
    return dict(interpolate_embeddings(twin.image_size, twin.patch_size, dict(state)))
