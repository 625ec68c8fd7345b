"""The weights of torchvision's segmentation networks (FCN and DeepLabV3) under the names of a segmenter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from torch import Tensor, nn

from visionkit.backbones import Level, read_state_dict
from visionkit.errors import InputError, unknown_name

__all__ = ["DilatedResNet", "TorchvisionNetwork", "read_network"]

_NAMES = {
    "deeplabv3_resnet101": ("deeplabv3", "resnet101"),
    "deeplabv3_resnet50": ("deeplabv3", "resnet50"),
    "fcn_resnet101": ("fcn", "resnet101"),
    "fcn_resnet50": ("fcn", "resnet50"),
}
_FCN = {"0": "block.conv", "1": "block.norm", "4": "classifier"}
_DEEPLAB = {
    "0.convs.0.0": "aspp.point.conv",
    "0.convs.0.1": "aspp.point.norm",
    "0.convs.4.1": "aspp.pooled.block.conv",
    "0.convs.4.2": "aspp.pooled.block.norm",
    "0.project.0": "aspp.project.conv",
    "0.project.1": "aspp.project.norm",
    "1": "block.conv",
    "2": "block.norm",
    "4": "classifier",
} | {
    f"0.convs.{branch}.{part}": f"aspp.dilated.{branch - 1}.{kind}"
    for branch in (1, 2, 3)
    for part, kind in ((0, "conv"), (1, "norm"))
}


class DilatedResNet(nn.Module):
    """The last two stages of torchvision's dilated ResNet, both of reduction 8.

    Args:
        architecture: "resnet50" or "resnet101".
    """

    levels = (Level(1024, 8), Level(2048, 8))
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, architecture: str) -> None:
        super().__init__()
        from torchvision import models

        network = models.get_model(
            architecture, weights=None, replace_stride_with_dilation=[False, True, True]
        )
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        self.trunk = nn.ModuleDict({name: network.get_submodule(name) for name in names})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps of the third and the fourth stage for normalised images `(B, 3, H, W)`."""
        features = images
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
            features = self.trunk[name](features)
        return features, cast(Tensor, self.trunk["layer4"](features))


class TorchvisionNetwork(NamedTuple):
    """A torchvision network's weights under a segmenter's names.

    Args:
        name: torchvision's name of the network.
        decoder: Name of the segmenter's decoder.
        architecture: Of the trunk.
        num_classes: Classes of the weights.
        state: The weights by the names of a segmenter over `DilatedResNet`.
    """

    name: str
    decoder: str
    architecture: str
    num_classes: int
    state: dict[str, Tensor]

    @property
    def has_auxiliary(self) -> bool:
        """Whether the weights have an auxiliary classifier."""
        return any(key.startswith("auxiliary_head.") for key in self.state)

    def fill(self, task: nn.Module) -> None:
        """Load the weights into a segmenter that was built for them.

        Raises:
            InputError: The weights are not of that network; the keys are named.
        """
        target = task.state_dict()
        given = self.state | {key: target[key] for key in ("normalize.mean", "normalize.std")}
        missing, unexpected = sorted(target.keys() - given.keys()), sorted(given.keys() - target.keys())
        unaligned = [key for key in target if key in given and target[key].shape != given[key].shape]
        if missing or unexpected or unaligned:
            listed = ", ".join((missing + unexpected + unaligned)[:5])
            raise InputError(
                f"Expected the state dict of torchvision's {self.name}, but {len(missing)} keys are missing, "
                f"{len(unexpected)} do not belong to it and {len(unaligned)} have another shape, such as "
                f"{listed}."
            )
        task.load_state_dict(given)


def read_network(weights: Mapping[str, Tensor] | str | Path, name: str) -> TorchvisionNetwork:
    """Return a torchvision network's weights under a segmenter's names; see `Segmenter.from_torchvision`.

    Raises:
        InputError: The name is not known, or the weights have no classifier.
    """
    if name not in _NAMES:
        raise unknown_name("torchvision segmentation network", name, _NAMES)
    decoder, architecture = _NAMES[name]
    state = weights if isinstance(weights, Mapping) else read_state_dict(Path(weights))
    if "classifier.4.weight" not in state:
        raise InputError(
            f"Expected the state dict of torchvision's {name}, but it has no key 'classifier.4.weight'."
        )
    renamed = {key: value for old, value in state.items() if (key := _renamed(old, decoder)) is not None}
    classes = state["classifier.4.weight"].shape[0]
    return TorchvisionNetwork(name, decoder, architecture, classes, renamed)


def _renamed(key: str, decoder: str) -> str | None:
    """Return the segmenter's name of a torchvision key; None for the unused classifier of the trunk."""
    if key.startswith("backbone."):
        rest = key.removeprefix("backbone.")
        return None if rest.startswith("fc.") else f"backbone.net.trunk.{rest}"
    for prefix, ours, table in (
        ("classifier.", "decoder", _DEEPLAB if decoder == "deeplabv3" else _FCN),
        ("aux_classifier.", "auxiliary_head", _FCN),
    ):
        match = re.fullmatch(rf"{re.escape(prefix)}(.+)\.(\w+)", key)
        if match and match[1] in table:
            return f"{ours}.{table[match[1]]}.{match[2]}"
    return key
