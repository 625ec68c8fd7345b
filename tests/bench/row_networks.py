"""Backbone features and a training step of ResNet-50 under the device's policy, beside eager fp32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from tests.bench.processor import goal_here
from tests.bench.row import Row, Sides, Size, close, pick
from visionkit.backbones import create_backbone, fuse_norms
from visionkit.config import OptimConfig
from visionkit.run.config import RunConfig
from visionkit.run.training.device_policy import choose_policy
from visionkit.run.training.precision import CpuMixedPrecision
from visionkit.tasks import Classifier


def autocast(config: RunConfig, net: torch.nn.Module) -> Callable[[], Any]:
    """The precision that the policy chooses for this network."""
    if choose_policy(config, net).precision == "bf16-mixed":
        return CpuMixedPrecision().forward_context
    return contextlib.nullcontext


def near(atol: float) -> Callable[[Any, Any], None]:
    """Equal up to bf16's rounding, as a share of the largest value."""

    def equal(ours: Any, theirs: Any) -> None:
        for one, other in zip(ours, theirs, strict=True):
            close(atol=atol)(one.float() / other.abs().max(), other / other.abs().max())

    return equal


def features(name: str) -> Callable[[Size], Sides]:
    def build(size: Size) -> Sides:
        side, count = pick(size, tiny=(32, 1), quick=(160, 4), full=(224, 8))
        torch.manual_seed(0)
        theirs = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4)).eval()
        ours = create_backbone(f"timm/{name}", init="scratch").eval()
        mine = ours.state_dict()
        ours.load_state_dict(dict(zip(mine, theirs.state_dict().values(), strict=True)))
        ours = ours.to(memory_format=torch.channels_last)
        images = torch.randn(count, 3, side, side)
        last = images.contiguous(memory_format=torch.channels_last)
        policy = autocast(RunConfig(accelerator="cpu", image_size=side), ours)
        ours = fuse_norms(ours, last)

        def run_ours() -> list[Tensor]:
            with torch.inference_mode(), policy():
                return list(ours(last))

        def run_theirs() -> list[Tensor]:
            with torch.inference_mode():
                return list(theirs(images))

        return Sides(run_ours, run_theirs, near(0.06))

    return build


def step(size: Size) -> Sides:
    side, count = pick(size, tiny=(64, 2), quick=(96, 4), full=(160, 16))
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(num_classes=100)
    optim = OptimConfig(schedule="constant", warmup=0.0, optimizer="sgd", weight_decay=0.0)
    ours = Classifier("torchvision/resnet50", init="scratch", num_classes=100, optim=optim)
    ours = ours.to(memory_format=torch.channels_last)
    values = list(theirs.state_dict().values())
    mine = ours.backbone.state_dict()
    ours.backbone.load_state_dict(dict(zip(mine, values, strict=False)))
    with torch.no_grad():
        theirs.fc.weight.copy_(ours.head.weight)
        theirs.fc.bias.copy_(ours.head.bias)
    ours.normalize.shift.zero_()
    ours.normalize.scale.fill_(1 / 255)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    last, labels = images.contiguous(memory_format=torch.channels_last), torch.randint(0, 100, (count,))
    policy = autocast(RunConfig(accelerator="cpu", image_size=side), ours)
    move = torch.optim.SGD(ours.parameters(), lr=1e-6, momentum=0.9, fused=True)
    moved = torch.optim.SGD(theirs.parameters(), lr=1e-6, momentum=0.9)

    def run_ours() -> list[Tensor]:
        with policy():
            loss = ours.training_step({"images": last, "labels": labels}, 0)["loss"]
        move.zero_grad(set_to_none=True)
        loss.backward()
        move.step()
        return [loss.detach()]

    def run_theirs() -> list[Tensor]:
        loss = F.cross_entropy(theirs(images.float() / 255), labels)
        moved.zero_grad(set_to_none=True)
        loss.backward()
        moved.step()
        return [loss.detach()]

    return Sides(run_ours, run_theirs, near(0.05))


GOAL = goal_here(avx2=1.12, avx512_bf16=2.2, amx_bf16=4.0)
ROWS = (
    Row("backbone features, ResNet-50", "timm, eager fp32", features("resnet50"), goal=GOAL, bf16="products",
        limit="the rate of matrix products", package="timm", rounds=5,
        note="Ours with `fuse_norms`, as for prediction."),
    Row("training step, ResNet-50", "torchvision, eager fp32, SGD", step, goal=GOAL, bf16="products",
        limit="60% of the rate of matrix products", package="torchvision", rounds=5),
)  # fmt: skip
