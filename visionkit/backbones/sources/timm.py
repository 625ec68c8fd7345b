"""Architectures and weights of timm (Wightman, "PyTorch Image Models")."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from visionkit.backbones.feature_hooks import FeatureHookNet, ends_with, prune_after
from visionkit.backbones.sources.base import FeatureNode, ModelSpec, PretrainedCfg, Size
from visionkit.backbones.sources.offline import cached_url, download, through_hub
from visionkit.backbones.sources.state_dict import MismatchError, fill_missing, load_if_fits, without_prefixes
from visionkit.backbones.tracing import on_meta_device, record_calls, trunk
from visionkit.backbones.weights import WeightsInfo, read_state_dict
from visionkit.errors import InputError
from visionkit.files import file_digest

__all__ = ["TimmSource"]

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_DATA = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "ft": "",
}


class TimmSource:
    """All models of `timm.list_models()`. timm is imported on first use."""

    prefix = "timm"

    def names(self) -> list[str]:
        """Return every architecture."""
        import timm

        return list(timm.list_models())

    def tags(self, architecture: str) -> list[str]:
        """Return the pretrained tags, the default first."""
        from timm.models import get_arch_pretrained_cfgs

        known = get_arch_pretrained_cfgs(architecture)
        return [cfg.tag for cfg in known.values() if cfg.has_weights and cfg.tag]

    def timm_name(self, architecture: str) -> str:
        """Return timm's name of an architecture."""
        return architecture

    def pretrained_cfg(self, spec: ModelSpec) -> PretrainedCfg:
        """Return preprocessing, tags and weights record; look for the weights in the local cache."""
        cfg = self._config(spec)
        local = _on_this_machine(cfg)
        return PretrainedCfg(
            mean=tuple(float(v) for v in cfg.mean),
            std=tuple(float(v) for v in cfg.std),
            input_size=(int(cfg.input_size[1]), int(cfg.input_size[2])),
            tags=tuple(self.tags(spec.architecture)),
            info=WeightsInfo(
                source="timm" if cfg.has_weights else "none",
                name=spec.architecture,
                tag=cfg.tag or "",
                training_data=_training_data(cfg.tag or ""),
                licence=cfg.license or "not stated",
            ),
            local_weights="" if local is None else str(local),
        )

    def fetch(self, spec: ModelSpec) -> tuple[dict[str, Tensor], WeightsInfo]:
        """Read the pretrained weights from the local cache, or download them."""
        cfg = self._config(spec)
        name = f"timm/{spec.architecture}" + (f".{spec.tag}" if spec.tag else "")
        if not cfg.has_weights:
            raise InputError(
                f"timm has no pretrained weights for {name!r}. Use init='scratch', or a "
                "weights file of yours."
            )
        file = _on_this_machine(cfg) or _download(cfg, name)
        info = self.pretrained_cfg(spec).info
        record = WeightsInfo(
            source="timm",
            name=spec.architecture,
            tag=info.tag,
            training_data=info.training_data,
            licence=info.licence,
            digest=file_digest(file),
            file=file.name,
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
        """Build the classifier; trusted weights go through timm's own converters, strictly."""
        if state is None:
            return self._create(spec)
        if trusted:
            return self._create(spec, state)
        plain = ModelSpec(spec.architecture, spec.tag, options=spec.options)
        meta_model = on_meta_device(lambda: self._create(plain))
        expected_state = meta_model.state_dict()
        required = expected_state.keys() - set(self.classifier_keys(spec)) if needed is None else needed
        stripped = without_prefixes(state, expected_state, required)
        classes = _classes(stripped, self._classifier_names(spec))
        if classes is not None:
            expected_state = on_meta_device(lambda: self._create(plain, classes=classes)).state_dict()
        try:
            full = fill_missing(stripped, expected_state, required, name=f"timm/{spec.architecture}")
        except MismatchError as mismatch:
            # perhaps saved from a model of the same channels and image size
            model = load_if_fits(stripped, lambda: self._create(spec, classes=classes), required)
            if model is not None:
                return model
            # perhaps the authors' own format, which timm converts
            try:
                return self._create(spec, state)
            except Exception:
                raise mismatch from None
        return self._create(spec, full, classes=classes)

    def classifier_keys(self, spec: ModelSpec) -> tuple[str, ...]:
        """Return the names of the classifier's parameters."""
        return tuple(f"{n}.{part}" for n in self._classifier_names(spec) for part in ("weight", "bias"))

    def _classifier_names(self, spec: ModelSpec) -> tuple[str, ...]:
        names = self._config(spec).classifier or ()
        return (names,) if isinstance(names, str) else tuple(names)

    def candidate_nodes(self, model: nn.Module, size: Size) -> Sequence[int | str]:
        """Return the indices of `forward_intermediates`, or names along the trunk where a model lacks it."""
        if hasattr(model, "forward_intermediates"):
            return list(range(len(list(cast(Any, model).feature_info))))
        return [call.name for call in trunk(record_calls(model, size, 3), size)]

    def maps(self, model: nn.Module, nodes: Sequence[FeatureNode], *, prune: bool) -> nn.Module:
        """Return the maps at the nodes; timm prunes unused layers itself, where the model supports it."""
        if not hasattr(model, "forward_intermediates"):
            if prune:
                size = self.pretrained_cfg(
                    ModelSpec(cast(Any, model).pretrained_cfg["architecture"])
                ).input_size
                prune_after(model, [str(node.key) for node in nodes], size, 3)
            return FeatureHookNet(model, nodes)
        indices = [int(node.key) for node in nodes]
        if prune and hasattr(model, "prune_intermediate_layers"):
            indices = list(
                cast(Any, model).prune_intermediate_layers(indices, prune_norm=True, prune_head=True)
            )
        return _TimmMaps(model, indices)

    def pooled(self, model: nn.Module, size: Size) -> tuple[nn.Module, nn.Module | None]:
        """Remove the classifier; everything before it, conv heads and final norms included, stays."""
        if not hasattr(model, "get_classifier"):
            return _Pooled(model), None
        head = cast(Any, model).get_classifier()
        channels = int(getattr(model, "in_chans", 3) or 3)
        is_linear = isinstance(head, nn.Linear | nn.Conv2d) and ends_with(model, head, size, channels)
        cast(Any, model).reset_classifier(0)
        return _Pooled(model), head if is_linear else None

    def _config(self, spec: ModelSpec) -> Any:
        from timm.models import get_pretrained_cfg

        return get_pretrained_cfg(spec.architecture + (f".{spec.tag}" if spec.tag else ""))

    def _create(
        self, spec: ModelSpec, state: Mapping[str, Tensor] | None = None, *, classes: int | None = None
    ) -> nn.Module:
        import timm

        name = spec.architecture + (f".{spec.tag}" if spec.tag else "")
        options: dict[str, Any] = dict(_any_size_options(spec.architecture))
        if spec.image_size is not None and "img_size" in _signature(spec.architecture):
            options["img_size"] = spec.image_size
        if spec.output_stride is not None:
            options["output_stride"] = spec.output_stride
        if spec.in_channels != 3:
            options["in_chans"] = spec.in_channels
        if classes is not None:
            options["num_classes"] = classes
        options |= dict(spec.options)
        overlay: dict[str, Any] = {}
        if state is not None:
            overlay = {"state_dict": dict(state), "custom_load": False}
            if classes is not None:
                overlay |= {"num_classes": classes, "label_offset": 0}
        model: Any = timm.create_model(
            name, pretrained=state is not None, pretrained_cfg_overlay=overlay, **options
        )
        for config in {id(c): c for c in (model.pretrained_cfg, model.default_cfg)}.values():
            config.pop("state_dict", None)
        return cast(nn.Module, model)


class _TimmMaps(nn.Module):
    """A timm model that returns the maps at some indices."""

    def __init__(self, model: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self._indices = list(indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = cast(Any, self.model).forward_intermediates(
            images, indices=self._indices, intermediates_only=True, output_fmt="NCHW"
        )
        return list(maps)


class _Pooled(nn.Module):
    """A model without its classifier; maps `(B, C, H, W)` and tokens `(B, N, C)` are averaged to `(B, C)`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        y = self.model(images)
        if isinstance(y, tuple | list):
            y = torch.stack(list(y)).mean(0)
        if y.dim() == 4:
            y = y.mean((2, 3))  # (B, C, H, W) -> (B, C)
        return cast(Tensor, y.mean(1) if y.dim() == 3 else y)  # (B, N, C) -> (B, C)


@functools.cache
def _signature(architecture: str) -> frozenset[str]:
    """Return the constructor arguments of the class of an architecture."""
    import timm

    model = on_meta_device(lambda: timm.create_model(architecture))
    arguments: set[str] = set()
    for cls in type(model).__mro__:
        if cls is nn.Module:
            break
        parameters = inspect.signature(cls).parameters
        arguments |= set(parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return frozenset(arguments)


@functools.cache
def _any_size_options(architecture: str) -> tuple[tuple[str, bool], ...]:
    """Return the options with which a model takes images of other sizes than its own."""
    signature = _signature(architecture)
    options = (("dynamic_img_size", True), ("strict_img_size", False))
    return tuple((name, value) for name, value in options if name in signature)


def _classes(state: Mapping[str, Tensor], names: Sequence[str]) -> int | None:
    sizes = {int(state[f"{n}.weight"].shape[0]) for n in names if f"{n}.weight" in state}
    return sizes.pop() if len(sizes) == 1 else None


def _training_data(tag: str) -> str:
    named = [_DATA.get(part, "") for part in tag.split("_")]
    return " then ".join(n for n in named if n) or (f"see timm's tag {tag!r}" if tag else "not stated")


def _hub_files(cfg: Any) -> tuple[str, ...]:
    return (cfg.hf_hub_filename,) if cfg.hf_hub_filename else _HUB_FILES


def _on_this_machine(cfg: Any) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    if cfg.file and Path(cfg.file).is_file():
        return Path(cfg.file)
    if cfg.hf_hub_id:
        for filename in _hub_files(cfg):
            file = try_to_load_from_cache(cfg.hf_hub_id, filename)
            if isinstance(file, str):
                return Path(file)
    return cached_url(cfg.url) if cfg.url and not cfg.url.endswith(".npz") else None


def _download(cfg: Any, name: str) -> Path:
    if not cfg.hf_hub_id:
        return download(cfg.url, name=name)
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def fetch() -> Path:
        *rest, final = _hub_files(cfg)
        for filename in rest:
            try:
                return Path(hf_hub_download(cfg.hf_hub_id, filename))
            except Exception as error:
                if not isinstance(error, EntryNotFoundError) and "404" not in str(error):
                    raise
        return Path(hf_hub_download(cfg.hf_hub_id, final))

    return through_hub(name, constants.ENDPOINT, fetch)
