"""Architectures and weights of torchvision's classification models."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from visionkit.backbones.feature_hooks import FeatureHookNet, ends_with, last_layer, prune_after
from visionkit.backbones.sources.base import FeatureNode, ModelSpec, PretrainedCfg, Size
from visionkit.backbones.sources.offline import cached_url, download
from visionkit.backbones.sources.state_dict import MismatchError, fill_missing, load_if_fits, without_prefixes
from visionkit.backbones.tracing import on_meta_device, record_calls, trunk
from visionkit.backbones.weights import WeightsInfo, read_state_dict
from visionkit.errors import InputError
from visionkit.files import file_digest

__all__ = ["IMAGENET_STD", "TorchvisionSource", "is_torchvision", "with_size"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_DILATIONS = {32: None, 16: [False, False, True], 8: [False, True, True]}


class TorchvisionSource:
    """All classification models of torchvision, which is imported on first use."""

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

    def pretrained_cfg(self, spec: ModelSpec) -> PretrainedCfg:
        """Return preprocessing, tags and weights record; look for the weights in the local cache."""
        tags = tuple(self.tags(spec.architecture))
        entry = _entry(spec)
        if entry is None:
            info = WeightsInfo(name=spec.architecture)
            return PretrainedCfg(_IMAGENET_MEAN, IMAGENET_STD, (224, 224), tags, info)
        preset = entry.transforms()
        side = int(preset.crop_size[0])
        local = cached_url(entry.url)
        licence = str(entry.meta.get("license", "not stated (code: BSD-3-Clause)"))
        data = " / ".join(entry.meta.get("_metrics", {})) or "not stated"
        return PretrainedCfg(
            mean=tuple(float(v) for v in preset.mean),
            std=tuple(float(v) for v in preset.std),
            input_size=(side, side),
            tags=tags,
            info=WeightsInfo("torchvision", spec.architecture, entry.name, data, licence),
            local_weights="" if local is None else str(local),
        )

    def fetch(self, spec: ModelSpec) -> tuple[dict[str, Tensor], WeightsInfo]:
        """Read the pretrained weights from the local cache, or download them."""
        entry = _entry(spec)
        name = f"torchvision/{spec.architecture}"
        if entry is None:
            raise InputError(
                f"torchvision has no weights for {name!r}. Use init='scratch', or a weights file of yours."
            )
        prefix = Path(entry.url).stem.rpartition("-")[2]
        file = cached_url(entry.url) or download(entry.url, name=name, digest_prefix=prefix)
        info = self.pretrained_cfg(spec).info
        record = WeightsInfo(
            "torchvision", info.name, info.tag, info.training_data, info.licence, file_digest(file), file.name
        )
        return read_state_dict(file), record

    def build(
        self,
        spec: ModelSpec,
        state: Mapping[str, Tensor] | None,
        *,
        trusted: bool = True,
        needed: frozenset[str] | None = None,
    ) -> nn.Module:
        """Build the classifier and load the weights name by name."""
        if state is None:
            return _adapt_input(self.create(spec), spec, trained=False)
        plain = ModelSpec(spec.architecture, image_size=spec.image_size, options=spec.options)
        meta_model = on_meta_device(lambda: self.create(plain))
        # weights of models with auxiliary classifiers contain these too
        with_aux = on_meta_device(lambda: self.create(plain, aux_logits=True)).state_dict()
        required = (
            meta_model.state_dict().keys() - set(self.classifier_keys(spec)) if needed is None else needed
        )
        names = meta_model.state_dict()
        stripped = without_prefixes(_with_features(state, names), names, required)
        head = self.head(spec.architecture)
        classes = stripped[f"{head}.weight"].shape[0] if f"{head}.weight" in stripped else None
        if classes is not None:
            meta_model = on_meta_device(lambda: self.create(plain, classes=classes))
        stripped = _fit_positions(stripped, meta_model, spec)
        expected_state = meta_model.state_dict()
        name = f"{self.prefix}/{spec.architecture}"
        try:
            full = fill_missing(stripped, expected_state, required, name=name, optional=with_aux)
        except MismatchError:
            # perhaps saved from a model of the same channels
            fitting_model = load_if_fits(
                stripped,
                lambda: _adapt_input(self.create(spec, classes=classes), spec, trained=False),
                required,
            )
            if fitting_model is None:
                raise
            return fitting_model
        model = self.create(spec, classes=classes)
        model.load_state_dict(full, strict=True)
        return _adapt_input(model, spec, trained=True)

    def create(self, spec: ModelSpec, *, classes: int | None = None, aux_logits: bool = False) -> nn.Module:
        """Build the classifier with random weights."""
        from torchvision import models

        options: dict[str, Any] = {}
        signature = _signature(spec.architecture)
        if "aux_logits" in signature:
            options["aux_logits"] = aux_logits
        if "transform_input" in signature:
            # the pretrained weights expect it, so both arms of a comparison get it
            options["transform_input"] = True
        if "init_weights" in signature:
            options["init_weights"] = torch.empty(0).device.type != "meta"
        if classes is not None:
            options["num_classes"] = classes
        if "image_size" in signature:
            options["image_size"] = _image_size(spec)[0]
        if spec.output_stride is not None:
            options |= _dilated(spec, signature)
        options |= dict(spec.options)
        return with_size(models.get_model(spec.architecture, weights=None, **options), spec)

    @functools.cache  # noqa: B019
    def head(self, architecture: str) -> str:
        """Return the name of the last layer, which classifies."""
        spec = ModelSpec(architecture)
        return last_layer(on_meta_device(lambda: self.create(spec)), _image_size(spec), 3)

    def classifier_keys(self, spec: ModelSpec) -> tuple[str, ...]:
        """Return the names of the classifier's parameters."""
        head = self.head(spec.architecture)
        return (f"{head}.weight", f"{head}.bias")

    def candidate_nodes(self, model: nn.Module, size: Size) -> Sequence[int | str]:
        """Return the names of the modules along the trunk, in the order in which they run."""
        return [call.name for call in trunk(record_calls(model, size, _channels(model)), size)]

    def maps(self, model: nn.Module, nodes: Sequence[FeatureNode], *, prune: bool) -> nn.Module:
        """Return the maps at the nodes; with `prune`, layers after the last one are removed."""
        if prune:
            prune_after(model, [str(node.key) for node in nodes], _size(model), _channels(model))
        return FeatureHookNet(model, nodes)

    def pooled(self, model: nn.Module, size: Size) -> tuple[nn.Module, nn.Module | None]:
        """Remove the last layer; hidden layers of the classifier are pretrained, and stay."""
        name = last_layer(model, size, _channels(model))
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        head = owner.get_submodule(child)
        # SqueezeNet pools after its last convolution: then that is no linear layer over the pooled features
        ends_there = ends_with(model, head, size, _channels(model))
        setattr(owner, child, nn.Identity())
        return _Pooled(model), head if ends_there else None


class _Pooled(nn.Module):
    """A classifier without its last layer; maps `(B, C, H, W)` are averaged to `(B, C)`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        y = cast(Tensor, self.model(images))
        return y.flatten(1) if y.dim() == 2 or y.shape[-2:] == (1, 1) else y.mean((2, 3))


def _with_features(state: Mapping[str, Tensor], expected_names: Collection[str]) -> Mapping[str, Tensor]:
    """Return a state dict with `features.` in its names where the network has it.

    Detectors and segmenters over MobileNet hold the layers of `features` as `backbone.body` or `backbone`.
    """
    for prefix in ("backbone.body.", "backbone."):
        if f"{prefix}0.0.weight" in state and "features.0.0.weight" in expected_names:
            return {
                f"backbone.features.{key.removeprefix(prefix)}" if key.startswith(prefix) else key: value
                for key, value in state.items()
            }
    return state


def _weights(architecture: str) -> Any:
    from torchvision import models

    return models.get_model_weights(architecture)


def _entry(spec: ModelSpec) -> Any:
    enum = _weights(spec.architecture)
    if spec.tag:
        return enum[spec.tag]
    return getattr(enum, "DEFAULT", None)


def with_size(model: nn.Module, spec: ModelSpec) -> nn.Module:
    """Note in a network the `(height, width)` that it is traced at."""
    model.__dict__["_traced_size"] = _image_size(spec)
    return model


def is_torchvision(model: nn.Module) -> bool:
    """Return whether a `TorchvisionSource` made a network."""
    return "_traced_size" in model.__dict__


def _image_size(spec: ModelSpec) -> Size:
    if spec.image_size is not None:
        return spec.image_size
    entry = _entry(spec)
    side = 224 if entry is None else int(entry.transforms().crop_size[0])
    return (side, side)


def _size(model: nn.Module) -> Size:
    return cast(Size, model.__dict__["_traced_size"])


def _dilated(spec: ModelSpec, signature: frozenset[str]) -> dict[str, Any]:
    stride = spec.output_stride
    if "replace_stride_with_dilation" in signature and stride in _DILATIONS:
        return {"replace_stride_with_dilation": _DILATIONS[stride]}
    if stride == 32:
        return {}
    raise TypeError(f"output_stride={stride} is no option of this model")


@functools.cache
def _signature(architecture: str) -> frozenset[str]:
    from torchvision import models

    names: set[str] = set()
    model = on_meta_device(
        lambda: models.get_model(architecture, weights=None, **_without_init_warning(architecture))
    )
    for cls in type(model).__mro__:
        if cls is nn.Module:
            break
        names |= set(inspect.signature(cls).parameters)
    return frozenset(names)


def _without_init_warning(architecture: str) -> dict[str, bool]:
    # GoogLeNet and Inception v3 warn when init_weights is not given
    from torchvision import models

    module = inspect.getmodule(models.get_model_builder(architecture))
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, nn.Module)]
    takes = any(
        "init_weights" in inspect.signature(c.__init__).parameters
        and "aux_logits" in inspect.signature(c.__init__).parameters
        for c in classes
    )
    return {"init_weights": False} if takes else {}


def _first_conv(model: nn.Module) -> tuple[str, nn.Conv2d]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise InputError("The network has no convolution, so its input cannot take another number of channels.")


def _channels(model: nn.Module) -> int:
    return _first_conv(model)[1].in_channels


def _adapt_input(model: nn.Module, spec: ModelSpec, *, trained: bool) -> nn.Module:
    from visionkit.backbones.channels import adapt_first_conv

    if spec.in_channels == 3:
        return model
    name, conv = _first_conv(model)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, adapt_first_conv(conv, spec.in_channels, trained=trained))
    if hasattr(model, "transform_input"):
        # it rescales the red, green and blue channels by index
        cast(Any, model).transform_input = False
    return model


def _fit_positions(state: dict[str, Tensor], meta_model: nn.Module, spec: ModelSpec) -> dict[str, Tensor]:
    from torchvision.models import VisionTransformer
    from torchvision.models.vision_transformer import interpolate_embeddings

    if spec.image_size is None or not isinstance(meta_model, VisionTransformer):
        return state
    if "encoder.pos_embedding" not in state:
        return state
    return dict(interpolate_embeddings(meta_model.image_size, meta_model.patch_size, dict(state)))
