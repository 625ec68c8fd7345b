"""torchvision's trained segmentation networks as segmenters: FCN and DeepLabV3 over dilated ResNets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from visionkit.backbones import Level, read_state_dict
from visionkit.errors import InputError, unknown_name
from visionkit.tasks.segmentation.task import Segmenter

__all__ = ["DilatedResNet", "segmenter_from_torchvision"]

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

        whole = models.get_model(architecture, weights=None, replace_stride_with_dilation=[False, True, True])
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        self.trunk = nn.ModuleDict({name: whole.get_submodule(name) for name in names})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps of the third and the fourth stage for normalised images `(B, 3, H, W)`."""
        features = images
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
            features = self.trunk[name](features)
        return features, cast(Tensor, self.trunk["layer4"](features))


def segmenter_from_torchvision(weights: Mapping[str, Tensor] | str | Path, *, name: str) -> Segmenter:
    """Build the segmenter whose logits are those of a torchvision network.

    Args:
        weights: Its state dict, or a local file of it (safetensors, or tensors that load with
            `weights_only=True`), with or without the auxiliary classifier.
        name: "fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50" or "deeplabv3_resnet101".

    Returns:
        A `Segmenter` with the network's own classes, and its auxiliary head at weight 0.5 if there is one.

    Raises:
        InputError: The name is not known, or the weights are not of that network; the keys are named.
    """
    if name not in _NAMES:
        raise unknown_name("torchvision segmentation network", name, _NAMES)
    decoder, architecture = _NAMES[name]
    state = weights if isinstance(weights, Mapping) else read_state_dict(Path(weights))
    if "classifier.4.weight" not in state:
        raise InputError(
            f"Expected the state dict of torchvision's {name}, but it has no key 'classifier.4.weight'."
        )
    own = {key: value for old, value in state.items() if (key := _renamed(old, decoder)) is not None}
    auxiliary = any(key.startswith("auxiliary_head.") for key in own)
    task = Segmenter(
        DilatedResNet(architecture),
        init="pretrained",
        num_classes=state["classifier.4.weight"].shape[0],
        decoder=decoder,
        auxiliary=0.5 if auxiliary else 0.0,
    )
    wanted = task.state_dict()
    given = own | {key: wanted[key] for key in ("normalize.mean", "normalize.std")}
    missing, spare = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    unaligned = [k for k in wanted if k in given and wanted[k].shape != given[k].shape]
    if missing or spare or unaligned:
        listed = ", ".join((missing + spare + unaligned)[:5])
        raise InputError(
            f"Expected the state dict of torchvision's {name}, but {len(missing)} keys are missing, "
            f"{len(spare)} do not belong to it and {len(unaligned)} have another shape, such as {listed}."
        )
    task.load_state_dict(given)
    return task


def _renamed(key: str, decoder: str) -> str | None:
    """Return our name of a torchvision key; None for the trunk's own classifier, which nothing reads."""
    if key.startswith("backbone."):
        rest = key.removeprefix("backbone.")
        return None if rest.startswith("fc.") else f"backbone.net.trunk.{rest}"
    for prefix, ours, table in (
        ("classifier.", "decoder", _DEEPLAB if decoder == "deeplabv3" else _FCN),
        ("aux_classifier.", "auxiliary_head", _FCN),
    ):
        found = re.fullmatch(rf"{re.escape(prefix)}(.+)\.(\w+)", key)
        if found and found[1] in table:
            return f"{ours}.{table[found[1]]}.{found[2]}"
    return key
