"""A training step of FCN over ResNet-50: the task under the default policy, beside torchvision's own."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from tests.bench.processor import goal_here
from tests.bench.row import Row, Sides, Size, pick
from visionkit.run.config import RunConfig
from visionkit.run.training.device_policy import choose_policy
from visionkit.run.training.precision import CpuMixedPrecision
from visionkit.tasks import Segmenter

CLASSES = 21


def fcn_step(size: Size) -> Sides:
    """The same weights, images and update; theirs in float32 and as tensors lie, ours as a run has it."""
    side, count = pick(size, tiny=(64, 2), quick=(128, 2), full=(224, 4))
    torch.manual_seed(0)
    theirs = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
    )
    ours = Segmenter.from_torchvision(theirs.state_dict(), name="fcn_resnet50")
    ours = ours.to(memory_format=torch.channels_last).train()
    for module in (*theirs.modules(), *ours.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, CLASSES, (count, side, side), generator=generator)
    batch = {
        "images": images.contiguous(memory_format=torch.channels_last),
        "masks": masks,
        "ids": [str(index) for index in range(count)],
    }
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    policy = choose_policy(RunConfig(accelerator="cpu"))
    mixed = CpuMixedPrecision() if policy.precision == "bf16-mixed" else None
    our_sgd = torch.optim.SGD(ours.parameters(), lr=1e-6, momentum=0.9, fused=True)
    their_sgd = torch.optim.SGD(theirs.parameters(), lr=1e-6, momentum=0.9)

    def run_ours() -> Tensor:
        with mixed.forward_context() if mixed else contextlib.nullcontext():
            loss: Tensor = ours.training_step(batch, 0)["loss"]
        our_sgd.zero_grad(set_to_none=True)
        loss.backward()
        our_sgd.step()
        return loss.detach()

    def run_theirs() -> Tensor:
        out = theirs((images.float() / 255 - mean) / std)
        loss = F.cross_entropy(out["out"], masks) + 0.5 * F.cross_entropy(out["aux"], masks)
        their_sgd.zero_grad(set_to_none=True)
        loss.backward()
        their_sgd.step()
        return loss.detach()

    return Sides(run_ours, run_theirs, _near)


def _near(ours: Any, theirs: Any) -> None:
    # bfloat16 has eight bits; the losses of the same weights agree to its rounding
    torch.testing.assert_close(ours, theirs, atol=0.0, rtol=0.02)


ROWS = (
    Row(
        "training step, FCN ResNet-50",
        peer="torchvision, eager fp32, SGD",
        package="torchvision",
        build=fcn_step,
        goal=goal_here(avx2=1.0, avx512_bf16=2.2, amx_bf16=5.0),
        rounds=5,
        limit="the rate of convolutions",
        bf16="convolutions",
    ),
)
