"""Trained-looking weights without a network: a file of random weights counts as trained."""

from __future__ import annotations

import hashlib
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

FAMILIES = (
    "timm/resnet10t",
    "timm/efficientnet_lite0",
    "timm/convnext_atto",
    "timm/mobilenetv3_small_050",
    "torchvision/shufflenet_v2_x0_5",
)


def weights_file(name: str, folder: Path) -> str:
    """Write random weights of an architecture, its running statistics away from their start."""
    source, _, architecture = name.partition("/")
    torch.manual_seed(7)
    model = (
        timm.create_model(architecture) if source == "timm" else torchvision.models.get_model(architecture)
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    path = folder / f"{architecture}.pt"
    torch.save(model.state_dict(), path)
    return str(path)


def digest(tensors: dict[str, Tensor]) -> str:
    """Return a checksum of names and bytes."""
    made = hashlib.sha256()
    for name in sorted(tensors):
        made.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()


def frozen_state(backbone: nn.Module, through: int | str) -> dict[str, Tensor]:
    """Return parameters and running statistics that a policy freezes, found from the stages alone."""
    state = dict(backbone.state_dict())
    if through == "all":
        return state
    reached = [(r, n) for r, names in backbone.stages() for n in names]
    frozen = {n for r, n in reached if r <= int(through)}
    moving = {n for r, n in reached if r > int(through)}
    buffers = {name for name, _ in backbone.named_buffers()}

    def owner(name: str) -> str:
        return name.rpartition(".")[0]

    owners = {owner(n) for n in frozen} - {owner(n) for n in moving}
    return {n: v for n, v in state.items() if n in frozen or (n in buffers and owner(n) in owners)}
